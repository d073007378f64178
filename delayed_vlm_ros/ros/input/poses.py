"""Camera poses: a buffer of the newest ones and the subscription that fills it."""

from __future__ import annotations

import threading
from collections import deque

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

_MAX_POSES = 2000  # ten seconds at 200 Hz
_MAX_PENDING = 1000  # frames for which a nearer pose may still arrive
_MIN_POSE_BYTES = 76  # encoding, stamp, empty frame_id, padding, seven doubles


class PoseBuffer:
    """Assigns the nearest pose in time to each frame of one camera. Thread-safe.

    Args:
        limit_sec: Largest time difference between a frame and its pose, in seconds.
    """

    def __init__(self, limit_sec: float) -> None:
        self._limit_ns = round(limit_sec * NANOSECONDS_PER_SECOND)
        self._lock = threading.Lock()
        self._poses: deque[TimedPose] = deque(maxlen=_MAX_POSES)
        self._pending: deque[FrameHeader] = deque(maxlen=_MAX_PENDING)
        self._received = self._unusable = 0

    @property
    def received(self) -> int:
        """Number of poses received."""
        return self._received

    @property
    def unusable(self) -> int:
        """Number of received poses that are cut short or have no stamp."""
        return self._unusable

    def receive(self, serialised: bytes) -> None:
        """Add a serialised ``PoseStamped``. Never raises; unusable poses are only counted."""
        self._received += 1
        try:
            stamp_ns = read_stamp(serialised)
        except ImageError:
            stamp_ns = 0
        if not stamp_ns or len(serialised) < _MIN_POSE_BYTES:
            self._unusable += 1
            return
        pose = TimedPose(stamp_ns, serialised)
        with self._lock:
            if self._poses and self._poses[-1].stamp_ns - stamp_ns > self._limit_ns:
                # The clock went back: earlier poses must not be assigned to new frames.
                self._poses.clear()
                self._set_pending([header for header in self._pending if self._is_near(pose, header)])
            self._poses.append(pose)
            for header in self._pending:
                self._assign_if_nearer(pose, header)
            self._set_pending([header for header in self._pending if stamp_ns - header.stamp_ns <= self._limit_ns])

    def attach(self, header: FrameHeader) -> None:
        """Assign the nearest known pose to a new frame's header, and any nearer pose that arrives later."""
        with self._lock:
            # Oldest first: of equally near poses the newest is assigned.
            for pose in self._poses:
                self._assign_if_nearer(pose, header)
            self._pending.append(header)

    def reset(self) -> None:
        """Remove all poses. Frames attached so far keep their present pose."""
        with self._lock:
            self._poses.clear()
            self._pending.clear()

    def _set_pending(self, headers: list[FrameHeader]) -> None:
        if len(headers) < len(self._pending):
            self._pending = deque(headers, maxlen=_MAX_PENDING)

    def _is_near(self, pose: TimedPose, header: FrameHeader) -> bool:
        return abs(pose.stamp_ns - header.stamp_ns) <= self._limit_ns

    def _assign_if_nearer(self, pose: TimedPose, header: FrameHeader) -> None:
        present = header.nearest_pose
        if self._is_near(pose, header) and (
            present is None or abs(pose.stamp_ns - header.stamp_ns) <= abs(present.stamp_ns - header.stamp_ns)
        ):
            header.nearest_pose = pose


class PoseSubscription:
    """Subscribes to a camera's poses between ``start`` and ``close``.

    Args:
        node: The node to subscribe from.
        topic: Topic of ``geometry_msgs/PoseStamped`` messages.
        buffer: Buffer that receives the poses.
        group: Callback group of the subscription.
    """

    def __init__(self, node: Node, topic: str, buffer: PoseBuffer, group: CallbackGroup) -> None:
        self._node = node
        self._topic = topic
        self._buffer = buffer
        self._group = group
        self._subscription: Subscription[PoseStamped] | None = None

    def start(self) -> None:
        """Subscribe.

        Raises:
            ConfigurationError: The parameters ``qos_overrides.<topic>.subscription`` are invalid.
        """
        try:
            self._subscription = self._node.create_subscription(
                PoseStamped,
                self._topic,
                self._buffer.receive,
                qos_profile_sensor_data,
                callback_group=self._group,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                raw=True,
            )
        except Exception as error:  # rclpy has no common class for the errors of invalid overrides
            raise ConfigurationError(
                f"cannot subscribe to {self._topic} ({error}): check the qos_overrides parameters"
            ) from error

    def close(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
