"""Eviction of several pairs together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import AddedFrame, ImportanceScorer, SmartFrameManager, StarMemory, StreamMemory, describe
from delayed_vlm_ros.memory.frame import Frame, FramePair

IMAGES = [
    np.random.default_rng(seed).integers(20, 220, (3, 3, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    for seed in range(10)
]
QUIET = [0] * 40


def kept(memory: SmartFrameManager) -> tuple[list[int], list[int]]:
    """Return the ids of the pairs in Star and of those in Stream."""
    snapshot = memory.snapshot()
    return [pair.id for pair in snapshot if pair.in_star], [pair.id for pair in snapshot if pair.in_stream]


def without_deferred_scores(memory: SmartFrameManager) -> SmartFrameManager:
    """Let pairs enter Star on arrival only."""
    memory._event_detector.add = lambda _: None
    return memory


def show(memory: SmartFrameManager, views: list[int], interval: float = 0.5) -> list[AddedFrame]:
    """Add a frame of each view."""
    start = (memory.newest_stamp or 0.0) + interval
    return [memory.add(IMAGES[view], start + index * interval) for index, view in enumerate(views)]


def count_evictions(memory: SmartFrameManager, views: list[int]) -> int:
    """Count the frames after which the pairs kept before are no longer a prefix of the kept pairs."""
    kept_ids = []
    for view in views:
        show(memory, [view])
        kept_ids.append([pair.id for pair in memory.snapshot()])
    return sum(after[: len(before)] != before for before, after in pairwise(kept_ids))


def test_full_stream_evicts_a_chunk_and_refills():
    # given
    memory = SmartFrameManager(star_memory_size=0, stream_window_size=8, eviction_chunk=6)

    # when
    counts = [frame.stream_frames for frame in show(memory, QUIET[:21])]

    # then (a new pair is provisional)
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 3, 4, 5, 6, 7, 8, 3]


def test_full_star_evicts_a_chunk_but_neither_the_new_pair_nor_from_stream():
    # given
    memory = SmartFrameManager(star_memory_size=8, stream_window_size=12, eviction_chunk=6)
    show(memory, [0, 0, 1, 1, 2, 2, 3, 3])
    assert kept(memory) == ([1, 2, 3, 4], [1, 2, 3, 4])

    # when
    added = show(memory, [4, 4], interval=100.0)

    # then
    star, stream = kept(memory)
    assert [frame.star_frames for frame in added] == [3, 4]
    assert star[-1] == 5
    assert stream == [1, 2, 3, 4, 5]


def test_full_star_evicts_when_stream_evicts():
    # given full memories, with old pairs in Star
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=12, eviction_chunk=4)
    show(memory, [0, 0, 1, 1, 2, 2, *QUIET[:6]])
    assert kept(memory) == ([1, 2, 3], [1, 2, 3, 4, 5, 6])

    # when a quiet pair is added
    show(memory, QUIET[:1])

    # then
    star, stream = kept(memory)
    assert len(star) == 2
    assert stream == [3, 4, 5, 6, 7]


def test_full_stream_evicts_when_star_evicts():
    # given a full Star, and space for one more pair in Stream
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=12, eviction_chunk=4)
    show(memory, [0, 0, 1, 1, 2, 2, *QUIET[:4]])
    assert kept(memory) == ([1, 2, 3], [1, 2, 3, 4, 5])

    # when that pair is a key frame
    show(memory, [3], interval=100.0)

    # then
    star, stream = kept(memory)
    assert len(star) == 2
    assert star[-1] == 6
    assert stream == [2, 3, 4, 5, 6]


def test_star_with_free_space_evicts_nothing_when_stream_evicts():
    # given
    memory = SmartFrameManager(star_memory_size=8, stream_window_size=6, eviction_chunk=4)
    show(memory, [0, 0, 1, 1, 2, 2])

    # when
    show(memory, QUIET)

    # then
    assert kept(memory)[0] == [1, 2, 3]


def test_pair_rejected_by_star_evicts_nothing():
    # given a full Star of views far apart in time
    memory = SmartFrameManager(8, 20, importance_threshold=0.0, eviction_chunk=6)
    show(memory, [0, 0, 1, 1, 2, 2, 3, 3], interval=100.0)

    # when
    added = show(memory, [3, 3], interval=0.1)

    # then
    assert not any(frame.in_star for frame in added)
    assert kept(memory) == ([1, 2, 3, 4], [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("star", "stream", "chunk", "named"),
    [
        (20, 20, -2, ["-2"]),
        (20, 20, 1, ["1"]),
        (20, 8, 8, ["stream_window_size=8", "at most 6", "10"]),
        (8, 20, 9, ["star_memory_size=8", "at most 6", "10"]),
        (2, 20, 2, ["star_memory_size=2", "at most 0", "4"]),
    ],
)
def test_chunk_that_leaves_no_pair_is_rejected(star, stream, chunk, named):
    with pytest.raises(ConfigurationError, match="eviction_chunk") as error:
        SmartFrameManager(star, stream, eviction_chunk=chunk)
    assert all(one in str(error.value) for one in named)


@pytest.mark.parametrize(("star", "stream", "chunk"), [(20, 8, 6), (8, 20, 7), (0, 4, 2), (0, 2, 0), (2, 2, 0)])
def test_largest_chunk_is_accepted(star, stream, chunk):
    # given
    memory = SmartFrameManager(star, stream, eviction_chunk=chunk)

    # when
    added = show(memory, QUIET)

    # then
    assert max(frame.stream_frames for frame in added) == stream


@pytest.mark.parametrize(("star", "stream"), [(20, 20), (12, 20), (0, 20)])
@pytest.mark.parametrize("novelty", [0.05, 0.5])
def test_chunk_keeps_longer_prefixes(star, stream, novelty):
    # given
    rng = np.random.default_rng(0)
    views = np.cumsum(rng.random(120) < novelty) * 3 % len(IMAGES)

    # when
    one_by_one = count_evictions(SmartFrameManager(star, stream), views.tolist())
    in_chunks = count_evictions(SmartFrameManager(star, stream, eviction_chunk=8), views.tolist())

    # then
    assert 0 < in_chunks <= one_by_one / 2


class OneByOne:
    """The two memories without a manager: each evicts one pair when a pair is added."""

    def __init__(self, star_size: int, window: int, threshold: float) -> None:
        self.star, self.stream, self.scorer = StarMemory(star_size), StreamMemory(window), ImportanceScorer()
        self.threshold = threshold
        self.descriptors: list = []

    def add(self, frame: Frame) -> None:
        descriptor = describe(frame.image)
        importance = self.scorer.assess(descriptor, self.star.novelty(descriptor))
        self.scorer.remember(descriptor, importance)
        frame = Frame(frame.image, frame.stamp, frame.number, importance.score, importance.reason)
        if frame.number % 2:
            self.descriptors = [descriptor]
            pair = FramePair((frame.number + 1) // 2, frame, None)
            self.stream.add(pair)
        else:
            self.descriptors = [*self.descriptors, descriptor]
            pair = self.stream.pairs[-1].completed_with(frame)
            self.stream.replace_newest(pair)
        if self.star.contains(pair.id):
            self.star.update(pair, self.descriptors)
        elif importance.score >= self.threshold:
            self.star.add(pair, self.descriptors)

    @property
    def kept(self) -> tuple[list[int], list[int]]:
        return [pair.id for pair in self.star.pairs], [pair.id for pair in self.stream.pairs]


# A view, the number of frames that show it, and the seconds between them.
shots = st.lists(
    st.tuples(st.integers(0, len(IMAGES) - 1), st.integers(1, 5), st.sampled_from([0.5, 20.0, 400.0])),
    min_size=1,
    max_size=16,
)
thresholds = st.sampled_from([0.0, 0.3, 0.6])


@settings(max_examples=40, deadline=None)
@given(
    shots=shots,
    threshold=thresholds,
    chunk=st.sampled_from([0, 2, 3]),
    star=st.integers(4, 9),
    window=st.integers(4, 9),
)
def test_chunk_of_at_most_one_pair_evicts_one_by_one(shots, threshold, chunk, star, window):
    # given
    memory = without_deferred_scores(SmartFrameManager(star, window, threshold, eviction_chunk=chunk))
    expected = OneByOne(star, window, threshold)

    for view, interval in ((view, interval) for view, count, interval in shots for _ in range(count)):
        # when
        (added,) = show(memory, [view], interval)
        expected.add(Frame(IMAGES[view], memory.newest_stamp, added.number, 0.0, ""))

        # then
        assert kept(memory) == expected.kept


@settings(max_examples=60, deadline=None)
@given(shots=shots, threshold=thresholds, data=st.data())
def test_whole_chunks_are_evicted_from_full_memories_only(shots, threshold, data):
    # given sizes in pairs, plus possibly an odd frame that cannot hold a pair
    star_pairs = data.draw(st.sampled_from([0, 2, 3, 5, 6]), "pairs in Star")
    stream_pairs = data.draw(st.integers(2, 6), "pairs in Stream")
    chunk_pairs = data.draw(st.integers(1, min(stream_pairs, star_pairs or stream_pairs) - 1), "pairs in a chunk")
    star_odd, stream_odd, chunk_odd = data.draw(st.tuples(*[st.integers(0, 1)] * 3), "odd frames")
    star_size, window = 2 * star_pairs + (star_odd if star_pairs else 0), 2 * stream_pairs + stream_odd
    chunk = 2 * chunk_pairs + chunk_odd
    memory = without_deferred_scores(SmartFrameManager(star_size, window, threshold, eviction_chunk=chunk))
    star_before: set[int] = set()
    stream_before: set[int] = set()
    stream_frames_before = 0

    for view, interval in ((view, interval) for view, count, interval in shots for _ in range(count)):
        # when
        (added,) = show(memory, [view], interval)

        # then the bounds hold, and the newest pair is kept
        star, stream = map(set, kept(memory))
        assert added.star_frames <= star_size
        assert added.stream_frames <= window
        assert max(stream) == added.pair_id
        assert stream == set(range(min(stream), added.pair_id + 1))

        # and a chunk, which includes the space of the new pair, is evicted from each full memory
        stream_needs_room = stream_frames_before + 1 > window
        stream_is_full = len(stream_before | {added.pair_id}) >= stream_pairs
        star_is_full = len(star_before | ({added.pair_id} & star)) >= star_pairs > 0
        star_needs_room = len(star_before) == star_pairs and added.in_star and added.pair_id not in star_before
        together = stream_needs_room or star_needs_room
        assert len(stream_before - stream) == stream_needs_room + (chunk_pairs - 1) * (together and stream_is_full)
        assert len(star_before - star) == star_needs_room + (chunk_pairs - 1) * (together and star_is_full)
        star_before, stream_before, stream_frames_before = star, stream, added.stream_frames
