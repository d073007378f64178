"""What is refused before anything is converted, each with its sentence."""

import array
import struct
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.validation import (
    PIXEL_BYTES,
    compressed_mosaic,
    row_count,
    validate_compressed,
    validate_image,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
JPEG = cv2.imencode(".jpg", IMAGE)[1].tobytes()
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()


def image(encoding="rgb8", height=6, width=8, *, step=None, data=None):
    step = width * PIXEL_BYTES.get(encoding, 4) if step is None else step
    size = row_count(encoding, height) * step if data is None else data
    return Image(height=height, width=width, encoding=encoding, step=step, data=array.array("B", bytes(size)))


def compressed(data, image_format="jpeg"):
    return CompressedImage(format=image_format, data=array.array("B", data))


@pytest.mark.parametrize("encoding", PIXEL_BYTES)
def test_every_known_encoding_passes_under_its_name(encoding):
    assert validate_image(image(encoding)) == encoding


@pytest.mark.parametrize(("name", "known"), [("8UC1", "mono8"), ("uyvy", "yuv422"), ("yuyv", "yuv422_yuy2")])
def test_other_names_are_understood(name, known):
    assert validate_image(image(name)) == known


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (image(height=0), "8 × 0 pixels, so it shows nothing"),
        (image(width=0), "0 × 6 pixels, so it shows nothing"),
        (Image(), "0 × 0 pixels"),
        (image(step=23), "step is 23, but a row of 8 rgb8 pixels has 24 bytes"),
        (image(step=0, data=144), "step is 0, but"),
        (image(data=143), "data has 143 bytes, but 6 rows with a step of 24 need 144"),
        (image(step=30, data=5 * 30 + 23), "data has 173 bytes, but 6 rows with a step of 30 need 174"),
        (image(data=0), "data has 0 bytes"),
        (image(height=10_001, width=10_000, data=1), "10000 × 10001 pixels; more than 100000000 are not believed"),
        (image(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1, data=1), "not believed"),
        (image("plaid8"), "the encoding 'plaid8' is unknown: have the driver publish one of rgb8, bgr8"),
        (image(""), "the encoding '' is unknown"),
        (image("16UC1"), "16UC1 is a depth image"),
        (image("32FC1"), "32FC1 is a depth image"),
        (image("64FC1"), "64FC1 is a depth image"),
        (image("8UC3"), "'8UC3' says how wide the numbers are, but not which colours"),
        (image("32SC2"), "'32SC2' says how wide the numbers are"),
        (image("nv61"), "the encoding 'nv61' is unknown"),
        (image("yuv422", width=7), "an image in yuv422 must have an even width, and this one's is 7"),
        (image("yuyv", width=7), "an image in yuyv must have an even width"),
        (image("nv12", width=7), "an image in nv12 must have an even width"),
        (image("nv21", height=7), "an image in nv21 must have an even height, and this one's is 7"),
        (image("nv12", step=7, data=72), "step is 7, but a row of 8 nv12 pixels has 8 bytes"),
        (image("nv12", data=48), "data has 48 bytes, but 9 rows with a step of 8 need 72"),
        (image("nv24", data=143), "data has 143 bytes, but 18 rows with a step of 8 need 144"),
        (image("nv24", step=10, data=175), "data has 175 bytes, but 18 rows with a step of 10 need 176"),
    ],
)
def test_a_bad_image_is_refused_in_a_sentence(message, words):
    with pytest.raises(ImageError) as caught:
        validate_image(message)
    assert words in str(caught.value)


@pytest.mark.parametrize("extra", [0, 1, 6, 1000])
def test_the_last_row_may_lack_its_padding_and_data_may_be_too_long(extra):
    assert validate_image(image(step=30, data=5 * 30 + 24 + extra)) == "rgb8"


