"""The page's newest image of a camera."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from image_bombs import NO_LENGTH, jpeg_claiming, jpeg_with_two_sizes

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.web.backends import ros
from delayed_vlm_ros.web.backends.live_camera import LiveCamera

JPEG = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize("trick", NO_LENGTH)
def test_image_bomb_is_refused_and_the_former_image_stays(trick):
    # given a camera that publishes compressed images
    logged = []
    logger = SimpleNamespace(warning=lambda text, **_: logged.append(text))
    camera = LiveCamera(SimpleNamespace(get_logger=lambda: logger), "front", "/image", make_converter())
    camera.message_type = CompressedImage
    camera.receive(bytes(serialize_message(CompressedImage(format="jpeg", data=JPEG))))
    image = camera.image()
    assert (image.width, image.height) == (64, 48)

    # when
    bomb = jpeg_with_two_sizes(30_000, 20_000, trick, padded=False)
    camera.receive(bytes(serialize_message(CompressedImage(format="jpeg", data=bomb))))

    # then
    assert camera.image() == image
    assert "claims 20000 × 30000 pixels" in logged[0]


def test_page_has_its_own_limit_of_pixels(monkeypatch):
    # given the page's node with one camera
    monkeypatch.setattr(ros, "SceneMemoryClient", MagicMock())
    monkeypatch.setattr(ros, "WatchClient", MagicMock())
    node = MagicMock()
    backend = ros.RosBackend(node)
    backend._follow_cameras({"front": "/image/compressed"})
    camera = backend._cameras["front"]
    camera.message_type = CompressedImage

    # when another publisher's image of 33 megapixels arrives
    camera.receive(bytes(serialize_message(CompressedImage(format="jpeg", data=jpeg_claiming(5500, 6000)))))

    # then
    assert backend.live_image("front") is None
    assert "the limit is 32000000 pixels" in node.get_logger().warning.call_args[0][0]
