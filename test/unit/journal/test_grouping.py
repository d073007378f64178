"""Lines that a search found and that are close in time are one moment."""

from __future__ import annotations

from journal_entries import SECOND, entry

from delayed_vlm_ros.journal import JournalMatch
from delayed_vlm_ros.journal.grouping import group_lines


def match(at, share=1.0, *, camera="front"):
    return JournalMatch(entry(f"line {at}", at, camera=camera), share)


def times(moments):
    return [(moment.stamp_ns / SECOND, moment.end_stamp_ns / SECOND) for moment in moments]


def test_lines_close_in_time_are_one_moment_with_the_best_line():
    moments = group_lines([match(100), match(108), match(92), match(200)], 10)
    assert times(moments) == [(92.0, 108.5), (200.0, 200.5)]
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
