"""Restoring the key frames of an earlier run."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delayed_vlm_ros.errors import ImageError, StampOrderError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.storage.file_format import star_of

SIZE = (28, 28)


def image(seed):
    blocks = np.random.default_rng(seed).integers(20, 220, (4, 4, 3), np.uint8)
    return blocks.repeat(SIZE[0] // 4, axis=0).repeat(SIZE[1] // 4, axis=1)


def show(memory, views, *, after=0.0):
    for index, view in enumerate(views):
        memory.add(image(view), after + 0.5 * (index + 1), source=f"source {view}")


def content_of(snapshot):
    """Return all values of a snapshot, for comparison."""
    return [
        (
            kept.id,
            kept.content_key,
            kept.stamps,
            kept.importance,
            kept.reason,
            kept.marked,
            kept.label,
            [(frame.number, frame.source, frame.image.tobytes()) for frame in kept.pair.present_frames],
        )
        for kept in snapshot
    ]


@settings(max_examples=60, deadline=None)
@given(
    views=st.lists(st.integers(0, 9), max_size=40),
    star_size=st.sampled_from([0, 2, 4, 8, 20]),
    chunk=st.sampled_from([0, 2]),
    marked=st.sets(st.integers(0, 50), max_size=3),
    data=st.data(),
)
def test_restored_pairs_equal_the_kept_ones(views, star_size, chunk, marked, data):
    # given a memory with a history, and marks
    def empty():
        return SmartFrameManager(star_size, 4, eviction_chunk=chunk if star_size > 2 else 0)

    memory = empty()
    show(memory, views)
    kept = memory.snapshot()
    for number in sorted(marked):
        if number < len(kept) and sum(pair.marked for pair in memory.snapshot()) < star_size // 8:
            memory.mark(kept[number].id, data.draw(st.sampled_from(["", "keys"])))
    before = star_of(memory.snapshot())

    # when
    restored = empty()
    restored.restore(before)

    # then the very same pairs are there, now and the next time
    assert content_of(restored.snapshot()) == content_of(before)
    assert content_of(star_of(restored.snapshot())) == content_of(before)
    assert not any(kept.in_stream for kept in restored.snapshot())


def test_deferred_score_is_restored():
    # given
    memory = SmartFrameManager(6, 20)
    show(memory, range(12))
    first, second, *others = star_of(memory.snapshot())
    found = replace(second, deferred_score=0.9, deferred_reason="brief event")

    # when
    restored = SmartFrameManager(6, 20)
    restored.restore([first, found, *others])
    show(restored, range(100, 160), after=20.0)

    # then
    assert (found.id, "brief event", 0.9) in [
        (kept.id, kept.reason, kept.deferred_score) for kept in restored.snapshot()
    ]


def test_frames_are_added_after_restored_ones():
    # given
    memory = SmartFrameManager()
    show(memory, [1, 1, 2, 2, 3, 3])
    restored = SmartFrameManager()
    restored.restore(star_of(memory.snapshot()))
    assert restored.newest_stamp == 3.0
    assert restored.statistics().total_frames_added == 6

    # when
    with pytest.raises(StampOrderError):
        restored.add(image(4), 2.5)
    with pytest.raises(ImageError, match="shape"):
        restored.add(image(4)[:14], 9.0)
    show(restored, [4, 4], after=100.0)

    # then
    kept = restored.snapshot()
    assert [pair.id for pair in kept] == [1, 2, 3, 4]
    assert [pair.in_stream for pair in kept] == [False, False, False, True]
    assert kept[-1].pair.last.number == 8
    assert kept[-1].stamps == (100.5, 101.0)


def test_smaller_star_keeps_marked_and_most_valuable_pairs():
    # given ten pairs, one of them marked
    memory = SmartFrameManager()
    show(memory, [view for view in range(10) for _ in range(2)])
    memory.mark(4, "keys")
    before = star_of(memory.snapshot())
    assert len(before) == 10

    # when
    restored = SmartFrameManager(6, max_marked_frames=2)
    restored.restore(before)

    # then
    assert len(restored.snapshot()) == 3
    assert [(kept.id, kept.label) for kept in restored.snapshot() if kept.marked] == [(4, "keys")]


def test_marks_beyond_the_limit_are_dropped_but_their_pairs_are_kept():
    memory = SmartFrameManager()
    show(memory, [view for view in range(10) for _ in range(2)])
    for pair_id in (2, 3, 4):
        memory.mark(pair_id)
    # when
    restored = SmartFrameManager(max_marked_frames=2)
    restored.restore(star_of(memory.snapshot()))
    # then
    assert [kept.id for kept in restored.snapshot()] == [kept.id for kept in memory.snapshot() if kept.in_star]
    assert [kept.id for kept in restored.snapshot() if kept.marked] == [2]


def test_restoring_into_a_used_memory_is_rejected():
    memory = SmartFrameManager()
    show(memory, [1, 2])
    with pytest.raises(ValueError, match="not empty"):
        memory.restore(memory.snapshot())


def restored_ingestor(*, restarts):
    earlier = SmartFrameManager()
    show(earlier, [1, 1, 2, 2], after=1000.0)
    memory = SmartFrameManager()
    ingestor = SamplingIngestor(FrameGeometry(), memory, 2.0, topic="/image", restart_on_jump=restarts)
    ingestor.restore(star_of(earlier.snapshot()))
    return ingestor, memory


def jumps_of(ingestor, stamps, arrival=50.0):
    """Feed images with these stamps; return the time jump at each, or None for an outlier."""
    jumps = []
    for stamp in stamps:
        try:
            decision = ingestor.decide(round(stamp * 1e9), arrival, round(arrival * 1e9))
            jumps.append(decision.jump_sec)
            if decision.is_due:
                ingestor.add(image(int(stamp * 10)), decision)
        except ImageError:
            jumps.append(None)
    return jumps


@pytest.mark.parametrize("later", [0.5, 60.0, 1e6])
def test_first_image_after_restore_may_be_any_time_later(later):
    ingestor, memory = restored_ingestor(restarts=True)
    assert jumps_of(ingestor, [1002.0 + later]) == [0.0]
    assert memory.newest_stamp == 1002.0 + later
    assert len(memory.snapshot()) == 3


def test_image_of_another_size_is_resized_to_the_restored_grid():
    ingestor, memory = restored_ingestor(restarts=True)
    ingestor.add(np.zeros((480, 640, 3), np.uint8), ingestor.decide(2000 * 10**9, 50.0, 50 * 10**9))
    assert memory.snapshot()[-1].frames[0].shape == (*SIZE, 3)


def test_restarted_clock_empties_the_memory_if_it_restarts_on_jumps():
    ingestor, memory = restored_ingestor(restarts=True)
    assert jumps_of(ingestor, [0.1, 0.6, 1.1, 1.6]) == [None, None, pytest.approx(1.1 - 1002.0), 0.0]
    assert [kept.stamps for kept in memory.snapshot()] == [(1.1, 1.6)]


def test_restarted_clock_continues_the_memory_otherwise():
    ingestor, memory = restored_ingestor(restarts=False)
    assert jumps_of(ingestor, [0.1, 0.6, 1.1, 1.6]) == [None, None, pytest.approx(1.1 - 1002.0), 0.0]
    assert ingestor.offset_sec == pytest.approx(1000.9)
    assert [kept.id for kept in memory.snapshot()][:2] == [1, 2]
    assert memory.newest_stamp == pytest.approx(1002.5)


def test_single_outlier_keeps_restored_pairs():
    ingestor, memory = restored_ingestor(restarts=True)
    assert jumps_of(ingestor, [0.1, 5000.0]) == [None, 0.0]
    assert len(memory.snapshot()) == 3


def test_pair_ids_are_unique_after_continuing():
    ids = PairIds()
    assert [next(ids), next(ids)] == [1, 2]
    ids.continue_after(40)
    assert next(ids) == 41
    ids.continue_after(5)
    assert next(ids) == 42
