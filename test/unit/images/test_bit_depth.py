"""Scaling of 16-bit images by the bits that the camera uses."""

import array

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.images.messages import DenseImage

RNG = np.random.default_rng(3)
SCENE = np.sort(RNG.integers(0, 256, (24, 32), np.uint16), axis=1)
SCENE[0, 0] = 255


def sensor(bits, scene=SCENE):
    """Return what a sensor of this depth delivers, noise in its low bits included."""
    return ((scene << (bits - 8)) | RNG.integers(0, 1 << (bits - 8), scene.shape)).astype(np.uint16)


class Compressed:
    def __init__(self, data, kind):
        self.data, self.format = array.array("B", data), kind


def mono(values, encoding="mono16"):
    return DenseImage(*values.shape[:2], encoding, values[0].nbytes, values.tobytes())


def png(values):
    return Compressed(cv2.imencode(".png", values)[1].tobytes(), "mono16; png compressed ")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("make", [mono, png])
def test_values_of_fewer_bits_keep_their_brightness(bits, make):
    image = make_converter().convert(make(sensor(bits)))
    assert np.array_equal(image, np.repeat(SCENE[..., None], 3, axis=-1))


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16"])
def test_alpha_does_not_count_for_the_depth(encoding):
    pixels = np.dstack([sensor(12)] * 3 + [np.full(SCENE.shape, 65535, np.uint16)])
    message = mono(pixels[..., : len(encoding) - 2], encoding)
    assert np.abs(make_converter().convert(message).astype(int) - SCENE[..., None]).max() == 0


def test_bayer_of_12_bits_keeps_its_brightness():
    image = make_converter().convert(mono(sensor(12), "bayer_rggb16"))
    assert abs(image.mean() - SCENE.mean()) < 1


def test_dark_image_after_a_bright_one_stays_dark():
    depth = BitDepth()
    depth.to_8_bits(sensor(16))
    for _ in range(3):
        assert depth.to_8_bits(sensor(16, SCENE // 100)).max() == 2
    assert depth.bits == 16


def test_depth_does_not_change_with_brightness_once_known():
    depth = BitDepth()
    seen = []
    for divisor in (1, 50, 3, 200, 1):
        depth.to_8_bits(sensor(12, SCENE // divisor))
        seen.append(depth.bits)
    assert seen == [12] * 5


def test_larger_values_raise_the_depth():
    depth = BitDepth()
    depth.to_8_bits(sensor(12))
    assert (depth.bits, depth.is_assumed) == (12, True)
    assert np.array_equal(depth.to_8_bits(sensor(16)), SCENE)
    assert (depth.bits, depth.is_assumed) == (16, False)


def test_minimum_keeps_a_dark_start_dark():
    depth = BitDepth(16)
    assert depth.to_8_bits(sensor(16, SCENE // 100)).max() == 2


def test_dark_high_aligned_values_are_scaled_as_16_bits():
    depth = BitDepth()
    assert depth.to_8_bits((RNG.integers(0, 100, (24, 32)) << 4).astype(np.uint16)).max() <= 6
    assert np.array_equal(depth.to_8_bits(sensor(12) << 4), SCENE)


def test_cameras_have_separate_depths():
    first = make_converter()
    second = first.for_camera()
    first.convert(mono(sensor(16)))
    assert np.array_equal(second.convert(mono(sensor(12)))[..., 0], SCENE)
