"""Publishes memories: ``~/key_frames`` on change, ``~/star_mosaic`` and ``~/stream_mosaic`` for people.

The first camera's topics have the plain names. With several cameras, every camera also has topics under its own name,
such as ``~/front/star_mosaic``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer
from sensor_msgs.msg import Image

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.msg import KeyFrameArray
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.output.messages import key_frame_array
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.time import steady_clock, time_message

KEY_FRAMES, STAR_MOSAIC, STREAM_MOSAIC = "key_frames", "star_mosaic", "stream_mosaic"

_CHECK_PERIOD_SEC = 0.25
_CHECKS_WITHOUT_SUBSCRIBERS = 4  # key frames without subscribers are published at every fourth check only
_MOSAIC_PERIOD_SEC = 1.0
# A late subscriber receives the newest message.
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_VOLATILE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class MemoryPublisher:
    """Publishes the memories of all cameras between ``start`` and ``close``, while the node is configured.

    The timers have their own callback group, so drawing delays no images, questions or reports. Their clock is steady,
    so topics stay current while a simulation is paused.

    Args:
        node: The node to publish from.
        cameras: Returns the cameras by name; empty while the node is not configured.
    """

    def __init__(self, node: Node, cameras: Callable[[], Mapping[str, CameraMemory]]) -> None:
        self._node = node
        self._cameras = cameras
        self._published_cameras: list[CameraMemory] = []
        self._topics: list[_CameraTopics] = []
        self._can_draw = True
        self._steady_clock = steady_clock()
        self._timers: list[Timer] = []

    def start(self) -> None:
        """Start the timers."""
        group = MutuallyExclusiveCallbackGroup()
        self._timers = [
            self._node.create_timer(period, publish, callback_group=group, clock=self._steady_clock)
            for period, publish in (
                (_CHECK_PERIOD_SEC, self._publish_key_frames),
                (_MOSAIC_PERIOD_SEC, self._publish_mosaics),
            )
        ]

    def close(self) -> None:
        """Stop the timers and remove the topics."""
        timers, self._timers = self._timers, []
        for timer in timers:
            self._node.destroy_timer(timer)
        self._close_topics()

    def _publish_key_frames(self) -> None:
        cameras = self._cameras()
        if list(cameras.values()) != self._published_cameras:
            self._close_topics()
            try:
                for camera in cameras.values():
                    self._topics.append(_CameraTopics(self._node, camera, cameras))
                    self._published_cameras.append(camera)
            except Exception:
                self._close_topics()  # the next check tries again
                raise
        for topics in self._topics:
            topics.publish_key_frames()

    def _close_topics(self) -> None:
        closed, self._topics, self._published_cameras = self._topics, [], []
        for topics in closed:
            topics.close()

    def _publish_mosaics(self) -> None:
        if not self._can_draw:
            return
        try:
            for topics in self._topics:
                topics.publish_mosaics()
        except (ImportError, ConfigurationError) as error:
            self._can_draw = False
            self._node.get_logger().warning(
                f"mosaics are off, everything else works: {error}. Install Pillow 10.1 or newer (pip install "
                "'pillow>=10.1') and restart the node"
            )


class _CameraTopics:
    """The topics of one camera.

    Args:
        node: The node to publish from.
        camera: The camera.
        cameras: Names of all cameras, in order.
    """

    def __init__(self, node: Node, camera: CameraMemory, cameras: Iterable[str]) -> None:
        self._node = node
        self._camera = camera
        self._key_frames: list[Publisher[KeyFrameArray]] = []
        self._star: list[Publisher[Image]] = []
        self._stream: list[Publisher[Image]] = []
        self._published_changes = -1
        self._checks = 0
        names = list(cameras)
        try:
            for publishers, message_type, kind, qos in (
                (self._key_frames, KeyFrameArray, KEY_FRAMES, _LATCHED),
                (self._star, Image, STAR_MOSAIC, _VOLATILE),
                (self._stream, Image, STREAM_MOSAIC, _VOLATILE),
            ):
                for name in topic_names(kind, camera.name, names):
                    publishers.append(node.create_publisher(message_type, name, qos))
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        for publisher in (*self._key_frames, *self._star, *self._stream):
            self._node.destroy_publisher(publisher)

    def publish_key_frames(self) -> None:
        """Publish changed key frames; less often while nobody subscribes.

        A late subscriber receives the last published key frames, and the present ones at the next check.
        """
        if self._checks % _CHECKS_WITHOUT_SUBSCRIBERS == 0 or _with_subscribers(self._key_frames):
            self._publish_if_changed()
        self._checks += 1

    def _publish_if_changed(self) -> None:
        memory = self._camera.frame_manager
        # Read before the snapshot: a change in between is published twice rather than never.
        changes = memory.changes
        if changes == self._published_changes:
            return
        _publish(self._key_frames, key_frame_array(memory.snapshot(), self._camera))
        self._published_changes = changes

    def publish_mosaics(self) -> None:
        """Draw and publish the mosaics that have subscribers."""
        memory = self._camera.frame_manager
        if star := _with_subscribers(self._star):
            pairs = [kept for kept in memory.snapshot() if kept.in_star]
            _publish(star, self._mosaic("Star memory", pairs, memory.star_capacity))
        if stream := _with_subscribers(self._stream):
            pairs = [kept for kept in memory.snapshot() if kept.in_stream]
            _publish(stream, self._mosaic("Stream memory", pairs, memory.stream_capacity))

    def _mosaic(self, title: str, pairs: Sequence[KeptPair], capacity: int) -> Image:
        now_ns = self._node.get_clock().now().nanoseconds
        slots = max(len(pairs), capacity // FRAMES_PER_PAIR)  # an odd capacity may hold a half pair more
        detail = f"{self._camera.name}, {len(pairs)} of {slots} pairs"
        mosaic = _mosaic_module()
        tiles = [mosaic.make_tile(kept, self._camera.age_sec(kept.pair.important_frame)) for kept in pairs]
        message = image_message(mosaic.draw_mosaic(title, detail, tiles, slots))
        message.header.stamp = time_message(now_ns)
        return message


def topic_names(kind: str, camera: str, cameras: Iterable[str]) -> list[str]:
    """Return the topics of one kind for a camera.

    Args:
        kind: One of ``KEY_FRAMES``, ``STAR_MOSAIC`` and ``STREAM_MOSAIC``.
        camera: Name of the camera.
        cameras: Names of all cameras, in order.
    """
    names = list(cameras)
    plain = [f"~/{kind}"] if camera == names[0] else []
    return plain if names == [camera] else [*plain, f"~/{camera}/{kind}"]


def _mosaic_module() -> ModuleType:
    from delayed_vlm_ros.ros.output import mosaic  # noqa: PLC0415  everything else works without Pillow

    return mosaic


def _with_subscribers(publishers: Iterable[Publisher[Any]]) -> list[Publisher[Any]]:
    return [publisher for publisher in publishers if publisher.get_subscription_count()]


def _publish(publishers: Iterable[Publisher[Any]], message: Any) -> None:
    for publisher in publishers:
        publisher.publish(message)
