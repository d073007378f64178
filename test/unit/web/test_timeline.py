"""Moments of the timeline, its lines of the journal, and the record of a camera's gaps."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import (
    MAX_JOURNAL_LINES,
    AnsweredQuestion,
    CameraSpan,
    CameraState,
    KeptFrame,
    WatchAlert,
)
from delayed_vlm_ros.web.camera_record import CameraRecord
from delayed_vlm_ros.web.journal_feed import JournalFeed
from delayed_vlm_ros.web.timeline_events import changes, event_of, gap_summary, moments_of

SECOND_NS = 10**9
START = 1_800_000_000
FRAME = KeptFrame(7, "front", 5, 6, 0.5, "new thing", in_star=True, in_stream=False)
MARKED = KeptFrame(8, "front", 7, 8, 0.5, "", in_star=True, in_stream=True, marked=True, label="keys")
ALERT = WatchAlert(1, "door", "Is it open?", "front", is_rising=True, p_yes=0.9, stamp_ns=9, evidence=())
ANSWER = AnsweredQuestion("q", 10, "", "What?", "A box.")
FAILED = AnsweredQuestion("r", 11, "*", "What?", "", error="no frames")
LINE = JournalLine(3, "front", 1, 2, "eine Tür 門")


# Moments -------------------------------------------------------------------------------------------------------------


def front_moments(*, is_first: bool):
    other = JournalLine(4, "rear", 1, 2, "rear")
    return moments_of(
        CameraState("front", frames=(FRAME, MARKED)), (ALERT,), (ANSWER, FAILED), (LINE, other), is_first=is_first
    )


def test_moments_are_those_of_the_camera_and_of_questions_to_all():
    assert set(front_moments(is_first=True).values()) == {FRAME, MARKED, ALERT, ANSWER, FAILED, LINE}
    assert ANSWER not in front_moments(is_first=False).values()


def test_answers_to_questions_with_the_same_id_are_all_moments():
    answers = [ANSWER, AnsweredQuestion(ANSWER.id, 20, "", "And now?", "Nothing.")]
    moments = moments_of(CameraState("front"), (), answers, (), is_first=True)
    assert list(moments.values()) == answers


@pytest.mark.parametrize(
    ("moment", "lane", "kind", "words"),
    [
        (FRAME, "new thing", "star", "new thing"),
        (MARKED, "unremarkable", "marked", "keys"),
        (ALERT, "Alerts", "yes", "Is it open? Yes"),
        (ANSWER, "Questions", "answered", "A box."),
        (FAILED, "Questions", "failed", "no frames"),
        (LINE, "Journal", "line", "eine Tür 門"),
    ],
)
def test_moment_has_lane_kind_and_text(moment, lane, kind, words):
    event = event_of("key", moment)
    assert (event.lane, event.kind) == (lane, kind)
    assert words in event.label
    assert event.row == ["key", moment.stamp_ns / 1e6, lane, kind, event.label]


def test_long_text_is_cut():
    assert len(event_of("key", JournalLine(1, "", 0, 0, "x" * 10_000)).label) < 200


def test_changes_are_new_changed_and_gone_moments():
    before = {"a": FRAME, "b": ALERT, "c": LINE}
    equal = KeptFrame(7, "front", 5, 6, 0.5, "new thing", in_star=True, in_stream=False)
    after = {"a": equal, "b": ANSWER, "d": MARKED}
    assert dict(changes(before, after)) == {"b": ANSWER, "d": MARKED, "c": None}


# Gaps ----------------------------------------------------------------------------------------------------------------


def observed(*observations, max_unobserved_sec=4.0):
    """Return the spans after observations (second, images), relative to the start."""
    record = CameraRecord(max_unobserved_sec)
    for second, images in observations:
        record.observe(round((START + second) * SECOND_NS), images)
    return [
        (span.since_ns / SECOND_NS - START, span.until_ns / SECOND_NS - START, span.has_images) for span in record.spans
    ]


def steady(since, until, first=0):
    """Return one observation a second with ten images in each."""
    return [(second, first + 10 * (second - since)) for second in range(since, until + 1)]


def silent(since, until, images):
    return [(second, images) for second in range(since, until + 1)]


def test_steady_camera_has_no_gap():
    assert observed(*steady(0, 60)) == [(0, 60, True)]


def test_gap_lasts_from_the_last_image_to_the_next():
    spans = observed(*steady(0, 20), *silent(21, 40, 200), *steady(41, 60, 210))
    assert spans == [(0, 20, True), (20, 41, False), (41, 60, True)]


def test_gap_that_has_not_ended_reaches_to_the_last_observation():
    assert observed(*steady(0, 20), *silent(21, 30, 200)) == [(0, 20, True), (20, 30, False)]


@pytest.mark.parametrize("pause", [2, 5])
def test_short_pause_is_no_gap(pause):
    spans = observed(*steady(0, 20), *silent(21, 20 + pause - 1, 200), *steady(20 + pause, 40, 210))
    assert spans == [(0, 40, True)]


def test_slow_camera_has_no_gap():
    observations = [(second, second // 8) for second in range(121)]
    assert observed(*observations)[-1][2]
    assert all(has_images for _, _, has_images in observed(*observations)[1:])


@pytest.mark.parametrize("restart", [(100, 250), (25, 0)], ids=["no report for long", "another node"])
def test_time_without_observation_is_neither_gap_nor_images(restart):
    second, images = restart
    spans = observed(*steady(0, 20), *steady(second, second + 10, images))
    assert spans == [(0, 20, True), (second, second + 10, True)]


def test_observer_that_misses_no_image_needs_no_regular_observation():
    spans = observed((0, 1), (1, 2), (2, 3), (1000, 4), (1001, 5), max_unobserved_sec=None)
    assert spans == [(0, 2, True), (2, 1000, False), (1000, 1001, True)]


def test_clock_that_is_set_back_restarts_the_record():
    assert observed(*steady(0, 20), *steady(-500, -490, 200)) == [(-500, -490, True)]


def test_two_threads_that_observe_in_another_order_keep_the_record():
    assert observed((0, 1), (1, 2), (2, 3), (1.9, 4), (3, 5)) == [(0, 3, True)]


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        ((), "Gaps of the camera are not known yet."),
        ((CameraSpan(0, 9, has_images=True),), "No gap of the camera since 10:30, when this page began to observe it."),
        (
            (
                CameraSpan(0, 60 * SECOND_NS, has_images=False),
                CameraSpan(60 * SECOND_NS, 70 * SECOND_NS, has_images=True),
            ),
            "1 gap of the camera since 10:30, 60 s in total.",
        ),
    ],
)
def test_summary_claims_gaps_only_for_the_observed_time(spans, text):
    assert gap_summary(spans, "10:30") == text


# Journal -------------------------------------------------------------------------------------------------------------


class Journal:
    """A backend with lines that a test changes."""

    def __init__(self) -> None:
        self.lines: list[JournalLine] = []
        self.calls: list[int] = []
        self.is_lost = False

    def journal(self, after_id):
        self.calls.append(after_id)
        if self.is_lost:
            raise NodeNotFoundError("no node: start it")
        return tuple(line for line in self.lines if line.id > after_id)


def test_new_lines_are_read_every_few_seconds_and_all_once_a_minute():
    # given
    journal, now = Journal(), [100.0]
    journal.lines = [LINE]
    feed = JournalFeed(journal, lambda: now[0])

    def refresh(at):
        now[0] = at
        asyncio.run(feed.refresh())
        return [line.id for line in feed.lines]

    # then
    assert refresh(100.0) == [3]
    journal.lines = [JournalLine(9, "front", 0, 1, "earlier frames, later line")]  # and line 3 was removed
    assert refresh(102.0) == [3]
    assert refresh(106.0) == [3, 9]
    assert refresh(161.0) == [9]
    assert journal.calls == [0, 3, 0]


def test_journal_that_cannot_be_read_keeps_its_lines_and_says_why():
    journal, now = Journal(), [0.0]
    journal.lines = [LINE]
    feed = JournalFeed(journal, lambda: now[0])
    asyncio.run(feed.refresh())
    journal.is_lost, now[0] = True, 10.0
    asyncio.run(feed.refresh())
    assert feed.lines == (LINE,)
    assert feed.error == "The journal is not shown completely: No node: start it."
    journal.is_lost, now[0] = False, 20.0
    asyncio.run(feed.refresh())
    assert feed.error == ""


def test_lines_are_bounded():
    journal = Journal()
    journal.lines = [JournalLine(number, "", 0, 0, "") for number in range(1, MAX_JOURNAL_LINES + 10)]
    feed = JournalFeed(journal, lambda: 0.0)
    asyncio.run(feed.refresh())
    assert len(feed.lines) == MAX_JOURNAL_LINES
    assert feed.lines[-1].id == MAX_JOURNAL_LINES + 9
