"""Which differences between images the distance detects, and which it ignores."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.memory import describe, distance
from delayed_vlm_ros.memory.scoring.descriptor import distances, is_cut

NOTABLE = 0.6
HEIGHT, WIDTH = 336, 448


def scene(seed: int) -> np.ndarray:
    """Return an image with large and small structures in mid tones."""
    rng = np.random.default_rng(seed)
    large = cv2.resize(rng.uniform(40, 150, (5, 6, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(rng.uniform(-20, 20, (60, 80, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.clip(large + small, 0, 255).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return distance(describe(a), describe(b))


@pytest.mark.parametrize("seed", range(4))
def test_distance_is_symmetric_bounded_and_zero_for_the_same_image(seed):
    # given
    a, b = scene(seed), scene(seed + 100)

    # then
    assert difference(a, a) == 0.0
    assert difference(a, b) == pytest.approx(difference(b, a))
    assert NOTABLE < difference(a, b) <= 1.0


@pytest.mark.parametrize("gain", [0.5, 0.7, 1.4])
@pytest.mark.parametrize("seed", range(4))
def test_exposure_jump_is_ignored(seed, gain):
    # given
    image = scene(seed)

    # when
    brighter = np.clip(image * gain, 0, 255).astype(np.uint8)

    # then
    assert difference(image, brighter) < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_clipped_highlights_are_ignored(seed):
    # given
    image = np.clip(scene(seed) * 1.3, 0, 255).astype(np.uint8)
    image[:80] = (190, 205, 230)  # a sky

    # when
    brighter = np.clip(image * 1.35, 0, 255).astype(np.uint8)

    # then
    assert difference(image, brighter) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_white_balance_is_ignored(seed):
    # given
    image = scene(seed)

    # then
    assert difference(image, np.clip(image * [1.15, 1.0, 0.85], 0, 255).astype(np.uint8)) < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_noise_and_small_shake_are_ignored(seed):
    # given
    image = scene(seed)
    noise = np.random.default_rng(seed).normal(0, 15, image.shape)

    # then
    assert difference(image, np.clip(image + noise, 0, 255).astype(np.uint8)) < 0.1
    assert difference(image, np.roll(image, (2, 2), axis=(0, 1))) < 0.3


def test_shift_of_a_soft_image_by_half_a_cell_is_ignored():
    # given cells of 14 × 19 pixels and a ramp that rises and falls across the image
    ramp = 60 + 120 * np.abs(np.linspace(-1, 1, WIDTH))[None, :, None] * np.ones((HEIGHT, 1, 3))

    # then in both directions
    image, shifted = ramp.astype(np.uint8), np.roll(ramp, 9, axis=1).astype(np.uint8)
    assert difference(image, shifted) < 0.1
    assert difference(image, shifted[:, ::-1]) < 0.1


@pytest.mark.parametrize("colour", [(200, 30, 30), (15, 15, 15), (240, 240, 240), (40, 90, 220)])
@pytest.mark.parametrize("seed", range(4))
def test_object_over_three_per_cent_of_the_image_is_detected(seed, colour):
    # given
    image = scene(seed)
    side = int((0.03 * HEIGHT * WIDTH) ** 0.5)

    # when
    with_object = image.copy()
    with_object[100 : 100 + side, 200 : 200 + side] = colour

    # then
    assert difference(image, with_object) > NOTABLE


def test_object_is_detected_despite_darker_exposure():
    # given
    image = scene(0)
    with_object = image.copy()
    with_object[100:170, 200:270] = (200, 30, 30)

    # then
    assert difference(image, (with_object * 0.6).astype(np.uint8)) > NOTABLE


@pytest.mark.parametrize("seed", range(4))
def test_cut_is_distinguished_from_a_large_object(seed):
    # given
    image = scene(seed)
    with_object = image.copy()
    with_object[80:230, 150:300] = (200, 30, 30)

    # then
    assert is_cut(describe(image), describe(scene(seed + 100)))
    assert not is_cut(describe(image), describe(with_object))


def test_covered_lens_is_detected():
    assert difference(scene(0), np.zeros((HEIGHT, WIDTH, 3), np.uint8)) > NOTABLE


def test_images_of_different_sizes_are_comparable():
    # given
    image = scene(1)
    resized = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for size in ((28, 28), (113, 57), (448, 84))]

    # then
    for other in resized:
        assert difference(image, other) < 0.3


def test_distances_equal_single_distances():
    # given
    one, others = describe(scene(0)), [describe(scene(seed)) for seed in range(1, 6)]

    # then
    np.testing.assert_allclose(distances(one, others), [distance(one, other) for other in others], rtol=1e-6)
    assert distances(one, []).shape == (0,)


def test_describe_is_fast():
    # given
    image = cv2.resize(scene(0), (448, 448))

    # when
    times = []
    for _ in range(30):
        start = time.perf_counter()
        describe(image)
        times.append(time.perf_counter() - start)

    # then (measured: 0.3 ms; the bound allows for a busy machine)
    assert min(times) < 2e-3
