"""Checks of image messages before conversion, and what their errors name."""

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
def test_supported_encoding_is_returned_unchanged(encoding):
    assert validate_image(image(encoding)) == encoding


@pytest.mark.parametrize(("name", "known"), [("8UC1", "mono8"), ("uyvy", "yuv422"), ("yuyv", "yuv422_yuy2")])
def test_encoding_alias_is_resolved(name, known):
    assert validate_image(image(name)) == known


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (image(height=0), ["8 × 0"]),
        (image(width=0), ["0 × 6"]),
        (Image(), ["0 × 0"]),
        (image(step=23), ["step", "23", "rgb8", "24 bytes"]),
        (image(step=0, data=144), ["step is 0"]),
        (image(data=143), ["data", "143", "144"]),
        (image(step=30, data=5 * 30 + 23), ["data", "173", "174"]),
        (image(data=0), ["data", "0 bytes"]),
        (image(height=10_001, width=10_000, data=1), ["10000 × 10001", "100000000"]),
        (image(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1, data=1), ["4294967295", "100000000"]),
        (image("plaid8"), ["'plaid8'", "rgb8, bgr8"]),
        (image(""), ["encoding ''"]),
        (image("16UC1"), ["16UC1", "depth"]),
        (image("32FC1"), ["32FC1", "depth"]),
        (image("64FC1"), ["64FC1", "depth"]),
        (image("8UC3"), ["'8UC3'", "colours"]),
        (image("32SC2"), ["'32SC2'", "colours"]),
        (image("nv61"), ["'nv61'"]),
        (image("yuv422", width=7), ["yuv422", "even width", "7"]),
        (image("yuyv", width=7), ["yuyv", "even width"]),
        (image("nv12", width=7), ["nv12", "even width"]),
        (image("nv21", height=7), ["nv21", "even height", "7"]),
        (image("nv12", step=7, data=72), ["step is 7", "nv12", "8 bytes"]),
        (image("nv12", data=48), ["48 bytes", "9 rows", "72"]),
        (image("nv24", data=143), ["143 bytes", "18 rows", "144"]),
        (image("nv24", step=10, data=175), ["175 bytes", "18 rows", "176"]),
    ],
)
def test_invalid_image_raises_an_error_that_names_the_field(message, named):
    with pytest.raises(ImageError) as caught:
        validate_image(message)
    assert [word for word in named if word not in str(caught.value)] == []


@pytest.mark.parametrize("extra", [0, 1, 6, 1000])
def test_last_row_without_padding_and_surplus_data_are_accepted(extra):
    assert validate_image(image(step=30, data=5 * 30 + 24 + extra)) == "rgb8"


@pytest.mark.parametrize("image_format", ["jpeg", "rgb8; jpeg compressed bgr8", "", "png"])
@pytest.mark.parametrize("data", [JPEG, PNG])
def test_compressed_type_is_read_from_the_data_not_the_format(data, image_format):
    validate_compressed(compressed(data, image_format))


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (compressed(b""), "no data"),
        (compressed(b"GIF89a" + bytes(40), "gif"), "('gif', 46 bytes)"),
        (compressed(b"\xff\xd8"), "2 bytes"),
        (compressed(PNG[:20]), "20 bytes"),
        (compressed(PNG, "16UC1; compressedDepth png"), "'16UC1; compressedDepth png' is a depth image"),
        (compressed(PNG, "16UC1; png compressed"), "depth"),
        (compressed(PNG, "32FC1; compressedDepth"), "depth"),
        (compressed(PNG[:16] + struct.pack(">II", 60_000, 50_000) + PNG[24:]), "60000 × 50000"),
        (compressed(PNG[:16] + struct.pack(">II", 0, 5) + PNG[24:]), "0 × 5"),
    ],
)
def test_invalid_compressed_image_raises_an_error_that_names_the_fault(message, named):
    with pytest.raises(ImageError) as caught:
        validate_compressed(message)
    assert named in str(caught.value)


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
def test_mosaic_encoding_is_read_from_the_format(compressed_format, expected):
    assert compressed_mosaic(compressed_format) == expected


def jpeg_claiming(height, width):
    """Return the JPEG with another size in its start-of-frame segment."""
    position = JPEG.index(b"\xff\xc0")
    return JPEG[: position + 5] + struct.pack(">HH", height, width) + JPEG[position + 9 :]


def test_jpeg_that_claims_a_huge_size_is_rejected():
    with pytest.raises(ImageError) as caught:
        validate_compressed(compressed(jpeg_claiming(64_000, 65_000)))
    assert "65000 × 64000" in str(caught.value)


def test_jpeg_size_is_found_after_other_segments_and_fill_bytes():
    # given a comment that looks like a start of frame, and fill bytes before the next marker
    comment = b"\xff\xc0" + bytes(40)
    bomb = jpeg_claiming(64_000, 65_000)
    led_in = b"\xff\xd8\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment + b"\xff\xff\xff"

    # then
    validate_compressed(compressed(led_in + JPEG[2:]))
    with pytest.raises(ImageError) as caught:
        validate_compressed(compressed(led_in + bomb[2:]))
    assert "65000 × 64000" in str(caught.value)


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xe0\x00\x02"])
def test_hostile_jpeg_header_is_rejected_quickly(filling):
    # given ten megabytes without a start of frame
    message = compressed(b"\xff\xd8" + filling * (10_000_000 // len(filling)))

    # when
    began = time.thread_time()  # CPU time of this thread: independent of the load on the machine
    with pytest.raises(ImageError):
        validate_compressed(message)

    # then
    assert time.thread_time() - began < 0.5


def test_lower_pixel_limit_applies_to_raw_and_compressed_images():
    validate_image(image(height=4, width=8, data=96), max_pixels=32)
    with pytest.raises(ImageError) as caught:
        validate_image(image(height=4, width=8, data=96), max_pixels=31)
    assert "31 pixels" in str(caught.value)
    validate_compressed(compressed(jpeg_claiming(100, 100)), max_pixels=10_000)
    with pytest.raises(ImageError) as caught:
        validate_compressed(compressed(jpeg_claiming(100, 100)), max_pixels=9999)
    assert "9999 pixels" in str(caught.value)
