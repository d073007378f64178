"""The public interface of SmartFrameManager, also compared with a simple model."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import delayed_vlm_ros.memory
from delayed_vlm_ros.errors import ConfigurationError, ImageError, StampOrderError
from delayed_vlm_ros.memory import AddedFrame, SmartFrameManager

SIZE = (24, 24)
WAITING_PAIRS = 8  # newest complete pairs that may return with a deferred score, with these Stream sizes


def make_image(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return one of a few different images, so that views recur."""
    blocks = np.random.default_rng(seed).integers(20, 220, (3, 3, 3), np.uint8)
    return blocks.repeat(size[0] // 3, axis=0).repeat(size[1] // 3, axis=1)


def state_of(memory: SmartFrameManager) -> list:
    """Return the observable state of a memory."""
    kept = [(pair.pair, pair.in_star, pair.in_stream) for pair in memory.snapshot()]
    return [kept, memory.statistics(), memory.newest_stamp, memory.oldest_stamp]


def test_added_frame_reads_as_documented():
    # given
    in_both = AddedFrame(10, 5, True, 0.8, "scene change", 3, 10)
    in_stream = AddedFrame(11, 6, False, 0.1, "", 3, 11)

    # then
    assert str(in_both) == "Frame #10 added to Stream Memory + Star Memory (scene change) | Star: 3, Stream: 10"
    assert str(in_stream) == "Frame #11 added to Stream Memory | Star: 3, Stream: 11"


def test_quiet_scene_with_one_cut():
    # given
    memory = SmartFrameManager(star_memory_size=20, stream_window_size=4)

    # when
    lines = [str(memory.add(make_image(0 if index < 6 else 1), index / 2)) for index in range(8)]

    # then
    assert lines == [
        "Frame #1 added to Stream Memory + Star Memory (first frame) | Star: 1, Stream: 1",
        "Frame #2 added to Stream Memory + Star Memory | Star: 2, Stream: 2",
        "Frame #3 added to Stream Memory | Star: 2, Stream: 3",
        "Frame #4 added to Stream Memory | Star: 2, Stream: 4",
        "Frame #5 added to Stream Memory | Star: 2, Stream: 3",
        "Frame #6 added to Stream Memory | Star: 2, Stream: 4",
        "Frame #7 added to Stream Memory + Star Memory (scene change) | Star: 3, Stream: 3",
        "Frame #8 added to Stream Memory + Star Memory | Star: 4, Stream: 4",
    ]
    assert [(kept.stamps, kept.in_star, kept.in_stream, kept.reason) for kept in memory.snapshot()] == [
        ((0.0, 0.5), True, False, "first frame"),
        ((2.0, 2.5), False, True, ""),
        ((3.0, 3.5), True, True, "scene change"),
    ]
    assert memory.get_statistics() == {
        "total_frames_added": 8,
        "star_memory_size": 4,
        "stream_memory_size": 4,
        "unique_frames": 6,
        "overlap": 2,
        "compression_ratio": 8 / 6,
        "pixel_bytes": 6 * 24 * 24 * 3,
    }
    assert (memory.newest_stamp, memory.oldest_stamp) == (3.5, 0.0)


def test_pair_enters_star_with_its_second_frame_and_so_does_the_next_pair():
    # given
    memory = SmartFrameManager()
    for index in range(5):
        memory.add(make_image(0), float(index))

    # when
    second_of_a_pair, first_of_the_next = memory.add(make_image(1), 5.0), memory.add(make_image(1), 6.0)

    # then
    assert second_of_a_pair.in_star
    assert second_of_a_pair.reason == "scene change"
    assert first_of_the_next.in_star
    assert first_of_the_next.pair_id == second_of_a_pair.pair_id + 1


def test_empty_memory_has_no_frames_and_zero_statistics():
    # given
    memory = SmartFrameManager()

    # then
    assert memory.snapshot() == ()
    assert memory.newest_stamp is None
    assert memory.oldest_stamp is None
    assert set(memory.get_statistics().values()) == {0}


def test_disabled_star_keeps_nothing():
    # given
    memory = SmartFrameManager(star_memory_size=0, stream_window_size=2)

    # when
    added = [memory.add(make_image(seed), float(seed)) for seed in range(6)]

    # then
    assert not any(frame.in_star for frame in added)
    assert memory.get_statistics()["star_memory_size"] == 0
    assert len(memory.snapshot()) == 1


def test_threshold_zero_keeps_every_frame_with_a_reason():
    # given
    memory = SmartFrameManager(importance_threshold=0.0)

    # when
    added = [memory.add(make_image(0), float(index)) for index in range(4)]

    # then
    assert all(frame.in_star for frame in added)
    assert [frame.reason for frame in added] == ["first frame", *["quiet scene"] * 3]


def test_arrays_of_the_caller_are_copied_unless_read_only():
    # given
    memory = SmartFrameManager()
    image = make_image(0)
    read_only = make_image(1)
    read_only.setflags(write=False)
    read_only = read_only.copy()
    read_only.setflags(write=False)

    # when
    memory.add(image, 0.0)
    memory.add(read_only, 1.0)
    image[...] = 0

    # then
    first, second = memory.snapshot()[0].frames
    np.testing.assert_array_equal(first, make_image(0))
    assert image.flags.writeable
    assert second is read_only


def test_frames_are_paired_across_a_pause():
    # given
    memory = SmartFrameManager()

    # when
    added = [memory.add(make_image(0), stamp) for stamp in (0.0, 3600.0, 3600.5)]

    # then
    assert [frame.pair_id for frame in added] == [1, 1, 2]


@pytest.mark.parametrize(
    ("image", "stamp", "error", "named"),
    [
        (make_image(0, (24, 27)), 9.0, ImageError, r"\(24, 24, 3\).*\(24, 27, 3\)"),
        (make_image(0).astype(float), 9.0, ImageError, "float64"),
        (make_image(0), math.nan, ImageError, "nan"),
        (make_image(0), math.inf, ImageError, "inf"),
        (make_image(0), 2.0, StampOrderError, r"2\.000000 s.*2\.000000 s.*0\.000000 s"),
        (make_image(0), 1.5, StampOrderError, r"1\.500000 s.*2\.000000 s.*0\.500000 s"),
    ],
)
@pytest.mark.parametrize("frames", [3, 4])
def test_rejected_frame_names_the_cause_and_changes_nothing(frames, image, stamp, error, named):
    # given
    memory, undisturbed = SmartFrameManager(), SmartFrameManager()
    for each in (memory, undisturbed):
        for index in range(frames):
            each.add(make_image(index), index * 2.0 / (frames - 1))
    before = state_of(memory)

    # when
    with pytest.raises(error, match=named):
        memory.add(image, stamp)

    # then state and later results are as without the error
    assert state_of(memory) == before
    assert memory.add(make_image(9), 10.0) == undisturbed.add(make_image(9), 10.0)


def test_rejected_first_frame_leaves_the_memory_empty():
    # given
    memory = SmartFrameManager()

    # when
    with pytest.raises(ImageError):
        memory.add(make_image(0), math.nan)

    # then the first frame may have any size
    assert memory.add(make_image(0, (27, 27)), -5.0).reason == "first frame"


def test_reset_drops_everything_but_the_ids():
    # given
    memory = SmartFrameManager()
    for index in range(5):
        memory.add(make_image(index), 100.0 + index)

    # when
    memory.reset()

    # then
    assert memory.snapshot() == ()
    added = memory.add(make_image(0, (27, 30)), 1.0)
    assert (added.number, added.pair_id, added.reason) == (1, 4, "first frame")


@pytest.mark.parametrize(
    "arguments",
    [
        {"star_memory_size": 1},
        {"star_memory_size": -2},
        {"stream_window_size": 1},
        {"importance_threshold": -0.1},
        {"importance_threshold": 1.1},
        {"importance_threshold": math.nan},
    ],
)
def test_invalid_settings_are_rejected(arguments):
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        SmartFrameManager(**arguments)


def test_distinct_old_scene_survives_a_thousand_frames_of_monotony():
    # given a small Star, and a threshold that every frame reaches
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=4, importance_threshold=0.0)
    rng = np.random.default_rng(0)
    for index in range(2):
        memory.add(make_image(7), float(index))

    # when
    for index in range(2, 1002):
        noisy = np.clip(make_image(3) + rng.normal(0, 2, (*SIZE, 3)), 0, 255).astype(np.uint8)
        memory.add(noisy, float(index))

    # then
    assert memory.snapshot()[0].stamps == (0.0, 1.0)


