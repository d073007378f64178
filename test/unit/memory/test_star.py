"""Which key frames a full Star memory evicts."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import Descriptor, Frame, FramePair, StarMemory, describe


def scene(seed: int, noise: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.uniform(40, 180, (4, 4, 3)), (56, 56), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + np.random.default_rng(noise).normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def make(pair_id: int, image: np.ndarray, stamp: float | None = None, importance: float = 0.8):
    """Return a complete pair that shows one image twice, with its descriptors."""
    stamp = float(pair_id) if stamp is None else stamp
    first, second = (Frame(image, stamp + late, 1, importance, "novel view") for late in (0.0, 0.1))
    return FramePair(pair_id, first, second), [describe(image)] * 2


def ids(star: StarMemory) -> list[int]:
    return [pair.id for pair in star.pairs]


def test_distinct_old_scenes_survive_a_thousand_pairs_of_monotony():
    # given
    star = StarMemory(8)
    star.add(*make(0, scene(100)))
    star.add(*make(1, scene(200)))

    # when
    for pair_id in range(2, 1002):
        star.add(*make(pair_id, scene(300, noise=pair_id)))

    # then
    assert ids(star)[:2] == [0, 1]
    assert star.frame_count == 8


def test_new_pair_that_adds_nothing_is_evicted():
    # given
    star = StarMemory(8)
    for pair_id in range(4):
        star.add(*make(pair_id, scene(pair_id), stamp=100.0 * pair_id))

    # when
    star.add(*make(4, scene(3), stamp=301.0, importance=0.6))

    # then
    assert ids(star) == [0, 1, 2, 3]


def test_uniform_past_is_covered_without_large_gaps():
    # given
    star = StarMemory(20)

    # when 1000 pairs look alike
    for pair_id in range(1000):
        star.add(*make(pair_id, scene(0)))

    # then
    stamps = [0.0, *(pair.first.stamp for pair in star.pairs), 1000.0]
    assert max(np.diff(stamps)) <= 3 * 1000 / 10


def test_start_is_kept_among_many_novel_views():
    # given a start that resembles the next pair
    star = StarMemory(8)
    star.add(*make(0, scene(0), importance=0.6))
    star.add(*make(1, scene(0), importance=1.0))

    # when
    for pair_id in range(2, 40):
        star.add(*make(pair_id, scene(pair_id), importance=1.0))

    # then
    assert ids(star)[0] == 0
    assert star.pairs[-1].id > 30


class FakeTrack:
    """The attributes of a track that Star memory uses."""

    came_and_went = True

    def __init__(self, pair_id, value):
        self.pair_id, self.value = pair_id, value


@pytest.mark.parametrize(("value", "stays"), [(0.3, True), (1.0, False)])
def test_start_is_evicted_only_for_brief_events_of_clear_contrast(value, stays):
    # given a place that stays in view
    star = StarMemory(8)
    star.add(*make(0, scene(0), importance=1.0))

    # when more brief events happen than fit into the memory
    for pair_id in range(1, 20):
        star.set_score(pair_id, [FakeTrack(pair_id, value)], is_view=False)
        star.add(*make(pair_id, scene(0, noise=pair_id), importance=1.0))

    # then
    assert (ids(star)[0] == 0) == stays


def test_memory_of_one_pair_does_not_keep_the_start_forever():
    star = StarMemory(2)
    star.add(*make(0, scene(0), importance=0.6))
    star.add(*make(1, scene(1), importance=1.0))
    assert ids(star) == [1]


def test_more_important_of_two_similar_pairs_is_kept():
    # given
    star = StarMemory(4)
    star.add(*make(0, scene(0), stamp=0.0))
    star.add(*make(1, scene(1), stamp=10.0, importance=0.6))

    # when
    star.add(*make(2, scene(1), stamp=20.0, importance=1.0))

    # then
    assert ids(star) == [0, 2]


def test_novelty_is_the_distance_to_the_nearest_kept_frame():
    # given
    star = StarMemory(4)
    assert star.novelty(describe(scene(0))) == math.inf

    # when
    star.add(*make(0, scene(0)))
    star.add(*make(1, scene(1)))

    # then
    assert star.novelty(describe(scene(0))) == star.novelty(describe(scene(1))) == 0.0
    assert star.novelty(describe(scene(2))) > 0.6


def test_evicted_view_is_novel_again():
    # given
    star = StarMemory(2)
    star.add(*make(0, scene(0), importance=0.0))

    # when
    star.add(*make(1, scene(1), importance=1.0))

    # then
    assert ids(star) == [1]
    assert star.novelty(describe(scene(0))) > 0.6


def test_completing_a_pair_evicts_nothing_and_is_counted():
    # given
    star = StarMemory(4)
    star.add(*make(0, scene(0)))
    complete, descriptors = make(1, scene(1))
    star.add(FramePair(1, complete.first, None), descriptors[:1])
    assert star.frame_count == 3

    # when
    star.update(complete, descriptors)

    # then
    assert star.pairs[1] is complete
    assert star.frame_count == 4
    assert star.contains(1)
    assert not star.contains(2)


def test_updating_a_pair_that_is_not_kept_is_rejected():
    with pytest.raises(ValueError, match="not in Star"):
        StarMemory(4).update(*make(0, scene(0)))


def test_pair_with_a_cut_does_not_represent_the_second_scene():
    # given
    with_cut, without_cut = StarMemory(4), StarMemory(4)
    alike: list[Descriptor] = [describe(scene(0)), describe(scene(0, noise=1))]
    cut: list[Descriptor] = [describe(scene(0)), describe(scene(1))]

    # when
    with_cut.add(make(0, scene(0))[0], cut)
    without_cut.add(make(0, scene(0))[0], alike)

    # then
    assert with_cut.novelty(cut[1]) > 0.6
    assert without_cut.novelty(alike[1]) == 0.0


def test_add_reports_evictions_and_is_full_reports_a_full_memory():
    # given
    star = StarMemory(4)

    # when each view is added twice, the last time with importance 0
    pairs = [make(0, scene(0)), make(1, scene(0)), make(2, scene(1)), make(3, scene(1), importance=0.0)]
    seen = [(star.add(*pair), star.is_full) for pair in pairs]

    # then
    assert seen == [(False, False), (False, True), (True, True), (False, True)]


def test_least_valuable_pairs_are_evicted_first():
    # given three views, one of them three times
    star = StarMemory(10)
    pairs = [make(pair_id, scene(view), stamp=10.0 * pair_id) for pair_id, view in enumerate([0, 1, 1, 1, 2])]
    for pair in pairs:
        star.add(*pair)

    # when
    star.evict_least_valuable(2, keep=pairs[2][0])

    # then
    assert ids(star) == [0, 2, 4]
    assert star.novelty(describe(scene(1))) == 0.0
    assert not star.is_full


@pytest.mark.parametrize(("memory_size", "pairs"), [(2, 1), (3, 1), (5, 2), (20, 10)])
def test_odd_size_is_rounded_down_to_whole_pairs(memory_size, pairs):
    # given
    star = StarMemory(memory_size)

    # when
    for pair_id in range(30):
        star.add(*make(pair_id, scene(pair_id)))

    # then
    assert len(star.pairs) == pairs
    assert ids(star) == sorted(ids(star))


def test_size_zero_disables_star():
    # given
    star = StarMemory(0)

    # when
    has_evicted = star.add(*make(0, scene(0)))

    # then
    assert not has_evicted
    assert not star.is_full
    assert star.pairs == ()
    assert star.novelty(describe(scene(0))) == math.inf


@pytest.mark.parametrize("memory_size", [1, -1, -20])
def test_size_below_one_pair_is_rejected(memory_size):
    with pytest.raises(ConfigurationError, match="star_memory_size"):
        StarMemory(memory_size)
