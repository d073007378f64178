"""Deferred scores: brief events, people passing, places."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.scoring.background import COLUMNS, ROWS, BackgroundModel, downsample
from delayed_vlm_ros.memory.scoring.foreground import foreground

HEIGHT, WIDTH = 144, 192
RED = (210, 30, 30)


@cache
def room(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.uniform(50, 160, (5, 6, 3)), (WIDTH + 20, HEIGHT + 20), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(rng.uniform(-20, 20, (40, 50, 3)), (WIDTH + 20, HEIGHT + 20), interpolation=cv2.INTER_LINEAR)
    return np.clip(large + small, 0, 255).astype(np.uint8)


@cache
def _large_noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (HEIGHT + 100, WIDTH + 100, 3)).astype(np.float32)


def part_of_noise(rng: np.random.Generator) -> np.ndarray:
    """Return a random part of a larger noise, which is faster than drawing noise for each image."""
    down, right = rng.integers(0, 100, 2)
    return _large_noise()[down : down + HEIGHT, right : right + WIDTH]


def drawn_noise(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 3, (HEIGHT, WIDTH, 3))


def view(number: int, seed: int = 0, gain: float = 1.0, square=None, noise=part_of_noise) -> np.ndarray:
    """Return an image of a room with shake and noise; `square` is (left, top, side) in pixels."""
    rng = np.random.default_rng([seed, number])
    down, right = rng.integers(8, 13, 2)
    image = room(seed)[down : down + HEIGHT, right : right + WIDTH].astype(np.float32)
    if square is not None:
        left, top, side = square
        image[top : top + side, left : left + side] = RED
    return np.clip(image * np.float32(gain) + noise(rng), 0, 255).astype(np.uint8)


def found_in(image, before, after):
    return foreground(downsample(image), [downsample(one) for one in before], [downsample(one) for one in after])


def test_object_of_one_per_cent_is_found_despite_shake_noise_and_exposure():
    # given
    before, after = [view(n, gain=0.8) for n in range(3)], [view(n, gain=1.1) for n in range(3, 6)]

    # when
    found = found_in(view(9, square=(90, 60, 17)), before, after)

    # then
    assert found.is_place_known
    (blob,) = found.blobs
    assert (blob.x * WIDTH / COLUMNS, blob.y * HEIGHT / ROWS) == pytest.approx((97, 67), abs=6)
    assert 0.005 < blob.area < 0.02
    assert blob.contrast > 0.3


@pytest.mark.parametrize("gain", [0.75, 1.0, 1.25])
def test_unchanged_scene_has_no_foreground(gain):
    for seed in range(3):
        images = [view(n, seed) for n in range(6)]
        assert found_in(view(9, seed, gain), images[:3], images[3:]).blobs == ()


def test_object_seen_before_is_background_and_lasting_objects_differ_from_brief_ones():
    # given
    present = [view(n, square=(90, 60, 20)) for n in range(3)]
    absent = [view(n) for n in range(3, 6)]

    # then
    assert found_in(view(9, square=(90, 60, 20)), present, absent).blobs == ()
    (stays,) = found_in(view(9, square=(90, 60, 20)), absent, present).blobs
    (goes,) = found_in(view(9, square=(90, 60, 20)), absent, absent).blobs
    assert (stays.came_and_went, goes.came_and_went) == (False, True)


def test_images_of_other_places_are_ignored():
    # given
    others = [view(n, seed=7) for n in range(3)]

    # then
    assert not found_in(view(9), others, others).is_place_known
    assert found_in(view(9), others, [view(n) for n in range(3)]).is_place_known
    assert not BackgroundModel(downsample(view(9))).add(downsample(others[0]))


def show(memory: SmartFrameManager, frames: int, objects: dict, seed: int = 0, noise=part_of_noise) -> None:
    start = 0 if memory.newest_stamp is None else int(memory.newest_stamp * 2) + 1
    for number in range(start, start + frames):
        memory.add(view(number, seed, square=objects.get(number), noise=noise), number / 2)


def stars(memory: SmartFrameManager) -> dict[float, tuple[str, float]]:
    return {kept.stamps[0]: (kept.reason, kept.importance) for kept in memory.snapshot() if kept.in_star}


def test_small_brief_event_is_kept_among_people_passing():
    # given a small memory, people who cross the image, and an object visible for one second
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=20)
    walks = {100 * walk + step: (step * 9, 50, 40) for walk in range(1, 8) for step in range(16)}
    brief = dict.fromkeys((350, 351), (90, 60, 19))

    # when; with other noise, the end of the first walk is kept instead
    show(memory, 900, walks | brief, noise=drawn_noise)

    # then
    reason, score = stars(memory)[175.0]
    assert reason == "brief event"
    assert score > 0.5


def test_view_of_every_place_is_kept():
    # given
    memory = SmartFrameManager(star_memory_size=10, stream_window_size=20)

    # when
    for seed in range(4):
        show(memory, 80, {}, seed)
    show(memory, 400, {}, 3)

    # then
    assert {int(stamp // 40) for stamp in stars(memory)} >= {0, 1, 2, 3}


@pytest.mark.parametrize("seconds", [10, 60])
def test_lasting_object_is_kept(seconds):
    # given a small memory, and people who cross the image
    memory = SmartFrameManager(star_memory_size=10, stream_window_size=20)
    walks = {100 * walk + step: (step * 9, 50, 40) for walk in range(1, 4) for step in range(16)}
    lasting = dict.fromkeys(range(340, 340 + 2 * seconds), (90, 60, 28))

    # when
    show(memory, 500, walks | lasting)

    # then
    reasons = {stamp: reason for stamp, (reason, _) in stars(memory).items()}
    assert "new thing" in {reason for stamp, reason in reasons.items() if 170 <= stamp < 170 + seconds}


def test_single_passer_by_scores_higher_than_one_of_many():
    # given
    crossing = [(step * 9, 50, 40) for step in range(16)]
    deserted, busy = (SmartFrameManager(star_memory_size=6, stream_window_size=20) for _ in range(2))

    # when
    show(deserted, 200, dict(zip(range(150, 166), crossing, strict=True)))
    show(busy, 560, {start + step: square for start in range(30, 560, 40) for step, square in enumerate(crossing)})

    # then
    alone, one_of_many = (max(kept.deferred_score for kept in memory.snapshot()) for memory in (deserted, busy))
    assert alone > 0.5
    assert alone > 2 * one_of_many


@pytest.mark.parametrize(
    "gain",
    [
        lambda _number: 1.0,
        lambda number: 1.0 + 0.06 * np.sin(1.7 * number),
        lambda number: 1.0 + 0.3 * np.sin(number / 100),
        lambda number: (0.8, 1.0, 1.2)[number // 40 % 3],
    ],
    ids=["noise", "flicker", "daylight", "exposure jumps"],
)
def test_unchanged_scene_does_not_fill_star(gain):
    # given
    memory = SmartFrameManager(star_memory_size=20, stream_window_size=20)

    # when
    for number in range(400):
        memory.add(view(number, gain=gain(number)), number / 2)

    # then
    assert len(stars(memory)) <= 2


@pytest.mark.parametrize("first", [50, 51])
def test_blinking_light_does_not_fill_star(first):
    # given
    memory = SmartFrameManager(star_memory_size=20, stream_window_size=20)

    # when it is visible in one image of sixty
    show(memory, 500, dict.fromkeys(range(first, 500, 60), (90, 60, 40)))

    # then
    assert len(stars(memory)) <= 4
    assert "first frame" in {reason for reason, _ in stars(memory).values()}


@pytest.mark.parametrize("wall", [0, 128, 255])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_object_in_front_of_a_plain_wall_is_found(wall, noise):
    # given
    random = np.random.default_rng(0)
    memory = SmartFrameManager(star_memory_size=20, stream_window_size=20)

    # when
    for number in range(60):
        image = np.full((HEIGHT, WIDTH, 3), wall, float)
        if number in (30, 31):
            image[60:90, 80:110] = RED
        image += random.normal(0, noise, image.shape) if noise else 0.0
        memory.add(np.clip(image, 0, 255).astype(np.uint8), number / 2)

    # then
    assert stars(memory)[15.0][0] == "brief event"
    assert len(stars(memory)) <= 3


def test_scores_of_evicted_pairs_are_dropped():
    # given
    memory = SmartFrameManager(star_memory_size=6, stream_window_size=20)

    # when objects and places come and go
    for seed in range(4):
        show(
            memory,
            100,
            {50 * number + step: (60 + 20 * number, 60, 30) for number in range(10) for step in range(3)},
            seed,
        )

    # then
    star = memory._star
    held = {pair.id for pair in star.pairs}
    for known in (star._places, star._new_places, star._tracks, star._restored):
        assert len(set(known) - held) <= 10  # those in Stream


@pytest.mark.parametrize(("window", "chunk"), [(2, 0), (8, 0), (10, 6)])
def test_brief_event_returns_from_a_small_stream_that_has_evicted_it(window, chunk):
    # given
    memory = SmartFrameManager(20, window, importance_threshold=1.0, eviction_chunk=chunk)
    objects = dict.fromkeys((80, 81), (90, 60, 16))
    kept_ids = []

    # when
    for number in range(160):
        memory.add(view(number, square=objects.get(number)), number / 2)
        kept_ids.append({kept.id for kept in memory.snapshot()})

    # then it was kept as one of the newest, then not, then as an event
    (event,) = [kept for kept in memory.snapshot() if kept.reason == "brief event"]
    assert event.pair.first.number == 81
    is_kept = [event.id in ids for ids in kept_ids[80:]]
    assert (is_kept[0], False in is_kept, is_kept[-1]) == (True, True, True)


def test_memory_without_star_keeps_no_pairs_for_deferred_scores():
    # given
    memory = SmartFrameManager(0, 2)

    # when
    show(memory, 60, dict.fromkeys((30, 31), (90, 60, 19)))

    # then
    assert [kept.in_stream for kept in memory.snapshot()] == [True]
    assert not memory._awaiting_score


def test_pair_enters_star_late_only_from_stream():
    # given
    memory = SmartFrameManager(20, 20, eviction_chunk=6)
    objects = dict.fromkeys((80, 81), (90, 60, 16))
    late = set()

    for number in range(160):
        before = {kept.id: kept for kept in memory.snapshot()}
        # when
        memory.add(view(number, square=objects.get(number)), number / 2)

        # then
        after = {kept.id: kept for kept in memory.snapshot()}
        # every pair in Star was kept before or is the newest
        assert {one for one, kept in after.items() if kept.in_star} <= {*before, max(after)}
        late |= {
            kept.reason
            for one, kept in after.items()
            if kept.in_star and one in before and not before[one].in_star and one != max(after)
        }
    assert late == {"brief event"}
