"""Where a camera was: its newest poses, and which of them belongs to a picture."""

from __future__ import annotations

import threading
from collections import deque

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.serialization import deserialize_message

from delayed_vlm_ros.errors import PictureError
from delayed_vlm_ros.nodes.stamps import NANOSECONDS_PER_SECOND, read_stamp

_MOST_POSES = 2000  # ten seconds at 200 Hz


class PoseTrack:
    """The newest poses of one camera. Safe to use from several threads.

    Args:
        limit_sec: How far in time a pose may be from what it is taken for.
    """

    def __init__(self, limit_sec: float) -> None:
        self.limit_ns = round(limit_sec * NANOSECONDS_PER_SECOND)
        self._using = threading.Lock()
        self._poses: deque[tuple[int, bytes]] = deque(maxlen=_MOST_POSES)

    def receive(self, serialised: bytes) -> None:
        """Take a serialised ``PoseStamped``; never raises. One that cannot be read, or has no stamp, is no pose."""
        try:
            stamp_ns = read_stamp(serialised)
        except PictureError:
            return
        if stamp_ns:
            with self._using:
                self._poses.append((stamp_ns, serialised))

    def nearest(self, stamp_ns: int) -> PoseStamped | None:
        """The pose nearest in time to a stamp; None where none is near enough, or it cannot be read."""
        with self._using:
            # The newest of equally near ones: after a jump back in time it is the one of now.
            stamp, serialised = min(reversed(self._poses), key=lambda pose: abs(pose[0] - stamp_ns), default=(0, b""))
        if not serialised or abs(stamp - stamp_ns) > self.limit_ns:
            return None
        try:
            pose: PoseStamped = deserialize_message(serialised, PoseStamped)
        except Exception:  # noqa: BLE001  rclpy has no common class for what a damaged message can cause
            return None
        return pose


class PoseSubscription:
    """Hands a camera's poses to their track, from construction until ``destroy``.

    Args:
        node: The node to subscribe from.
        topic: Where they come from.
        track: Where they go.
        group: Callback group of the messages.
    """

    def __init__(self, node: Node, topic: str, track: PoseTrack, group: CallbackGroup) -> None:
        self._node = node
        self._subscription = node.create_subscription(
            PoseStamped,
            topic,
            track.receive,
            qos_profile_sensor_data,
            callback_group=group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            raw=True,
        )

    def destroy(self) -> None:
        """Take no more messages."""
        self._node.destroy_subscription(self._subscription)