def test_concurrent_adds_and_snapshots_are_consistent():
    # given
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=6, importance_threshold=0.3)
    problems: list[str] = []
    added: list[AddedFrame] = []
    done = threading.Event()

    def add(offset: int) -> None:
        for index in range(100):
            with contextlib.suppress(StampOrderError):
                added.append(memory.add(make_image(index % 5), index + offset / 10))

    def watch() -> None:
        while not done.is_set():
            snapshot = memory.snapshot()
            stamps = [frame.stamp for kept in snapshot for frame in kept.pair.present_frames]
            if stamps != sorted(set(stamps)):
                problems.append(f"not in time order: {stamps}")
            counts = memory.statistics()
            if counts.unique_frames != counts.star_memory_size + counts.stream_memory_size - counts.overlap:
                problems.append(f"inconsistent: {counts}")

    # when
    watchers = [threading.Thread(target=watch) for _ in range(2)]
    adders = [threading.Thread(target=add, args=(offset,)) for offset in range(4)]
    for thread in (*watchers, *adders):
        thread.start()
    for thread in adders:
        thread.join()
    done.set()
    for thread in watchers:
        thread.join()

    # then
    assert not problems
    assert sorted(frame.number for frame in added) == list(range(1, len(added) + 1))
    assert memory.get_statistics()["total_frames_added"] == len(added)


