"""Scaling of 16-bit images by the bits that the camera uses."""

import array

import cv2
import numpy as np
import pytest

from delayed_vlm_ros.images.bit_depth import FROM_IMAGES, BitDepth
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


def test_larger_values_of_several_images_raise_the_depth():
    depth = BitDepth()
    seen = []
    for bits in (12, 16, 16, 16, 12):
        assert np.array_equal(depth.to_8_bits(sensor(bits)), SCENE // (16 if seen[-1:] == [16] and bits == 12 else 1))
        seen.append(depth.bits)
    assert seen == [12, 12, 12, 16, 16]


@pytest.mark.parametrize("stated", [FROM_IMAGES, 12])
def test_hot_pixels_do_not_raise_the_depth(stated):
    # given a camera of 12 bits with hot pixels in every image
    scene = np.tile(SCENE, (10, 10))
    hot = RNG.choice(scene.size, 60, replace=False)  # 0.08 %
    depth = BitDepth(stated)

    # then
    for _ in range(20):
        values = sensor(12, scene)
        values.flat[hot] = 65535
        expected = scene.copy()
        expected.flat[hot] = 255
        assert np.array_equal(depth.to_8_bits(values), expected)
    assert depth.bits == 12


@pytest.mark.parametrize("number", [0, 1, 5, 30])
@pytest.mark.parametrize("stated", [FROM_IMAGES, 12])
def test_one_damaged_image_does_not_darken_later_ones(stated, number):
    depth = BitDepth(stated)
    for image in range(40):
        values = sensor(12)
        if image == number:
            values[::2] = 65535
        scaled = depth.to_8_bits(values)
        if image != number and not (stated == FROM_IMAGES and number == 0 and image < 8):
            assert np.array_equal(scaled, SCENE), image


def test_damaged_images_now_and_then_do_not_raise_the_depth():
    depth = BitDepth()
    for image in range(200):
        scaled = depth.to_8_bits(sensor(12) | (0xFFFF if image % 10 == 9 else 0))
        assert image % 10 == 9 or np.array_equal(scaled, SCENE)


def test_reset_finds_the_depth_again():
    depth = BitDepth()
    for _ in range(10):
        depth.to_8_bits(sensor(16))
    depth.reset()
    assert depth.bits == 0
    assert np.array_equal(depth.to_8_bits(sensor(12)), SCENE)


def test_stated_depth_keeps_a_dark_start_dark_and_clips():
    depth = BitDepth(10)
    assert depth.to_8_bits(sensor(10, SCENE // 100)).max() == 2
    assert not depth.clips
    assert depth.to_8_bits(sensor(16)).mean() > 250
    assert (depth.bits, depth.clips) == (10, True)


def test_dark_high_aligned_values_are_scaled_as_16_bits():
    depth = BitDepth()
    assert depth.to_8_bits((RNG.integers(0, 100, (24, 32)) << 4).astype(np.uint16)).max() <= 6
    assert np.array_equal(depth.to_8_bits(sensor(12) << 4), SCENE)


def test_cameras_have_separate_depths():
    first = make_converter()
    second = first.for_camera()
    first.convert(mono(sensor(16)))
    assert np.array_equal(second.convert(mono(sensor(12)))[..., 0], SCENE)
