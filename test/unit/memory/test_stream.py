"""The sliding window of the newest pairs."""

from __future__ import annotations

import numpy as np
import pytest

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import Frame, FramePair, StreamMemory


def frame(number: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), float(number), number, 0.0, "")


def complete(pair_id: int) -> FramePair:
    return FramePair(pair_id, frame(2 * pair_id), frame(2 * pair_id + 1))


def ids(stream: StreamMemory) -> list[int]:
    return [pair.id for pair in stream.pairs]


@pytest.mark.parametrize(("window_size", "kept"), [(2, 1), (3, 1), (4, 2), (7, 3)])
def test_oldest_pairs_are_evicted_whole(window_size, kept):
    # given
    stream = StreamMemory(window_size)

    # when
    for pair_id in range(10):
        stream.add(complete(pair_id))

    # then
    assert ids(stream) == list(range(10))[-kept:]
    assert stream.frame_count == 2 * kept


def test_completing_the_newest_pair_may_evict_the_oldest():
    # given
    stream = StreamMemory(3)
    stream.add(complete(1))
    stream.add(FramePair(2, frame(4), None))
    assert (ids(stream), stream.frame_count) == ([1, 2], 3)

    # when
    stream.replace_newest(complete(2))

    # then
    assert (ids(stream), stream.frame_count) == ([2], 2)


def test_only_the_newest_pair_can_be_replaced():
    # given
    stream = StreamMemory(4)

    # then
    with pytest.raises(ValueError, match="not the newest"):
        stream.replace_newest(complete(1))
    stream.add(complete(1))
    stream.add(complete(2))
    with pytest.raises(ValueError, match="not the newest"):
        stream.replace_newest(complete(1))


@pytest.mark.parametrize("window_size", [4, 5])
def test_add_reports_evictions_and_is_full_reports_a_full_window(window_size):
    # given
    stream = StreamMemory(window_size)

    # when
    seen = [(stream.add(complete(pair_id)), stream.is_full) for pair_id in range(4)]

    # then
    assert seen == [(False, False), (False, True), (True, True), (True, True)]


def test_provisional_pair_counts_as_a_whole_pair_for_is_full():
    # given
    stream = StreamMemory(4)
    stream.add(complete(1))

    # when
    stream.add(FramePair(2, frame(4), None))

    # then
    assert stream.is_full
    assert not stream.replace_newest(complete(2))


def test_drop_oldest_evicts_several_pairs():
    # given
    stream = StreamMemory(8)
    for pair_id in range(4):
        stream.add(complete(pair_id))

    # when
    stream.drop_oldest(3)

    # then
    assert ids(stream) == [3]
    assert not stream.is_full


@pytest.mark.parametrize("window_size", [1, 0, -4])
def test_window_below_one_pair_is_rejected(window_size):
    with pytest.raises(ConfigurationError, match="stream_window_size"):
        StreamMemory(window_size)
