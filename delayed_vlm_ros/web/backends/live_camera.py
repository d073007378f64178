"""A camera's images for people to look at: subscribed to while somebody does, converted when somebody asks."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.conversion import ImageConverter
from delayed_vlm_ros.images.encoding import encode_live_jpeg
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.web.backend import LiveImage

_COMPRESSED = "/compressed"
_WATCHED_SEC = 3.0


class LiveCamera:
    """One camera's topic. ``tend`` belongs to the node's thread, ``image`` to any.

    Where the camera offers compressed images as well, those are taken: the page may be on another computer.

    Args:
        node: The node to subscribe from.
        name: The camera's.
        topic: Where the memory takes its images from, resolved.
        converter: Makes images of messages.
    """

    def __init__(self, node: Node, name: str, topic: str, converter: ImageConverter) -> None:
        self.name = name
        self.base_topic = topic
        self.topic = topic
        self.message_type: type[Image | CompressedImage] = Image
        self._node = node
        self._converter = converter
        self._subscription: ImageSubscription | None = None
        self._watched_until = 0.0
        self._newest: tuple[int, bytes] | None = None
        self._number = 0
        self._converting = threading.Lock()
        self._made: LiveImage | None = None

    def tend(self) -> None:
        """Subscribe while somebody watches, and not longer."""
        is_watched = time.monotonic() < self._watched_until
        if is_watched and self._subscription is None:
            self._choose_topic()
            self._subscription = ImageSubscription(self._node, self)
            self._subscription.start()
        elif not is_watched:
            self.close()

    def close(self) -> None:
        """Subscribe to nothing, and forget the image."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
            self._newest = self._made = None

    def _choose_topic(self) -> None:
        self.topic, self.message_type = self.base_topic, Image
        if self.base_topic.endswith(_COMPRESSED):
            self.message_type = CompressedImage
        elif self._node.count_publishers(self.base_topic + _COMPRESSED):
            self.topic, self.message_type = self.base_topic + _COMPRESSED, CompressedImage

    def receive(self, serialised: bytes) -> None:
        """Take one serialised message; it is looked at only when somebody asks for an image."""
        self._number += 1
        self._newest = self._number, serialised

    def image(self) -> LiveImage | None:
        """The newest image; whoever goes on asking for it is watching."""
        self._watched_until = time.monotonic() + _WATCHED_SEC
        with self._converting:
            newest = self._newest
            if newest is not None and (self._made is None or self._made.number != newest[0]):
                self._made = self._convert(*newest) or self._made
            return self._made

    def _convert(self, number: int, serialised: bytes) -> LiveImage | None:
        try:
            image = self._converter.convert(deserialize_message(serialised, self.message_type))
        except ImageError as error:  # the memory's diagnostics say the same to everybody
            self._node.get_logger().warning(f"camera {self.name}: {error}", throttle_duration_sec=10.0)
            return None
        height, width = image.shape[:2]
        return LiveImage(number, encode_live_jpeg(image), width, height)
