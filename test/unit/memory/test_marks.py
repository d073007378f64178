"""Marked pairs stay in the memory."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from delayed_vlm_ros.errors import ConfigurationError, MarkError, MarksFullError, PairNotKeptError
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.limits import max_marked_pairs
from delayed_vlm_ros.memory.marks import MAX_LABEL_CHARACTERS, nearest_span

SIZE = (24, 24)


def image(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(20, 220, (3, 3, 3), np.uint8)
    return blocks.repeat(SIZE[0] // 3, axis=0).repeat(SIZE[1] // 3, axis=1)


def show(memory: SmartFrameManager, views: list[int]) -> None:
    """Add a frame of each view, half a second apart."""
    start = -0.5 if memory.newest_stamp is None else memory.newest_stamp
    for index, view in enumerate(views):
        memory.add(image(view), start + 0.5 * (index + 1))


def ids(memory: SmartFrameManager, which: str) -> list[int]:
    return [kept.id for kept in memory.snapshot() if getattr(kept, which)]


def test_marked_pair_survives_a_thousand_novel_frames():
    # given a quiet pair that Star memory would not take
    memory = SmartFrameManager()
    show(memory, [0] * 4)
    assert ids(memory, "in_star") == [1]
    before = memory.snapshot()[1]

    # when
    marked = memory.mark(2, "keys on the table")
    show(memory, list(range(1, 1001)))

    # then
    assert (marked.marked, marked.label, marked.in_star) == (True, "keys on the table", True)
    kept = next(kept for kept in memory.snapshot() if kept.id == 2)
    assert kept.pair is before.pair
    assert kept.content_key == before.content_key
    assert (kept.marked, kept.label, kept.in_star, kept.in_stream) == (True, "keys on the table", True, False)


def test_unmarked_pair_is_evicted_like_any_other():
    # given
    memory = SmartFrameManager()
    show(memory, [0] * 4)
    memory.mark(2, "keys")
    show(memory, list(range(1, 101)))

    # when
    unmarked = memory.unmark(2)

    # then it is kept until novel frames evict it
    assert (unmarked.marked, unmarked.label, unmarked.in_star) == (False, "", True)
    show(memory, list(range(101, 301)))
    assert 2 not in ids(memory, "in_star")


@pytest.mark.parametrize("chunk", [0, 6])
def test_marking_a_stream_pair_evicts_the_least_valuable_from_star(chunk):
    # given a full Star, and a quiet pair in Stream
    memory = SmartFrameManager(8, 20, eviction_chunk=chunk)
    show(memory, [0, 0, 1, 1, 2, 2, 3, 3, 3, 3])
    assert ids(memory, "in_star") == [1, 2, 3, 4]

    # when
    memory.mark(5)

    # then
    star = ids(memory, "in_star")
    assert len(star) == 4
    assert star[-1] == 5
    assert ids(memory, "in_stream") == [1, 2, 3, 4, 5]


def test_marked_old_pair_is_inserted_in_time_order():
    # given
    memory = SmartFrameManager()
    show(memory, [0, 0, 0, 0, 1, 1])
    assert ids(memory, "in_star") == [1, 3]

    # when
    memory.mark(2)

    # then later pairs are compared by their gaps in time as before
    show(memory, list(range(2, 60)))
    star = [kept.stamps for kept in memory.snapshot() if kept.in_star]
    assert star == sorted(star)
    assert 2 in ids(memory, "in_star")


def test_pair_marked_while_provisional_is_kept_complete():
    # given
    memory = SmartFrameManager(6, 4)
    show(memory, [0, 0, 0])

    # when
    memory.mark(2, "half")
    show(memory, [0, *range(1, 30)])

    # then
    kept = next(kept for kept in memory.snapshot() if kept.id == 2)
    assert (kept.frame_count, kept.label) == (2, "half")


def test_marking_again_changes_the_label_and_uses_one_mark():
    # given
    memory = SmartFrameManager(max_marked_frames=2)
    show(memory, [0, 0])

    # when
    memory.mark(1, "door")
    again = memory.mark(1, "open door")

    # then
    assert again.label == "open door"
    assert memory.mark(1).label == ""


def test_mark_beyond_the_limit_is_rejected_until_one_is_removed():
    # given
    memory = SmartFrameManager(max_marked_frames=4)
    show(memory, [0, 0, 1, 1, 2, 2])
    memory.mark(1)
    memory.mark(3)
    before = memory.snapshot()

    # when
    with pytest.raises(MarksFullError, match=r"4 .*pairs 1, 3"):
        memory.mark(2)

    # then nothing has changed, and unmarking helps
    assert memory.snapshot() == before
    memory.unmark(1)
    memory.mark(2)
    assert ids(memory, "marked") == [2, 3]


@pytest.mark.parametrize("memory", [SmartFrameManager(0, 4), SmartFrameManager(4, 4, max_marked_frames=0)])
def test_marks_are_rejected_if_star_or_marks_are_disabled(memory):
    show(memory, [0, 0])
    with pytest.raises(MarksFullError, match="max_marked_frames"):
        memory.mark(1)
    assert ids(memory, "marked") == []


def test_marking_or_unmarking_an_evicted_pair_is_rejected():
    # given
    memory = SmartFrameManager(0, 4)
    show(memory, [0] * 12)

    # then
    for act in (memory.mark, memory.unmark):
        for pair_id in (0, 1, 99):
            with pytest.raises(PairNotKeptError, match=f"pair {pair_id}"):
                act(pair_id)


def test_unmarking_an_unmarked_pair_names_the_marked_ones():
    # given
    memory = SmartFrameManager()
    show(memory, [0, 0, 1, 1])

    # then
    with pytest.raises(MarkError, match=r"pair 1 .*none"):
        memory.unmark(1)
    memory.mark(2)
    with pytest.raises(MarkError, match=r"pair 1 .*2$"):
        memory.unmark(1)


@pytest.mark.parametrize(
    ("label", "named"), [("x" * (MAX_LABEL_CHARACTERS + 1), "label .*64 .*65"), ("a\nb", r"label .*a\\nb")]
)
def test_invalid_label_is_rejected(label, named):
    # given
    memory = SmartFrameManager()
    show(memory, [0])

    # then
    with pytest.raises(MarkError, match=named):
        memory.mark(1, label)
    assert ids(memory, "marked") == []
    assert memory.mark(1, "ü" * MAX_LABEL_CHARACTERS).marked


def test_reset_removes_marks():
    # given
    memory = SmartFrameManager(max_marked_frames=2)
    show(memory, [0, 0])
    memory.mark(1)

    # when
    memory.reset()
    show(memory, [0, 0])

    # then
    assert ids(memory, "marked") == []
    assert memory.mark(2).marked


def test_changes_counts_frames_and_marks_only():
    # given
    memory = SmartFrameManager()
    counts = [memory.changes]

    # when
    for change in (
        lambda: memory.add(image(0), 0.0),
        lambda: memory.mark(1),
        lambda: memory.mark(1, "a"),
        lambda: memory.unmark(1),
        memory.reset,
    ):
        change()
        counts.append(memory.changes)

    # then
    assert counts == sorted(set(counts))
    memory.snapshot()
    with pytest.raises(PairNotKeptError):
        memory.mark(7)
    assert memory.changes == counts[-1]


@pytest.mark.parametrize(
    ("max_marked_frames", "star_size", "pairs"),
    [(None, 20, 3), (None, 16, 2), (None, 8, 1), (None, 4, 1), (None, 2, 0), (None, 0, 0), (5, 20, 2), (18, 20, 9)],
)
def test_max_marked_pairs_is_rounded_and_bounded(max_marked_frames, star_size, pairs):
    assert max_marked_pairs(max_marked_frames, star_size) == pairs


@pytest.mark.parametrize(
    ("max_marked_frames", "star_size", "named"),
    [
        (20, 20, ["star_memory_size=20", "at most 18"]),
        (2, 0, ["star_memory_size=0", "at most 0"]),
        (2, 2, ["star_memory_size=2", "at most 0"]),
        (-2, 20, ["-2"]),
        (1, 20, ["1"]),
    ],
)
def test_marks_that_could_fill_star_are_rejected(max_marked_frames, star_size, named):
    with pytest.raises(ConfigurationError, match="max_marked_frames") as error:
        SmartFrameManager(star_size, max_marked_frames=max_marked_frames)
    assert all(one in str(error.value) for one in named)


def test_nearest_span_prefers_the_older_of_equally_near_ones():
    # given two pairs, and a provisional one
    spans = [(0.0, 0.5), (1.0, 1.5), (2.0, 2.0)]

    def nearest(time: float) -> int | None:
        return nearest_span(spans, time, within_sec=0.4)

    # then
    assert [nearest(time) for time in (-0.5, -0.4, 0.3, 0.7, 0.8, 1.2, 2.4, 2.5)] == [None, 0, 0, 0, 1, 1, 2, None]
    assert nearest(0.75) == 0
    assert nearest_span((), 0.0, within_sec=9.0) is None


def test_marking_from_many_threads_never_exceeds_the_limit():
    # given
    memory = SmartFrameManager(12, 20, max_marked_frames=6)
    show(memory, [0] * 20)
    most: list[int] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(200):
            pair_id = int(rng.integers(1, 11))
            with contextlib.suppress(MarkError):
                (memory.mark if rng.random() < 0.6 else memory.unmark)(pair_id)
            most.append(len(ids(memory, "marked")))

    # when
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # then
    assert max(most) == 3


class MarksMachine(RuleBasedStateMachine):
    """Any history of adding, marking, unmarking and resetting, compared with a dictionary of the marks."""

    @initialize(data=st.data())
    def start(self, data):
        self.star_size = data.draw(st.integers(4, 12), "Star")
        self.window = data.draw(st.integers(2, 9), "Stream")
        smaller = min(self.star_size, self.window) // 2 * 2
        chunk = data.draw(st.integers(0, smaller - 2).filter(lambda frames: frames != 1), "chunk")
        self.max_marked = data.draw(
            st.integers(0, self.star_size // 2 * 2 - 2).filter(lambda frames: frames != 1), "marked"
        )
        threshold = data.draw(st.sampled_from([0.0, 0.3, 0.6]), "threshold")
        self.memory = SmartFrameManager(
            self.star_size, self.window, threshold, eviction_chunk=chunk, max_marked_frames=self.max_marked
        )
        self.marked: dict[int, str] = {}
        self.contents: dict[int, tuple] = {}

    @rule(seed=st.integers(0, 9), gap=st.floats(0.01, 100.0), count=st.integers(1, 9))
    def add(self, seed, gap, count):
        for index in range(count):
            newest = self.memory.newest_stamp
            self.memory.add(image(seed + index), gap if newest is None else newest + gap)
            # Invariants run after a rule only, but each single frame may evict pairs.
            self.marked_pairs_are_in_star()
            self.bounds_hold()

    @precondition(lambda self: self.memory.snapshot())
    @rule(data=st.data(), label=st.sampled_from(["", "door", "Tür"]))
    def mark(self, data, label):
        pair_id = data.draw(st.sampled_from([kept.id for kept in self.memory.snapshot()]), "pair")
        if pair_id in self.marked or len(self.marked) < self.max_marked // 2:
            assert self.memory.mark(pair_id, label).label == label
            self.marked[pair_id] = label
        else:
            with pytest.raises(MarksFullError):
                self.memory.mark(pair_id, label)

    @precondition(lambda self: self.marked)
    @rule(data=st.data())
    def unmark(self, data):
        pair_id = data.draw(st.sampled_from(sorted(self.marked)), "pair")
        assert not self.memory.unmark(pair_id).marked
        del self.marked[pair_id]

    @rule()
    def reset(self):
        self.memory.reset()
        self.marked.clear()

    @invariant()
    def marked_pairs_are_in_star(self):
        marked = {kept.id: kept.label for kept in self.memory.snapshot() if kept.marked and kept.in_star}
        assert marked == self.marked
        assert set(ids(self.memory, "marked")) == set(self.marked)
        assert len(self.marked) <= self.max_marked // 2

    @invariant()
    def bounds_hold(self):
        counts = self.memory.statistics()
        assert counts.star_memory_size <= self.star_size
        assert counts.stream_memory_size <= self.window
        assert len(ids(self.memory, "in_star")) <= self.star_size // 2

    @invariant()
    def order_holds_and_contents_stay(self):
        snapshot = self.memory.snapshot()
        assert [kept.stamps for kept in snapshot] == sorted(kept.stamps for kept in snapshot)
        for kept in snapshot:
            known = self.contents.setdefault(kept.id, (kept.frame_count, kept.content_key))
            if kept.frame_count == known[0]:
                assert kept.content_key == known[1]
            else:
                self.contents[kept.id] = (kept.frame_count, kept.content_key)


MarksMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestMarksMachine = MarksMachine.TestCase
