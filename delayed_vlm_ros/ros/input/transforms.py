"""Camera poses from TF: a transform is looked up for each frame, shortly after the frame.

tf2_ros has no wheel, so a source installation provides it. The lookups run in a timer, not in the image callback: the
transform of a frame's stamp usually arrives after the frame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import ClockType
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.time import Time
from rclpy.timer import Timer

from delayed_vlm_ros.dependencies import is_installed, missing
from delayed_vlm_ros.errors import DependencyError, shortened
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader, TimedPose
from delayed_vlm_ros.ros.time import steady_clock, time_message

TF = "tf"
"""Value of the parameter ``pose.source`` that selects TF."""

_PERIOD_SEC = 0.1
_TF2 = "tf2_ros"


class TransformBuffer(Protocol):
    """The part of ``tf2_ros.Buffer`` that is used."""

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time) -> Any:
        """Return the ``TransformStamped`` at a time; raises if it is not available. Does not block."""

    def clear(self) -> None:
        """Forget all transforms: after time went back, tf2 would drop new ones as too old."""

    def close(self) -> None:
        """Stop receiving transforms."""


@dataclass(frozen=True)
class _Pending:
    header: FrameHeader
    attached_at: float  # monotonic


class TransformPoses:
    """Looks up the pose of each frame of one camera. Thread-safe.

    Args:
        frame: Frame in which poses are expressed, such as ``map``.
        base_frame: Frame whose pose is looked up; empty: the image's frame_id.
        wait_sec: How long a frame waits for its transform, in seconds.
    """

    def __init__(self, frame: str, base_frame: str, wait_sec: float) -> None:
        self._frame = frame
        self._base_frame = base_frame
        self._wait_sec = wait_sec
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []
        self._resets = self._cleared = 0
        self._received = self._without_pose = 0
        self._warning = ""

    @property
    def received(self) -> int:
        """Number of transforms found."""
        return self._received

    @property
    def unusable(self) -> int:
        """0: TF reports missing transforms only."""
        return 0

    @property
    def frames_without_pose(self) -> int:
        """Number of frames without a transform at their time."""
        return self._without_pose

    @property
    def warning(self) -> str:
        """Why the newest frame has no pose; empty if it has one."""
        return self._warning

    def attach(self, header: FrameHeader) -> None:
        """Look up the pose of a new frame soon. Does not block."""
        with self._lock:
            self._pending.append(_Pending(header, time.monotonic()))

    def reset(self) -> None:
        """Drop the frames that wait for their transforms, and all transforms."""
        with self._lock:
            self._pending.clear()
            self._resets += 1
            self._warning = ""

    def look_up(self, buffer: TransformBuffer) -> None:
        """Look up the transforms of all frames that wait for theirs. Never raises."""
        with self._lock:
            pending, self._pending = self._pending, []
            resets = self._resets
        if resets != self._cleared:
            buffer.clear()
            self._cleared = resets
        waiting = [one for one in pending if not self._is_settled(one, buffer)]
        with self._lock:
            if resets == self._resets:
                self._pending = [*waiting, *self._pending]

    def _is_settled(self, pending: _Pending, buffer: TransformBuffer) -> bool:
        header = pending.header
        source = self._base_frame or header.frame_id
        try:
            header.nearest_pose = self._pose(buffer, source, header.stamp_ns)
        except Exception as error:  # noqa: BLE001  the errors of tf2 have no base of their own
            if time.monotonic() - pending.attached_at < self._wait_sec:
                return False
            self._without_pose += 1
            self._warning = self._failure(source, error)
            return True
        self._received += 1
        self._warning = ""
        return True

    def _pose(self, buffer: TransformBuffer, source: str, stamp_ns: int) -> TimedPose:
        at = Time(nanoseconds=stamp_ns, clock_type=ClockType.ROS_TIME)
        transform = buffer.lookup_transform(self._frame, source, at).transform
        pose = PoseStamped()
        pose.header.frame_id, pose.header.stamp = self._frame, time_message(stamp_ns)
        for axis in "xyz":
            setattr(pose.pose.position, axis, getattr(transform.translation, axis))
        pose.pose.orientation = transform.rotation
        return TimedPose(stamp_ns, serialize_message(pose))

    def _failure(self, source: str, error: Exception) -> str:
        if not source:
            return "no pose: the images have no frame_id: set pose.base_frame, or frame_id in the driver"
        reason = shortened(str(error))
        return f"no pose: no transform from {source} to {self._frame} ({reason}): check pose.frame, pose.base_frame, TF"


class TransformLookup:
    """Looks up the poses of all cameras between ``start`` and ``close``.

    Args:
        node: Node that receives the transforms.
        poses: Poses of the cameras.
        group: Callback group of the lookups.
        make_buffer: Returns a buffer that receives the node's transforms.
    """

    def __init__(
        self,
        node: Node,
        poses: Sequence[TransformPoses],
        group: CallbackGroup,
        make_buffer: Callable[[Node], TransformBuffer] | None = None,
    ) -> None:
        self._node = node
        self._poses = poses
        self._group = group
        self._make_buffer = make_buffer or _Tf2Buffer
        self._clock = steady_clock()
        self._buffer: TransformBuffer | None = None
        self._timer: Timer | None = None

    def start(self) -> None:
        """Receive transforms and look up poses.

        Raises:
            DependencyError: tf2_ros is not installed.
        """
        self._buffer = self._make_buffer(self._node)
        self._timer = self._node.create_timer(_PERIOD_SEC, self._look_up, callback_group=self._group, clock=self._clock)

    def close(self) -> None:
        """Stop the timer and the reception of transforms."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        if self._buffer is not None:
            self._buffer.close()
            self._buffer = None

    def _look_up(self) -> None:
        buffer = self._buffer
        if buffer is None:  # closed by another thread
            return
        for poses in self._poses:
            poses.look_up(buffer)


def check_transforms_available() -> None:
    """Check that tf2_ros is installed.

    Raises:
        DependencyError: tf2_ros is not installed.
    """
    if not is_installed(_TF2):
        raise DependencyError(f"'pose.source' is {TF}, but {missing(_TF2)}")


class _Tf2Buffer:
    """A ``tf2_ros.Buffer`` with its listener."""

    def __init__(self, node: Node) -> None:
        check_transforms_available()
        tf2_ros = import_module(_TF2)
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup_transform(self, target_frame: str, source_frame: str, time: Time) -> Any:
        return self._buffer.lookup_transform(target_frame, source_frame, time)

    def clear(self) -> None:
        self._buffer.clear()

    def close(self) -> None:
        self._listener.unregister()
