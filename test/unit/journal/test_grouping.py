"""Lines that a search found and that are close in time are one moment."""

from __future__ import annotations

from journal_entries import SECOND, entry

from delayed_vlm_ros.journal import JournalMatch
from delayed_vlm_ros.journal.grouping import ShownSpan, group_lines, without_shown


def match(at, share=1.0, *, camera="front"):
    return JournalMatch(entry(f"line {at}", at, camera=camera), share)


def times(moments):
    return [(moment.stamp_ns / SECOND, moment.end_stamp_ns / SECOND) for moment in moments]


def test_lines_close_in_time_are_one_moment_with_the_best_line():
    moments = group_lines([match(100), match(120), match(80), match(200), match(221)], 10)
    assert times(moments) == [(80.0, 120.5), (200.0, 200.5), (221.0, 221.5)]
    assert moments[0].entry.caption == "line 100"


def test_moments_of_other_cameras_and_other_shares_stay_apart():
    moments = group_lines([match(100), match(101, camera="rear"), match(102, 0.5), match(103, 0.5)], 10)
    assert [(moment.entry.camera, moment.share) for moment in moments] == [
        ("front", 1.0),
        ("rear", 1.0),
        ("front", 0.5),
    ]
    assert times(moments)[2] == (102.0, 103.5)


def test_number_of_moments_is_limited_and_later_lines_still_extend_them():
    moments = group_lines([match(100), match(300), match(500), match(104)], 2)
    assert times(moments) == [(100.0, 104.5), (300.0, 300.5)]
    assert group_lines([], 2) == ()


def test_lines_about_moments_that_key_frames_show_are_left_out():
    matches = [match(100), match(200), match(300), match(100, camera="rear")]
    shown = [ShownSpan("front", 120 * SECOND, 122 * SECOND), ShownSpan("front", 270 * SECOND, 280 * SECOND)]
    left = list(without_shown(matches, shown))
    assert [(one.entry.camera, one.entry.stamp_ns // SECOND) for one in left] == [("front", 200), ("rear", 100)]
    assert list(without_shown(matches, [])) == matches


def test_key_frame_hides_no_line_of_the_same_hour_that_is_far_from_it():
    # given lines that follow each other closely, which are one moment
    matches = [match(15 * number) for number in range(240)]
    shown = [ShownSpan("front", 3585 * SECOND, 3590 * SECOND)]
    (moment,) = group_lines(without_shown(matches, shown), 10)
    assert times([moment]) == [(0.0, 3555.5)]
