"""A camera's newest image for the page, subscribed and converted only on demand."""

from __future__ import annotations

import threading
import time

from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.conversion import ImageConverter
from delayed_vlm_ros.images.encoding import encode_live_jpeg
from delayed_vlm_ros.ingest.rate import SilenceWatch
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.web.backend import LiveImage

_COMPRESSED = "/compressed"
_WATCH_TIMEOUT_SEC = 3.0


class LiveCamera:
    """Image topic of one camera, subscribed while ``image()`` is being called.

    Call ``update()`` and ``close()`` from the node's thread, ``image()`` from any thread. If the camera also publishes
    compressed images, those are used, because the page may run on another computer.

    Args:
        node: Node to subscribe from.
        name: Name of the camera.
        topic: Resolved image topic of the memory.
        converter: Converter from messages to arrays; the camera uses a copy.

    Attributes:
        base_topic: Resolved image topic of the memory.
    """

    def __init__(self, node: Node, name: str, topic: str, converter: ImageConverter) -> None:
        self.name = name
        self.base_topic = topic
        self.topic = topic
        self.message_type: type[Image | CompressedImage] = Image
        self._node = node
        self._converter = converter.for_camera()
        self._subscription: ImageSubscription | None = None
        self._watched_until = 0.0
        self._newest: tuple[int, bytes] | None = None
        self._silence: SilenceWatch | None = None
        self._number = 0
        self._converting = threading.Lock()
        self._converted: LiveImage | None = None

    def update(self) -> None:
        """Subscribe if ``image()`` was called in the last seconds, otherwise unsubscribe."""
        is_watched = time.monotonic() < self._watched_until
        if is_watched and self._subscription is None:
            self._choose_topic()
            self._silence = SilenceWatch(time.monotonic())
            self._subscription = ImageSubscription(self._node, self)
            self._subscription.start()
        elif not is_watched:
            self.close()

    def close(self) -> None:
        """Unsubscribe and drop the image."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None
            self._newest = self._converted = self._silence = None

    def _choose_topic(self) -> None:
        self.topic, self.message_type = self.base_topic, Image
        if self.base_topic.endswith(_COMPRESSED):
            self.message_type = CompressedImage
        elif self._node.count_publishers(self.base_topic + _COMPRESSED):
            self.topic, self.message_type = self.base_topic + _COMPRESSED, CompressedImage

    def receive(self, serialised: bytes) -> None:
        """Store a serialised message; it is converted only when ``image()`` is called."""
        self._number += 1
        self._newest = self._number, serialised
        if (silence := self._silence) is not None:
            silence.tick(time.monotonic())

    @property
    def silent_sec(self) -> float:
        """Time since the last image, in seconds, if that is unusually long; 0 otherwise and while not subscribed."""
        silence = self._silence
        return silence.silent_sec(time.monotonic()) if silence is not None else 0.0

    def image(self) -> LiveImage | None:
        """Return the newest image, and keep the topic subscribed for some seconds."""
        self._watched_until = time.monotonic() + _WATCH_TIMEOUT_SEC
        with self._converting:
            newest = self._newest
            if newest is not None and (self._converted is None or self._converted.number != newest[0]):
                self._converted = self._convert(*newest) or self._converted
            return self._converted

    def _convert(self, number: int, serialised: bytes) -> LiveImage | None:
        try:
            image = self._converter.convert(deserialize_message(serialised, self.message_type))
        except ImageError as error:  # the memory's diagnostics report it as well
            self._node.get_logger().warning(f"camera {self.name}: {error}", throttle_duration_sec=10.0)
            return None
        height, width = image.shape[:2]
        return LiveImage(number, encode_live_jpeg(image), width, height)
