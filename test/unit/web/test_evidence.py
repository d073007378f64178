"""Frames under an answer: spread over time."""

from __future__ import annotations

import pytest

from delayed_vlm_ros.web.backend import KeptFrame
from delayed_vlm_ros.web.evidence import spread_over_time


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
