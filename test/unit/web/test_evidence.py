"""Frames under an answer: still kept, and spread over time."""

from __future__ import annotations

import pytest

from delayed_vlm_ros.web.backend import AnsweredQuestion, EvidenceFrame, KeptFrame
from delayed_vlm_ros.web.evidence import kept_frames_of, spread_over_time


def frames_at(*seconds):
    return [
        KeptFrame(number, "camera", at * 10**9, at * 10**9, 0.5, "", True, False) for number, at in enumerate(seconds)
    ]


def seconds(frames):
    return [frame.stamp_ns // 10**9 for frame in frames]


def test_few_frames_are_all_shown():
    frames = frames_at(1, 2, 3)
    assert spread_over_time(frames, 5) == frames
    assert spread_over_time([], 5) == []


def test_newest_frames_do_not_displace_the_rest_of_an_hour():
    star, stream = [0, 890, 1700, 2600], list(range(3590, 3601))
    assert seconds(spread_over_time(frames_at(*star, *stream), 5)) == [0, 890, 1700, 2600, 3600]


@pytest.mark.parametrize("stamps", [[5] * 9, [0, *range(100, 109)], [*range(9), 1000]])
def test_frames_in_bursts_are_shown_once_each_in_order_with_first_and_last(stamps):
    frames = frames_at(*stamps)
    shown = spread_over_time(frames, 5)
    assert len({frame.id for frame in shown}) == 5
    assert seconds(shown) == sorted(seconds(shown))
    assert {frames[0].id, frames[-1].id} <= {frame.id for frame in shown}


def answer_at(second, *frame_ids, evidence=()):
    ranks = tuple(EvidenceFrame(frame, 0.5) for frame in evidence)
    return AnsweredQuestion("q", second * 10**9, "", "What?", "A box.", frame_ids=frame_ids, evidence=ranks)


def test_frames_of_an_answer_are_those_still_kept():
    kept = frames_at(1, 2, 3)
    answer = answer_at(3, 2, 0, 7, evidence=[kept[2]])
    assert kept_frames_of(answer, kept) == [kept[2], kept[0]]


def test_frames_of_a_restarted_node_with_the_same_ids_are_not_those_of_an_earlier_answer():
    before, after = frames_at(1, 2, 3), frames_at(8, 9, 10)
    assert kept_frames_of(answer_at(4, 0, 1, 2, evidence=before[:1]), after) == []
    replayed = frames_at(1, 3, 4)
    assert kept_frames_of(answer_at(4, 0, 1, evidence=[before[1]]), replayed) == [replayed[0]]
