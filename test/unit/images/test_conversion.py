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
    ("changes", "words"),
    [
        ({"height": 0}, "32 × 0 pixels"),
        ({"width": 0}, "0 × 24 pixels"),
        ({"step": 95}, "step is 95, but a row of 32 rgb8 pixels has 96 bytes"),
        ({"data": array.array("B", bytes(2303))}, "data has 2303 bytes.*need 2304"),
        ({"data": array.array("B")}, "data has 0 bytes"),
        ({"height": 100_000, "width": 100_000}, "claims to be 100000 × 100000"),
        ({"encoding": "plaid8"}, "'plaid8' is unknown.*rgb8"),
        ({"encoding": ""}, "'' is unknown"),
        ({"encoding": "16UC1"}, "16UC1 is a depth image.*colour topic"),
        ({"encoding": "32FC1"}, "32FC1 is a depth image"),
        ({"encoding": "8UC3"}, "'8UC3' says how wide.*not which colours"),
        ({"encoding": "yuv422", "width": 31}, "even width"),
    ],
)
def test_an_unusable_image_is_refused_with_its_reason(converter, rgb, changes, words):
    message = image_message(rgb, "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match=words):
        converter.convert(message)


def compressed(data, kind="jpeg"):
    message = CompressedImage(format=kind)
    message.data = array.array("B", data)
    return message


def test_a_grey_compressed_image_becomes_rgb(converter, rgb):
    image = converter.convert(compressed(cv2.imencode(".png", grey_of(rgb))[1].tobytes(), "png"))
    assert np.array_equal(image, np.repeat(grey_of(rgb)[..., None], 3, axis=-1))


def jpeg(rgb):
    return cv2.imencode(".jpg", rgb)[1].tobytes()


def png_claiming(width, height):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(30)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda _rgb: b"", "jpeg", "no data"),
        (lambda _rgb: b"GIF89a and more", "gif", "neither a JPEG nor a PNG"),
        (lambda _rgb: b"\xff\xd8", "jpeg", "neither a JPEG nor a PNG"),
        (lambda _rgb: b"\xff\xd8\xff\xe0\x00", "jpeg", "neither a JPEG nor a PNG"),
        (lambda _rgb: b"\xff\xd8" + b"\xff\xe0\x00\x00" * 50, "jpeg", "neither a JPEG nor a PNG"),
        (lambda rgb: jpeg(rgb)[:180], "jpeg", "neither a JPEG nor a PNG|damaged"),
        (lambda _rgb: png_claiming(60_000, 60_000), "png", "claims to be 60000 × 60000"),
        (lambda _rgb: png_claiming(0, 8), "png", "0 × 8 pixels"),
        (lambda _rgb: png_claiming(8, 8), "png", "damaged"),
        (jpeg, "16UC1; compressedDepth png", "depth image"),
        (jpeg, "32FC1", "depth image"),
    ],
)
def test_an_unusable_compressed_image_is_refused_with_its_reason(converter, rgb, make, kind, words):
    with pytest.raises(ImageError, match=words):
        converter.convert(compressed(make(rgb), kind))


class WorkingBridge:
    """Does what the real one does for the image it is tried with."""

    def imgmsg_to_cv2(self, message, desired_encoding):
        assert desired_encoding == "rgb8"
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        image = pixels[:, : message.width * 3].reshape(message.height, message.width, 3)
        return image[..., ::-1] if message.encoding == "bgr8" else image


class BrokenBridge:
    """As one built against another NumPy."""

    def imgmsg_to_cv2(self, message, desired_encoding):
        raise AttributeError("_ARRAY_API not found")


class LyingBridge(WorkingBridge):
    def imgmsg_to_cv2(self, message, desired_encoding):
        return 255 - super().imgmsg_to_cv2(message, desired_encoding)


def install_bridge(monkeypatch, bridge):
    module = types.ModuleType("cv_bridge")
    module.CvBridge = bridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)


def test_cv_bridge_is_taken_where_it_works(monkeypatch, rgb):
    install_bridge(monkeypatch, WorkingBridge)
    converter = make_converter()
    assert (converter.name, converter.fallback_reason) == ("cv_bridge", "")
    message = image_message(rgb, "rgb8")
    image = converter.convert(message)
    message.data[0] = 255 - message.data[0]
    assert np.array_equal(image, rgb)


@pytest.mark.parametrize(("bridge", "words"), [(BrokenBridge, "_ARRAY_API"), (LyingBridge, "it converts")])
def test_a_cv_bridge_that_does_not_work_is_passed_over_and_told(monkeypatch, rgb, bridge, words):
    install_bridge(monkeypatch, bridge)
    converter = make_converter()
    assert converter.name == "rosbags-image"
    assert words in converter.fallback_reason
    assert np.array_equal(converter.convert(image_message(rgb, "rgb8")), rgb)


def test_what_the_library_refuses_is_an_image_error(monkeypatch, rgb):
    install_bridge(monkeypatch, WorkingBridge)
    converter = make_converter()
    monkeypatch.setattr(WorkingBridge, "imgmsg_to_cv2", BrokenBridge.imgmsg_to_cv2)
    with pytest.raises(ImageError, match="cv_bridge cannot convert a 32 × 24 rgb8 image"):
        converter.convert(image_message(rgb, "rgb8"))
