"""Conversion of image messages: errors, compressed images, and the choice of the library."""

import array
import struct
import sys
import types

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.conversion import make_converter


@pytest.fixture(scope="module")
def converter():
    return make_converter()


@pytest.fixture(scope="module")
def rgb():
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([rows * 10, columns * 7, (rows + columns) * 4], axis=-1).astype(np.uint8)


def image_message(pixels, encoding):
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.data = array.array("B", pixels.tobytes())
    return message


def grey_of(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"height": 0}, ["32 × 0"]),
        ({"width": 0}, ["0 × 24"]),
        ({"step": 95}, ["step is 95", "32 rgb8", "96 bytes"]),
        ({"data": array.array("B", bytes(2303))}, ["2303 bytes", "2304"]),
        ({"data": array.array("B")}, ["0 bytes"]),
        ({"height": 100_000, "width": 100_000}, ["100000 × 100000"]),
        ({"encoding": "plaid8"}, ["'plaid8'", "rgb8"]),
        ({"encoding": ""}, ["encoding ''"]),
        ({"encoding": "16UC1"}, ["16UC1", "depth", "colour topic"]),
        ({"encoding": "32FC1"}, ["32FC1", "depth"]),
        ({"encoding": "8UC3"}, ["'8UC3'", "colours"]),
        ({"encoding": "yuv422", "width": 31}, ["even width", "31"]),
    ],
)
def test_unusable_image_raises_an_error_that_names_the_field(converter, rgb, changes, named):
    message = image_message(rgb, "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError) as caught:
        converter.convert(message)
    assert [word for word in named if word not in str(caught.value)] == []


def compressed(data, kind="jpeg"):
    message = CompressedImage(format=kind)
    message.data = array.array("B", data)
    return message


def test_grey_compressed_image_is_converted_to_rgb(converter, rgb):
    image = converter.convert(compressed(cv2.imencode(".png", grey_of(rgb))[1].tobytes(), "png"))
    assert np.array_equal(image, np.repeat(grey_of(rgb)[..., None], 3, axis=-1))


def jpeg(rgb):
    return cv2.imencode(".jpg", rgb)[1].tobytes()


def png_claiming(width, height):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(30)


@pytest.mark.parametrize(
    ("make", "kind", "named"),
    [
        (lambda _rgb: b"", "jpeg", "no data"),
        (lambda _rgb: b"GIF89a and more", "gif", "('gif', 15 bytes)"),
        (lambda _rgb: b"\xff\xd8", "jpeg", "2 bytes"),
        (lambda _rgb: b"\xff\xd8\xff\xe0\x00", "jpeg", "5 bytes"),
        (lambda _rgb: b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50, "jpeg", "202 bytes"),
        (lambda rgb: jpeg(rgb)[:180], "jpeg", "180 bytes"),
        (lambda _rgb: png_claiming(60_000, 60_000), "png", "60000 × 60000"),
        (lambda _rgb: png_claiming(0, 8), "png", "0 × 8"),
        (lambda _rgb: png_claiming(8, 8), "png", "damaged"),
        (jpeg, "16UC1; compressedDepth png", "depth"),
        (jpeg, "32FC1", "depth"),
    ],
)
def test_unusable_compressed_image_raises_an_error_that_names_the_fault(converter, rgb, make, kind, named):
    with pytest.raises(ImageError) as caught:
        converter.convert(compressed(make(rgb), kind))
    assert named in str(caught.value)


class WorkingBridge:
    """Converts the test image as the real bridge does."""

    def imgmsg_to_cv2(self, message, desired_encoding):
        assert desired_encoding == "rgb8"
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        image = pixels[:, : message.width * 3].reshape(message.height, message.width, 3)
        return image[..., ::-1] if message.encoding == "bgr8" else image


class BrokenBridge:
    """Fails as a bridge built against another NumPy version does."""

    def imgmsg_to_cv2(self, message, desired_encoding):
        raise AttributeError("_ARRAY_API not found")


class WrongBridge(WorkingBridge):
    def imgmsg_to_cv2(self, message, desired_encoding):
        return 255 - super().imgmsg_to_cv2(message, desired_encoding)


def install_bridge(monkeypatch, bridge):
    module = types.ModuleType("cv_bridge")
    module.CvBridge = bridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def test_working_cv_bridge_is_used(monkeypatch, rgb):
    install_bridge(monkeypatch, WorkingBridge)
    converter = make_converter()
    assert (converter.name, converter.fallback_reason) == ("cv_bridge", "")
    message = image_message(rgb, "rgb8")
    image = converter.convert(message)
    message.data[0] = 255 - message.data[0]
    assert np.array_equal(image, rgb)


@pytest.mark.parametrize(("bridge", "named"), [(BrokenBridge, "_ARRAY_API"), (WrongBridge, "[[[3, 2, 1], [6, 5, 4]]]")])
def test_defective_cv_bridge_is_replaced_and_reported(monkeypatch, rgb, bridge, named):
    install_bridge(monkeypatch, bridge)
    converter = make_converter()
    assert converter.name == "rosbags-image"
    assert named in converter.fallback_reason
    assert np.array_equal(converter.convert(image_message(rgb, "rgb8")), rgb)


def test_failure_of_the_library_raises_an_image_error(monkeypatch, rgb):
    install_bridge(monkeypatch, WorkingBridge)
    converter = make_converter()
    monkeypatch.setattr(WorkingBridge, "imgmsg_to_cv2", BrokenBridge.imgmsg_to_cv2)
    with pytest.raises(ImageError) as caught:
        converter.convert(image_message(rgb, "rgb8"))
    assert all(name in str(caught.value) for name in ("cv_bridge", "32 × 24", "rgb8"))
