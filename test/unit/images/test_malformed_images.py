"""Conversion of malformed messages: each returns a valid image or raises ``ImageError``."""

import array
import sys
from unittest import mock

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.images import conversion, validation
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.images.validation import OTHER_NAMES, PIXEL_BYTES, data_bytes, row_count

CONVERTER = make_converter()
RGB = np.random.default_rng(1).integers(0, 256, (12, 20, 3), np.uint8)
SMOOTH = cv2.resize(RGB[:3, :4], (20, 12), interpolation=cv2.INTER_CUBIC)
FORMATS = ["jpeg", "png", "rgb8; jpeg compressed bgr8", "bayer_rggb8; png compressed ", "?"]
FILES = [cv2.imencode(ending, shown)[1].tobytes() for shown in (SMOOTH, SMOOTH[..., 0]) for ending in (".jpg", ".png")]


def make_message(encoding, pixels, *, padding=0):
    """Return a message with the pixels (height, width, …) and ``padding`` bytes of 77 after each row."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    data = array.array("B", padded.tobytes())
    return Image(height=height, width=width, encoding=encoding, step=padded.shape[1], data=data)


def check_valid(image, height, width):
    assert isinstance(image, np.ndarray)
    assert image.dtype == np.uint8
    assert image.shape == (height, width, 3)
    assert image.flags.c_contiguous


def convert_or_reject(message, height=None, width=None):
    """Return whether the message was converted; fail on anything but a valid image or an ``ImageError``."""
    try:
        image = CONVERTER.convert(message)
    except ImageError:
        return False
    # The expected size of a damaged file is the one in its header.
    check_valid(image, height or image.shape[0], width or image.shape[1])
    return True


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(0, 9) | st.sampled_from([2**16, 2**31, 2**32 - 1]),
    width=st.integers(0, 9) | st.sampled_from([2**16, 2**31, 2**32 - 1]),
    encoding=st.sampled_from([*PIXEL_BYTES, *OTHER_NAMES, "16UC1", "32FC1", "8UC3", "nv61", "RGB8"])
    | st.text(max_size=8),
    step=st.integers(0, 80) | st.just(2**32 - 1),
    bigendian=st.sampled_from([0, 1, 255]),
    data=st.binary(max_size=700),
)
def test_arbitrary_fields_return_image_or_raise_image_error(height, width, encoding, step, bigendian, data):
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step)
    message.data = array.array("B", data)
    convert_or_reject(message, height, width)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    encoding=st.sampled_from([*PIXEL_BYTES, *OTHER_NAMES]),
    padding=st.integers(0, 9),
    missing=st.integers(-3, 12),
    bigendian=st.sampled_from([0, 1, 255]),
)
@example(height=1, width=1, encoding="bayer_rggb8", padding=0, missing=0, bigendian=0)
@example(height=1, width=1, encoding="rgb8", padding=9, missing=0, bigendian=0)
def test_nearly_fitting_size_returns_image_or_raises_image_error(height, width, encoding, padding, missing, bigendian):
    # given a message that lacks the last bytes of its last row
    known = OTHER_NAMES.get(encoding, encoding)
    step = width * PIXEL_BYTES[known] + padding
    size = data_bytes(known, height, width, step) - missing
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=bigendian, step=step)
    message.data = array.array("B", bytes(max(0, size)))

    # when
    converted = convert_or_reject(message, height, width)

    # then
    if missing > 0:
        assert not converted
    elif not encoding.startswith(("bayer", "yuv", "yuyv", "uyvy", "nv")):  # OpenCV requires a minimum size for these
        assert converted


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_file_returns_image_or_raises_image_error(data):
    # given a JPEG or PNG that may be truncated and has some changed bytes
    file = bytearray(data.draw(st.sampled_from(FILES)))
    if data.draw(st.booleans()):
        del file[data.draw(st.integers(0, len(file))) :]
    if file:
        for position in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=6)):
            file[position] = data.draw(st.integers(0, 255))
    message = CompressedImage(format=data.draw(st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", "?"])))
    message.data = array.array("B", bytes(file))

    # then (a lower size limit saves time)
    with mock.patch.object(validation, "MAX_IMAGE_PIXELS", 10_000):
        convert_or_reject(message)


@pytest.mark.parametrize(("encoding", "pixel_bytes"), PIXEL_BYTES.items())
@pytest.mark.parametrize("padding", [0, 3])
def test_every_supported_encoding_returns_an_independent_image(encoding, pixel_bytes, padding):
    # given
    pixels = np.random.default_rng(2).integers(0, 256, (row_count(encoding, 8), 10, pixel_bytes), np.uint8)
    message = make_message(encoding, pixels, padding=padding)
    message.height = 8
    data = bytes(message.data)

    # when
    image = CONVERTER.convert(message)
    before = image.copy()

    # then the message is unchanged, and its buffer may be reused
    check_valid(image, 8, 10)
    assert (message.encoding, message.step, bytes(message.data)) == (encoding, 10 * pixel_bytes + padding, data)
    message.data[:] = array.array("B", bytes(len(message.data)))
    assert np.array_equal(image, before)
    assert before.any()


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("bigendian", [0, 1])
def test_sixteen_bit_values_follow_the_byte_order(bigendian, padding):
    # given values whose two bytes differ
    grey = RGB[..., 0]
    wide = (grey.astype(np.uint16) * 256 + 255 - grey).astype(">u2" if bigendian else "<u2")
    message = make_message("mono16", wide[..., None], padding=padding)
    message.is_bigendian = bigendian

    # when
    image = CONVERTER.convert(message)

    # then
    assert np.abs(image.astype(int) - grey[..., None]).max() <= 1


def test_mirrored_view_from_the_library_is_made_contiguous():
    converter = ImageConverter("mirror", lambda message: RGB[:, ::-1])
    image = converter.convert(make_message("rgb8", RGB))
    check_valid(image, 12, 20)
    assert np.array_equal(image, RGB[:, ::-1])


def test_rejected_message_does_not_reach_the_library():
    converter = ImageConverter("unreachable", lambda message: pytest.fail("the backend was called"))
    with pytest.raises(ImageError):
        converter.convert(make_message("16UC1", RGB[..., :2]))


@pytest.mark.parametrize(
    "pixels",
    [np.dstack([RGB[..., 0]] * 3 + [RGB[..., 1]]), RGB[..., 0].astype(np.uint16) * 257],
    ids=["with alpha", "16 bits"],
)
def test_png_with_alpha_or_16_bits_is_converted_to_rgb(pixels):
    data = cv2.imencode(".png", pixels)[1].tobytes()
    image = CONVERTER.convert(CompressedImage(data=array.array("B", data)))
    check_valid(image, 12, 20)
    assert np.abs(image.astype(int) - RGB[..., :1]).max() <= 1


def test_exif_orientation_is_ignored():
    # given an EXIF segment that requests a rotation by 90 degrees
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    plain = FILES[0]
    rotated = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (20, 12, 3)

    # when
    image = CONVERTER.convert(CompressedImage(data=array.array("B", rotated)))

    # then
    check_valid(image, 12, 20)


def test_opencv_error_raises_an_image_error(monkeypatch):
    def fail(*_):
        raise cv2.error("injected")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(ImageError) as caught:
        CONVERTER.convert(CompressedImage(format="png", data=array.array("B", FILES[1])))
    assert "'png'" in str(caught.value)


def test_missing_cv_bridge_is_reported(monkeypatch):
    pytest.importorskip("rosbags.image")
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    assert make_converter().fallback_reason == "images are converted by rosbags-image: cv_bridge is not installed"


def test_broken_cv_bridge_is_not_reported_as_missing(monkeypatch):
    def broken():
        raise ImportError("numpy.core.multiarray failed to import")

    pytest.importorskip("rosbags.image")
    monkeypatch.setattr(conversion, "_cv_bridge_backend", broken)
    reason = make_converter().fallback_reason
    assert "numpy.core.multiarray failed to import" in reason
    assert "not installed" not in reason


def test_missing_libraries_raise_an_error_that_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    monkeypatch.setitem(sys.modules, "rosbags.image", None)
    with pytest.raises(ConfigurationError) as caught:
        make_converter()
    assert all(name in str(caught.value) for name in ("cv_bridge", "rosbags-image", "pip install"))


def test_defective_rosbags_image_raises_a_configuration_error(monkeypatch):
    def broken():
        raise AttributeError("module 'cv2' has no attribute 'cvtColor'")

    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    monkeypatch.setattr(conversion, "_rosbags_backend", broken)
    with pytest.raises(ConfigurationError) as caught:
        make_converter()
    assert "'cvtColor'" in str(caught.value)
