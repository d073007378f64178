"""Reports of pairs that leave the memory after they were in Star memory."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delayed_vlm_ros.errors import PairNotKeptError, StampOrderError
from delayed_vlm_ros.memory import SmartFrameManager

WAITING_PAIRS = 8  # newest complete pairs that may return with a deferred score, with these Stream sizes
IMAGES = [
    np.random.default_rng(seed).integers(20, 220, (3, 3, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    for seed in range(10)
]


def listening(*sizes, **options):
    """Return a memory and the list of the pairs that it reports."""
    memory = SmartFrameManager(*sizes, **options)
    evicted = []
    memory.set_eviction_listener(evicted.append)
    return memory, evicted


def show(memory, views, after=0.0):
    for index, view in enumerate(views):
        memory.add(IMAGES[view], after + 0.5 * (index + 1))


@settings(max_examples=80, deadline=None)
@given(
    views=st.lists(st.integers(0, 9), max_size=60),
    star_size=st.sampled_from([0, 2, 4, 8]),
    stream_size=st.sampled_from([2, 4, 10]),
    chunk=st.sampled_from([0, 4]),
    marks=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 9), st.booleans()), max_size=6),
)
def test_pairs_that_were_in_star_and_left_both_memories_are_reported_once(views, star_size, stream_size, chunk, marks):
    # given a memory, and the pairs that each change should report: in Star before, and in neither memory after, when
    # they are too old to return with a deferred score
    is_chunked = min(star_size, stream_size) > chunk
    memory, evicted = listening(star_size, stream_size, eviction_chunk=chunk if is_chunked else 0)
    seen, expected = {}, []

    def change(act):
        act()
        after = {kept.id: kept for kept in memory.snapshot()}
        seen.update((pair_id, kept) for pair_id, kept in after.items() if pair_id in seen or kept.in_star)
        complete = memory.get_statistics()["total_frames_added"] // 2
        gone = [pair_id for pair_id in sorted(seen) if pair_id not in after and pair_id <= complete - WAITING_PAIRS]
        expected.extend((pair_id, seen[pair_id].content_key, seen.pop(pair_id).reason) for pair_id in gone)

    # when
    for number, view in enumerate(views):
        change(lambda view=view, number=number: memory.add(IMAGES[view], 0.5 * (number + 1)))
        for at, index, marked in marks:
            kept = memory.snapshot()
            if at == number and index < len(kept) and star_size > 2 and kept[index].marked is not marked:
                if marked and sum(pair.marked for pair in kept) >= star_size // 8 + 1:
                    continue
                act = memory.mark if marked else memory.unmark
                change(lambda act=act, pair_id=kept[index].id: act(pair_id))

    # then
    assert [(kept.id, kept.content_key, kept.reason) for kept in evicted] == expected
    assert len({kept.id for kept in evicted}) == len(evicted)
    assert all(not kept.marked for kept in evicted)


def test_pair_that_leaves_star_is_reported_when_it_leaves_stream_too():
    # given more scenes than Star memory has space for, all of them in Stream memory
    memory, evicted = listening(4, 40)
    left_star = set()
    for number, view in enumerate([view for view in range(10) for _ in range(2)]):
        before = {kept.id for kept in memory.snapshot() if kept.in_star}
        memory.add(IMAGES[view], 0.5 * (number + 1))
        left_star |= before - {kept.id for kept in memory.snapshot() if kept.in_star}
    assert left_star
    assert left_star <= {kept.id for kept in memory.snapshot() if kept.in_stream}
    assert evicted == []

    # when Stream memory moves on
    show(memory, [0] * 40, after=10.0)

    # then
    reported = [kept for kept in evicted if kept.id in left_star]
    assert sorted(kept.id for kept in reported) == sorted(left_star)
    assert all(kept.frame_count == 2 and kept.reason for kept in reported)


def test_reset_reports_nothing_and_starts_again():
    memory, evicted = listening(4, 4)
    show(memory, range(4))
    memory.reset()
    assert evicted == []
    show(memory, [4, 5])
    assert evicted == []
    show(memory, [view % 10 for view in range(40)], after=1.0)
    assert evicted
    assert all(kept.id > 2 for kept in evicted)  # of the frames after the reset


def test_key_frames_that_do_not_fit_after_a_restart_are_reported():
    larger = SmartFrameManager(12, 2)
    show(larger, [view for view in range(6) for _ in range(2)])
    stored = tuple(kept for kept in larger.snapshot() if kept.in_star)
    memory, evicted = listening(4, 2)
    memory.restore(stored)
    assert len(stored) == 6
    remaining = {kept.id for kept in memory.snapshot()}
    assert {kept.id for kept in evicted} == {kept.id for kept in stored} - remaining
    assert len(remaining) == 2


def test_failed_changes_report_nothing():
    memory, evicted = listening(4, 4)
    show(memory, [0, 0, 1, 1])
    with pytest.raises(StampOrderError):
        memory.add(IMAGES[2], 1.0)
    with pytest.raises(PairNotKeptError):
        memory.mark(99)
    assert evicted == []


def test_listener_may_use_the_memory_while_another_thread_marks():
    # given a listener that takes the lock of the memory
    memory = SmartFrameManager(4, 4)
    sizes = []
    memory.set_eviction_listener(lambda _: sizes.append(memory.statistics().unique_frames))
    closing = threading.Event()

    def mark_all():
        while not closing.is_set():
            for kept in memory.snapshot():
                try:
                    memory.mark(kept.id)
                    memory.unmark(kept.id)
                except PairNotKeptError:
                    pass

    marking = threading.Thread(target=mark_all, daemon=True)
    marking.start()

    # when
    show(memory, [index % 10 for index in range(200)])
    closing.set()
    marking.join(5.0)

    # then nothing waits for itself
    assert not marking.is_alive()
    assert sizes


def test_memory_without_a_listener_reports_nothing():
    memory, evicted = listening(2, 2)
    memory.set_eviction_listener(None)
    show(memory, range(10))
    assert evicted == []
