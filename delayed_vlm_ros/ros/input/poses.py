"""Camera poses from a topic: a buffer of the newest ones and the subscription that fills it."""

from __future__ import annotations

import threading
from collections import deque
from importlib import import_module
from typing import Any, Protocol

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from delayed_vlm_ros.dependencies import is_installed, missing
from delayed_vlm_ros.errors import ConfigurationError, DependencyError, ImageError
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

_MAX_POSES = 2000  # ten seconds at 200 Hz
_MAX_PENDING = 1000  # frames for which a nearer pose may still arrive
_MIN_POSE_BYTES = 76  # encoding, stamp, empty frame_id, padding, seven doubles
_MISSES_OF_A_FAULT = 2  # a single one occurs when a robot starts to move and its poses resume

NO_POSES = "none"
"""Value of the parameter ``pose.source`` that switches poses off."""

_PACKAGES = {"PoseStamped": "geometry_msgs", "PoseWithCovarianceStamped": "geometry_msgs", "Odometry": "nav_msgs"}
POSE_TYPES = tuple(_PACKAGES)
"""Names of the message types that a pose topic may have."""


def load_pose_type(name: str) -> type:
    """Return a message type of ``POSE_TYPES``.

    Raises:
        DependencyError: Its package is not installed.
    """
    package = _PACKAGES[name]
    if not is_installed(package):
        raise DependencyError(f"'pose.source' is {name}, but {missing(package)}")
    message_type: type = getattr(import_module(f"{package}.msg"), name)
    return message_type


class PoseSource(Protocol):
    """Source of the poses of one camera's frames. Thread-safe."""

    @property
    def received(self) -> int:
        """Number of poses received."""

    @property
    def unusable(self) -> int:
        """Number of received poses that could not be used."""

    @property
    def frames_without_pose(self) -> int:
        """Number of frames for which no pose was near enough in time."""

    @property
    def warning(self) -> str:
        """Why the newest frames have no pose; empty if they have one, or if poses are not used."""

    def attach(self, header: FrameHeader) -> None:
        """Assign a pose to a new frame's header, now or when one arrives. Does not block."""

    def reset(self) -> None:
        """Forget all poses. Frames keep those that they have."""


class PoseBuffer:
    """Assigns the nearest pose in time to each frame of one camera. Thread-safe.

    Args:
        limit_sec: Largest time difference between a frame and its pose, in seconds.
        message_type: Type of the poses, see ``TimedPose``.
    """

    def __init__(self, limit_sec: float, message_type: type = PoseStamped) -> None:
        self.message_type = message_type
        self._limit_ns = round(limit_sec * NANOSECONDS_PER_SECOND)
        self._lock = threading.Lock()
        self._poses: deque[TimedPose] = deque(maxlen=_MAX_POSES)
        self._pending: deque[FrameHeader] = deque(maxlen=_MAX_PENDING)
        self._received = self._unusable = self._without_pose = 0
        self._received_before = 0  # when frames were last given up
        self._misses = 0  # consecutive times that frames were given up without a pose although poses arrived

    @property
    def received(self) -> int:
        """Number of poses received."""
        return self._received

    @property
    def unusable(self) -> int:
        """Number of received poses that are cut short or have no stamp."""
        return self._unusable

    @property
    def frames_without_pose(self) -> int:
        """Number of frames for which no pose was near enough in time; 0 until the first pose arrives."""
        return self._without_pose

    @property
    def warning(self) -> str:
        """Why the newest frames have no pose although poses arrive; empty if they have one, or if none arrives.

        A localisation may publish only while the robot moves, so silence is no fault.
        """
        if self._misses < _MISSES_OF_A_FAULT:
            return ""
        limit_sec = self._limit_ns / NANOSECONDS_PER_SECOND
        return f"poses arrive, but none within {limit_sec:g} s of the newest frames: synchronise the clocks of both"

    def receive(self, serialised: bytes) -> None:
        """Add a serialised pose. Never raises; unusable poses are only counted."""
        self._received += 1
        try:
            stamp_ns = read_stamp(serialised)
        except ImageError:
            stamp_ns = 0
        if not stamp_ns or len(serialised) < _MIN_POSE_BYTES:
            self._unusable += 1
            return
        pose = TimedPose(stamp_ns, serialised, self.message_type)
        with self._lock:
            if self._poses and self._poses[-1].stamp_ns - stamp_ns > self._limit_ns:
                # The clock went back: earlier poses must not be assigned to new frames.
                self._poses.clear()
                self._set_pending([header for header in self._pending if self._is_near(pose, header)])
            self._poses.append(pose)
            for header in self._pending:
                self._assign_if_nearer(pose, header)
            self._give_up(stamp_ns)

    def attach(self, header: FrameHeader) -> None:
        """Assign the nearest known pose to a new frame's header, and any nearer pose that arrives later."""
        with self._lock:
            # Oldest first: of equally near poses the newest is assigned.
            for pose in self._poses:
                self._assign_if_nearer(pose, header)
            self._give_up(header.stamp_ns)
            self._pending.append(header)

    def reset(self) -> None:
        """Remove all poses. Frames attached so far keep their present pose."""
        with self._lock:
            self._poses.clear()
            self._pending.clear()
            self._misses = 0

    def _give_up(self, stamp_ns: int) -> None:
        """Stop waiting for poses of frames that are too old for a pose of this time."""
        old = [header for header in self._pending if stamp_ns - header.stamp_ns > self._limit_ns]
        if old and self._received:
            without = [header for header in old if header.nearest_pose is None]
            self._without_pose += len(without)
            is_miss = old[-1].nearest_pose is None and self._received > self._received_before
            self._misses = self._misses + 1 if is_miss else 0
            self._received_before = self._received
        self._set_pending([header for header in self._pending if stamp_ns - header.stamp_ns <= self._limit_ns])

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


class NoPoses:
    """The ``PoseSource`` of a camera whose frames have no poses."""

    received = unusable = frames_without_pose = 0
    warning = ""

    def attach(self, header: FrameHeader) -> None:
        """Leave the frame without a pose."""

    def reset(self) -> None:
        """Do nothing: there are no poses."""


class PoseSubscription:
    """Subscribes to a camera's poses between ``start`` and ``close``.

    Args:
        node: The node to subscribe from.
        topic: Topic of the poses.
        buffer: Buffer that receives the poses, and their type.
        group: Callback group of the subscription.
    """

    def __init__(self, node: Node, topic: str, buffer: PoseBuffer, group: CallbackGroup) -> None:
        self._node = node
        self._topic = topic
        self._buffer = buffer
        self._group = group
        self._subscription: Subscription[Any] | None = None

    def start(self) -> None:
        """Subscribe.

        Raises:
            ConfigurationError: The parameters ``qos_overrides.<topic>.subscription`` are invalid.
        """
        try:
            self._subscription = self._node.create_subscription(
                self._buffer.message_type,
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