def test_memory_imports_neither_models_nor_ros_nor_pil():
    # given
    code = (
        "import sys, delayed_vlm_ros.memory\n"
        "heavy = {'torch', 'transformers', 'rclpy', 'PIL', 'delayed_vlm_ros.inference', 'delayed_vlm_ros.ros'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    # when
    root = str(delayed_vlm_ros.memory.__path__[0]).rsplit("/", 2)[0]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)

    # then
    assert (result.stdout.strip(), result.returncode) == ("[]", 0), result.stderr


def test_public_names_resolve():
    for name in delayed_vlm_ros.memory.__all__:
        assert hasattr(delayed_vlm_ros.memory, name)


class MemoryMachine(RuleBasedStateMachine):
    """Any history of adding, errors and resetting, compared with a list of the added frames."""

    @initialize(
        star_size=st.sampled_from([0, 2, 3, 4, 7, 10]),
        window=st.integers(2, 9),
        threshold=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
        chunk=st.sampled_from([0, 2, 4, 5]),
    )
    def start(self, star_size, window, threshold, chunk):
        self.star_size, self.window, self.threshold = star_size, window, threshold
        self.chunk = min(chunk, *(size // 2 * 2 - 2 for size in (star_size, window) if size))
        self.memory = SmartFrameManager(star_size, window, threshold, eviction_chunk=self.chunk)
        self.frames: list[tuple[AddedFrame, np.ndarray, float]] = []
        self.highest_id = 0
        self.star_before: set[int] = set()
        self.old_snapshots: list[tuple] = []

    @rule(seed=st.integers(0, 5), gap=st.floats(0.01, 100.0), count=st.integers(1, 6))
    def add(self, seed, gap, count):
        for _ in range(count):
            stamp = self.frames[-1][2] + gap if self.frames else gap
            image = make_image(seed)
            added = self.memory.add(image, stamp)
            self.frames.append((added, image, stamp))
            assert added.number == len(self.frames)
            self.check_pairing(added)
            self.check_star(added)

    def check_pairing(self, added):
        if added.number % 2:
            assert added.pair_id > self.highest_id
        else:
            assert added.pair_id == self.frames[-2][0].pair_id
        self.highest_id = max(self.highest_id, added.pair_id)

    def check_star(self, added):
        assert bool(added.reason) == (added.importance >= self.threshold)
        star = {kept.id for kept in self.memory.snapshot() if kept.in_star}
        assert added.in_star == (added.pair_id in star)
        # Only a notable frame, or a deferred score of one of the newest pairs, adds a pair, and only that evicts one
        # pair or a chunk.
        came, left = star - self.star_before, self.star_before - star
        newest = {one.pair_id for one, _, _ in self.frames[-2 * WAITING_PAIRS :] if one.pair_id != added.pair_id}
        assert came <= newest | ({added.pair_id} if added.reason else set())
        assert len(left) <= max(len(came), self.chunk // 2)
        if added.reason and len(self.star_before) < self.star_size // 2:
            assert added.in_star
        assert not left or len(self.star_before | came) >= self.star_size // 2 + (self.chunk < 4)
        self.star_before = star

    @rule(kind=st.sampled_from(["stamp", "nan", "shape", "type"]))
    def fail(self, kind):
        newest = self.frames[-1][2] if self.frames else None
        before = state_of(self.memory)
        image, stamp = {
            "stamp": (make_image(0), newest),
            "nan": (make_image(0), math.nan),
            "shape": (make_image(0, (27, 24)), (newest or 0.0) + 1.0),
            "type": (np.zeros(SIZE, np.uint8), (newest or 0.0) + 1.0),
        }[kind]
        if newest is None and kind in {"stamp", "shape"}:
            return
        with pytest.raises(ImageError):
            self.memory.add(image, stamp)
        assert state_of(self.memory) == before

    @rule()
    def reset(self):
        self.memory.reset()
        self.frames.clear()
        self.star_before = set()

    @rule()
    def keep_snapshot(self):
        snapshot = self.memory.snapshot()
        self.old_snapshots.append((snapshot, [(kept.pair, kept.content_key, kept.stamps) for kept in snapshot]))

    @invariant()
    def bounds_hold(self):
        snapshot = self.memory.snapshot()
        assert sum(kept.frame_count for kept in snapshot if kept.in_stream) <= self.window
        assert sum(kept.frame_count for kept in snapshot if kept.in_star) <= self.star_size
        assert all(kept.in_star or kept.in_stream for kept in snapshot)

    @invariant()
    def snapshot_is_ordered_unique_and_correct(self):
        snapshot = self.memory.snapshot()
        assert isinstance(snapshot, tuple)
        assert len({kept.id for kept in snapshot}) == len(snapshot)
        assert [kept.stamps for kept in snapshot] == sorted(kept.stamps for kept in snapshot)
        by_id: dict[int, list] = {}
        for added, image, stamp in self.frames:
            by_id.setdefault(added.pair_id, []).append((added, image, stamp))
        for kept in snapshot:
            members = by_id[kept.id]
            assert kept.frame_count == len(members)
            assert kept.importance == max(added.importance for added, _, _ in members)
            padded = members if len(members) == 2 else members * 2
            for image, stamp, (_, expected_image, expected_stamp) in zip(kept.frames, kept.stamps, padded, strict=True):
                assert stamp == expected_stamp
                assert not image.flags.writeable
                np.testing.assert_array_equal(image, expected_image)

    @invariant()
    def stream_holds_the_newest(self):
        in_stream = [
            frame.number for kept in self.memory.snapshot() if kept.in_stream for frame in kept.pair.present_frames
        ]
        added = len(self.frames)
        assert in_stream == list(range(added - len(in_stream) + 1, added + 1))
        assert len(in_stream) >= min(added, self.window - 1 - self.chunk)

    @invariant()
    def statistics_match_the_snapshot(self):
        snapshot = self.memory.snapshot()
        unique = sum(kept.frame_count for kept in snapshot)
        assert self.memory.get_statistics() == {
            "total_frames_added": len(self.frames),
            "star_memory_size": sum(kept.frame_count for kept in snapshot if kept.in_star),
            "stream_memory_size": sum(kept.frame_count for kept in snapshot if kept.in_stream),
            "unique_frames": unique,
            "overlap": sum(kept.frame_count for kept in snapshot if kept.in_star and kept.in_stream),
            "compression_ratio": len(self.frames) / unique if unique else 0.0,
            "pixel_bytes": unique * SIZE[0] * SIZE[1] * 3,
        }
        if self.frames:
            added = self.frames[-1][0]
            assert added.star_frames == self.memory.get_statistics()["star_memory_size"]
            assert added.stream_frames == self.memory.get_statistics()["stream_memory_size"]
            assert self.memory.newest_stamp == self.frames[-1][2]
            assert self.memory.oldest_stamp == snapshot[0].stamps[0]

    @invariant()
    def old_snapshots_are_unchanged(self):
        for snapshot, content in self.old_snapshots:
            assert [(kept.pair, kept.content_key, kept.stamps) for kept in snapshot] == content


MemoryMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestMemoryMachine = MemoryMachine.TestCase
