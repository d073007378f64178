"""What a memory holds, published: ``~/key_frames`` when it changes; ``~/star_mosaic``, ``~/stream_mosaic`` for people.

The first camera's topics have the plain names. With several cameras each one, the first included, has them under its
own name as well: ``~/front/star_mosaic``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.msg import KeyFrameArray
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.output.messages import key_frame_array
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.time import time_message

KEY_FRAMES, STAR_MOSAIC, STREAM_MOSAIC = "key_frames", "star_mosaic", "stream_mosaic"

_LOOK_EVERY_SEC = 0.25
_LOOKS_UNHEARD = 4  # looks to one at what nobody listens to
_MOSAIC_EVERY_SEC = 1.0
# Who comes later gets the newest one at once.
_KEPT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_LIVE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def topic_names(kind: str, camera: str, cameras: Iterable[str]) -> list[str]:
    """The topics of one kind that belong to a camera.

    Args:
        kind: Such as ``KEY_FRAMES``.
        camera: The camera's name.
        cameras: The names of all cameras, in their order.
    """
    names = list(cameras)
    plain = [f"~/{kind}"] if camera == names[0] else []
    return plain if names == [camera] else [*plain, f"~/{camera}/{kind}"]


def _mosaics() -> ModuleType:
    """The module that draws, once it is needed: with an old Pillow, or none, everything else must work."""
    from delayed_vlm_ros.ros.output import mosaic  # noqa: PLC0415

    return mosaic


class _CameraTopics:
    """One camera's topics, from construction until ``destroy``.

    Args:
        node: The node to publish from.
        camera: The camera.
        cameras: The names of all cameras.
    """

    def __init__(self, node: Node, camera: CameraMemory, cameras: Iterable[str]) -> None:
        self._node = node
        self._camera = camera
        self._key_frames: list[Publisher] = []
        self._star: list[Publisher] = []
        self._stream: list[Publisher] = []
        self._published_changes = -1
        self._looks = 0
        names = list(cameras)
        try:
            for publishers, message_type, kind, quality in (
                (self._key_frames, KeyFrameArray, KEY_FRAMES, _KEPT),
                (self._star, Image, STAR_MOSAIC, _LIVE),
                (self._stream, Image, STREAM_MOSAIC, _LIVE),
            ):
                for name in topic_names(kind, camera.name, names):
                    publishers.append(node.create_publisher(message_type, name, quality))
        except Exception:
            self.destroy()
            raise

    def destroy(self) -> None:
        for publisher in (*self._key_frames, *self._star, *self._stream):
            self._node.destroy_publisher(publisher)

    def look(self) -> None:
        """Publish the key frames if they are others than before; less often while nobody listens.

        Who comes late gets the newest ones that were published, and the present ones with the next look.
        """
        if self._looks % _LOOKS_UNHEARD == 0 or _listened_to(self._key_frames):
            self._publish_key_frames()
        self._looks += 1

    def _publish_key_frames(self) -> None:
        memory = self._camera.frame_manager
        # Read first: a change between the two is published twice rather than not at all.
        changes = memory.changes
        if changes == self._published_changes:
            return
        message = key_frame_array(memory.snapshot(), self._camera)
        _publish(self._key_frames, message)
        self._published_changes = changes

    def publish_mosaics(self) -> None:
        """Draw and publish what somebody listens to."""
        memory = self._camera.frame_manager
        if star := _listened_to(self._star):
            kept = [kept for kept in memory.snapshot() if kept.in_star]
            _publish(star, self._mosaic("Star memory", kept, memory.star_capacity))
        if stream := _listened_to(self._stream):
            kept = [kept for kept in memory.snapshot() if kept.in_stream]
            _publish(stream, self._mosaic("Stream memory", kept, memory.stream_capacity))

    def _mosaic(self, title: str, pairs: Sequence[KeptPair], capacity: int) -> Image:
        now_ns = self._node.get_clock().now().nanoseconds
        places = max(len(pairs), capacity // FRAMES_PER_PAIR)  # a half pair more where it is odd
        detail = f"{self._camera.name}, {len(pairs)} of {places} moments"
        mosaics = _mosaics()
        tiles = [mosaics.tile_of(kept, self._camera.age_sec(kept.pair.important_frame)) for kept in pairs]
        message = image_message(mosaics.draw_mosaic(title, detail, tiles, places))
        message.header.stamp = time_message(now_ns)
        return message


def _listened_to(publishers: Iterable[Publisher]) -> list[Publisher]:
    return [publisher for publisher in publishers if publisher.get_subscription_count()]


def _publish(publishers: Iterable[Publisher], message: Any) -> None:
    for publisher in publishers:
        publisher.publish(message)


class MemoryPublisher:
    """Publishes what the cameras' memories hold, while there are any.

    Its timers have a callback group of their own and a steady clock: drawing never holds up images that come in, asks
    or reports, and a simulation at rest shows, too.

    Args:
        node: The node to publish from.
        cameras: Gives the cameras by name; none while the node is not configured.
    """

    def __init__(self, node: Node, cameras: Callable[[], Mapping[str, CameraMemory]]) -> None:
        self._node = node
        self._cameras = cameras
        self._present: list[CameraMemory] = []
        self._topics: list[_CameraTopics] = []
        self._draws = True
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        group = MutuallyExclusiveCallbackGroup()
        self._timers = [
            node.create_timer(period, publish, callback_group=group, clock=self._steady)
            for period, publish in ((_LOOK_EVERY_SEC, self._look), (_MOSAIC_EVERY_SEC, self._draw))
        ]

    def _look(self) -> None:
        cameras = self._cameras()
        if list(cameras.values()) != self._present:
            self._end_topics()
            try:
                for camera in cameras.values():
                    self._topics.append(_CameraTopics(self._node, camera, cameras))
                    self._present.append(camera)
            except Exception:
                self._end_topics()  # the next look tries again
                raise
        for topics in self._topics:
            topics.look()

    def _end_topics(self) -> None:
        ended, self._topics, self._present = self._topics, [], []
        for topics in ended:
            topics.destroy()

    def _draw(self) -> None:
        if not self._draws:
            return
        try:
            for topics in self._topics:
                topics.publish_mosaics()
        except (ImportError, ConfigurationError) as error:
            self._draws = False
            self._node.get_logger().warning(
                f"no mosaics are published: {error}. Everything else works; for the mosaics install Pillow 10.1 or "
                "newer (pip install 'pillow>=10.1') and start the node again"
            )