@pytest.mark.parametrize("image_format", ["jpeg", "rgb8; jpeg compressed bgr8", "", "png"])
@pytest.mark.parametrize("data", [JPEG, PNG])
def test_the_data_and_not_the_format_say_what_it_is(data, image_format):
    validate_compressed(compressed(data, image_format))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (compressed(b""), "the compressed image has no data"),
        (compressed(b"GIF89a" + bytes(40), "gif"), "('gif', 46 bytes) is neither a JPEG nor a PNG"),
        (compressed(b"\xff\xd8"), "neither a JPEG nor a PNG"),
        (compressed(PNG[:20]), "neither a JPEG nor a PNG"),
        (compressed(PNG, "16UC1; compressedDepth png"), "'16UC1; compressedDepth png' is a depth image"),
        (compressed(PNG, "16UC1; png compressed"), "is a depth image"),
        (compressed(PNG, "32FC1; compressedDepth"), "is a depth image"),
        (compressed(PNG[:16] + struct.pack(">II", 60_000, 50_000) + PNG[24:]), "60000 × 50000 pixels; more than"),
        (compressed(PNG[:16] + struct.pack(">II", 0, 5) + PNG[24:]), "0 × 5 pixels, so it shows nothing"),
    ],
)
def test_a_bad_compressed_image_is_refused_in_a_sentence(message, words):
    with pytest.raises(ImageError) as caught:
        validate_compressed(message)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("compressed_format", "expected"),
    [
        ("bayer_rggb8; png compressed ", "bayer_rggb8"),
        ("bayer_rggb8; jpeg compressed", "bayer_rggb8"),
        ("bayer_grbg16; png compressed bayer_grbg16", "bayer_grbg16"),
        ("bayer_gbrg8;jpeg", "bayer_gbrg8"),
        ("bayer_bggr8", "bayer_bggr8"),
        ("bayer_rggb8; jpeg compressed bgr8", ""),
        ("bayer_rggb8; jpeg compressed mono8", ""),
        ("bayer_xyzt8; jpeg compressed ", ""),
        ("rgb8; jpeg compressed bgr8", ""),
        ("mono8; png compressed ", ""),
        ("jpeg", ""),
        ("", ""),
        (";;compressed;", ""),
    ],
)
def test_a_mosaic_is_known_by_the_format(compressed_format, expected):
    assert compressed_mosaic(compressed_format) == expected


def jpeg_claiming(height, width):
    """The JPEG with another size in its start-of-frame segment."""
    position = JPEG.index(b"\xff\xc0")
    return JPEG[: position + 5] + struct.pack(">HH", height, width) + JPEG[position + 9 :]


def test_a_jpeg_bomb_is_not_decoded():
    with pytest.raises(ImageError, match="65000 × 64000 pixels"):
        validate_compressed(compressed(jpeg_claiming(64_000, 65_000)))


def test_a_jpegs_size_is_found_behind_other_segments_and_fill_bytes():
    # given a comment that looks like a start of frame, and fill bytes before the next marker
    comment = b"\xff\xc0" + bytes(40)
    bomb = jpeg_claiming(64_000, 65_000)
    led_in = b"\xff\xd8\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + b"\xff\xff\xff"

    # then
    validate_compressed(compressed(led_in + JPEG[2:]))
    with pytest.raises(ImageError, match="65000 × 64000 pixels"):
        validate_compressed(compressed(led_in + bomb[2:]))


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xe0\x00\x02"])
def test_a_hostile_jpeg_header_does_not_hold_the_camera_up(filling):
    # given ten megabytes without a start of frame
    message = compressed(b"\xff\xd8" + filling * (10_000_000 // len(filling)))

    # when
    began = time.thread_time()  # its own work, not what the machine does besides
    with pytest.raises(ImageError, match="neither"):
        validate_compressed(message)

    # then
    assert time.thread_time() - began < 0.5


def test_a_lower_limit_holds_for_both():
    validate_image(image(height=4, width=8, data=96), max_pixels=32)
    with pytest.raises(ImageError, match="more than 31 are not believed"):
        validate_image(image(height=4, width=8, data=96), max_pixels=31)
    validate_compressed(compressed(jpeg_claiming(100, 100)), max_pixels=10_000)
    with pytest.raises(ImageError, match="more than 9999 are not believed"):
        validate_compressed(compressed(jpeg_claiming(100, 100)), max_pixels=9999)
