"""When and where an image was taken: its header, and the camera's pose nearest in time."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, read_stamp

_MOST_POSES = 2000  # ten seconds at 200 Hz
_MOST_WAITING = 1000  # frames for which a nearer pose may still come
_LEAST_POSE_BYTES = 76  # encoding, stamp, empty frame_id, padding, seven doubles


@dataclass(frozen=True)
class TimedPose:
    """A pose as it arrived, with its stamp in nanoseconds."""

    stamp_ns: int
    serialised: bytes

    def read(self) -> PoseStamped | None:
        """The message; None where it is damaged."""
        try:
            pose: PoseStamped = deserialize_message(self.serialised, PoseStamped)
        except Exception:  # noqa: BLE001  rclpy has no common class for what a damaged message can cause
            return None
        return pose


@dataclass
class FrameHeader:
    """What a frame's message said of when and where, exactly, and where the camera was.

    Attributes:
        stamp_ns: The message's stamp, in nanoseconds.
        frame_id: The message's frame.
        nearest: The nearest pose in time; None where none is known. A nearer one replaces it when it arrives.
    """

    stamp_ns: int
    frame_id: str
    nearest: TimedPose | None = None

    @property
    def pose(self) -> PoseStamped | None:
        """The nearest pose as a message, read anew each time; None where none is known, or it is damaged."""
        nearest = self.nearest
        return None if nearest is None else nearest.read()


class PoseTrack:
    """The newest poses of one camera. Safe to use from several threads.

    Args:
        limit_sec: How far in time a pose may be from what it is taken for.
    """

    def __init__(self, limit_sec: float) -> None:
        self._limit_ns = round(limit_sec * NANOSECONDS_PER_SECOND)
        self._using = threading.Lock()
        self._poses: deque[TimedPose] = deque(maxlen=_MOST_POSES)
        self._waiting: deque[FrameHeader] = deque(maxlen=_MOST_WAITING)
        self._received = self._unusable = 0

    @property
    def received(self) -> int:
        """How many poses have arrived."""
        return self._received

    @property
    def unusable(self) -> int:
        """How many of these have no stamp, or are cut short."""
        return self._unusable

    def receive(self, serialised: bytes) -> None:
        """Take a serialised ``PoseStamped``; never raises. One that is cut short, or has no stamp, is no pose."""
        self._received += 1
        try:
            stamp_ns = read_stamp(serialised)
        except ImageError:
            stamp_ns = 0
        if not stamp_ns or len(serialised) < _LEAST_POSE_BYTES:
            self._unusable += 1
            return
        pose = TimedPose(stamp_ns, serialised)
        with self._using:
            if self._poses and self._poses[-1].stamp_ns - stamp_ns > self._limit_ns:
                # Time has gone back: the poses of before must not be taken for frames of now.
                self._poses.clear()
                self._keep_waiting([header for header in self._waiting if self._is_near(pose, header)])
            self._poses.append(pose)
            for header in self._waiting:
                self._offer(pose, header)
            self._keep_waiting([header for header in self._waiting if stamp_ns - header.stamp_ns <= self._limit_ns])

    def attach(self, header: FrameHeader) -> None:
        """Give a new frame's header the nearest pose there is, and any nearer one that comes later."""
        with self._using:
            # The newest of equally near ones.
            for pose in self._poses:
                self._offer(pose, header)
            self._waiting.append(header)

    def forget(self) -> None:
        """Forget all poses, and give the frames there are no others: what comes now is of another time."""
        with self._using:
            self._poses.clear()
            self._waiting.clear()

    def _keep_waiting(self, headers: list[FrameHeader]) -> None:
        if len(headers) < len(self._waiting):
            self._waiting = deque(headers, maxlen=_MOST_WAITING)

    def _is_near(self, pose: TimedPose, header: FrameHeader) -> bool:
        return abs(pose.stamp_ns - header.stamp_ns) <= self._limit_ns

    def _offer(self, pose: TimedPose, header: FrameHeader) -> None:
        present = header.nearest
        if self._is_near(pose, header) and (
            present is None or abs(pose.stamp_ns - header.stamp_ns) <= abs(present.stamp_ns - header.stamp_ns)
        ):
            header.nearest = pose


class PoseSubscription:
    """Hands a camera's poses to their track, from construction until ``destroy``.

    Args:
        node: The node to subscribe from.
        topic: Where they come from.
        track: Where they go.
        group: Callback group of the messages.

    Raises:
        ConfigurationError: The parameters ``qos_overrides.<topic>.subscription`` do not make sense.
    """

    def __init__(self, node: Node, topic: str, track: PoseTrack, group: CallbackGroup) -> None:
        self._node = node
        try:
            self._subscription = node.create_subscription(
                PoseStamped,
                topic,
                track.receive,
                qos_profile_sensor_data,
                callback_group=group,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                raw=True,
            )
        except Exception as error:  # rclpy has no common class for what overrides can cause
            raise ConfigurationError(
                f"cannot subscribe to {topic} ({error}): check the qos_overrides parameters"
            ) from error

    def destroy(self) -> None:
        """Take no more messages."""
        self._node.destroy_subscription(self._subscription)
