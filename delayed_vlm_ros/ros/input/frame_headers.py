"""Headers of frames: stamp, frame_id and nearest camera pose, with their JSON form for key-frame files."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message

# Of ROS clocks. A message's stamp may exceed 2**31 s: its nanoseconds may be more than a second.
_MIN_STAMP_NS, _MAX_STAMP_NS = -(2**63), 2**63 - 1
# A publisher may put megabytes into a frame_id or a pose; key-frame files must not grow with them.
_MAX_FRAME_ID_CHARACTERS = 1000
_MAX_POSE_BYTES = 10_000


@dataclass(frozen=True)
class TimedPose:
    """A serialised pose with its stamp. It is deserialised only when it is used.

    Attributes:
        stamp_ns: The pose's stamp in nanoseconds.
        serialised: The message in CDR.
        message_type: ``PoseStamped``, or a message with a header and a ``PoseWithCovariance`` in its field ``pose``.
    """

    stamp_ns: int
    serialised: bytes
    message_type: type = PoseStamped

    def deserialize(self) -> PoseStamped | None:
        """Return the pose, or None if the message cannot be read."""
        try:
            message: Any = deserialize_message(self.serialised, self.message_type)
        except Exception:  # noqa: BLE001  rclpy has no common class for the errors of an invalid message
            return None
        return (
            message if isinstance(message, PoseStamped) else PoseStamped(header=message.header, pose=message.pose.pose)
        )

    @cached_property
    def pose_stamped(self) -> bytes | None:
        """The serialised ``PoseStamped``, or None if the message cannot be read.

        Made once: the padding of serialised messages differs, so a key-frame file would seem to have changed.
        """
        if self.message_type is PoseStamped:
            return self.serialised
        pose = self.deserialize()
        return None if pose is None else serialize_message(pose)


@dataclass
class FrameHeader:
    """The header of a frame's message and the camera's pose at that time.

    Attributes:
        stamp_ns: The message's stamp in nanoseconds.
        frame_id: The message's frame_id.
        nearest_pose: The pose nearest in time, or None if none is known. Replaced when a nearer pose arrives.
    """

    stamp_ns: int
    frame_id: str
    nearest_pose: TimedPose | None = None

    @property
    def pose(self) -> PoseStamped | None:
        """Return the nearest pose as a new message, or None if there is none or it cannot be read."""
        nearest = self.nearest_pose
        return None if nearest is None else nearest.deserialize()


def header_to_dict(header: FrameHeader) -> dict[str, Any]:
    """Return a header as a JSON object, with the pose that is nearest now.

    An overlong frame_id is cut and an overlong pose is left out.
    """
    nearest = header.nearest_pose
    pose = None
    message = None if nearest is None else nearest.pose_stamped
    if nearest is not None and message is not None and len(message) <= _MAX_POSE_BYTES:
        pose = {"stamp_ns": nearest.stamp_ns, "message": base64.b64encode(message).decode("ascii")}
    frame_id = header.frame_id[:_MAX_FRAME_ID_CHARACTERS]
    return {"stamp_ns": header.stamp_ns, "frame_id": frame_id, "pose": pose}


def header_from_dict(value: Any) -> FrameHeader:
    """Return the header of a JSON object made by ``header_to_dict``.

    Raises:
        ValueError: The object is not a valid header.
    """
    if not isinstance(value, dict):
        raise ValueError("header is not an object")  # noqa: TRY004  callers expect one class
    frame_id, pose = value.get("frame_id"), value.get("pose")
    if not isinstance(frame_id, str) or len(frame_id) > _MAX_FRAME_ID_CHARACTERS or "\0" in frame_id:
        raise ValueError("header has an invalid frame_id")
    try:
        frame_id.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON allows and ROS messages do not
        raise ValueError(f"header has an invalid frame_id: {error}") from error
    return FrameHeader(_stamp_ns(value), frame_id, None if pose is None else _pose_from_dict(pose))


def _pose_from_dict(value: Any) -> TimedPose:
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        raise ValueError("header has an invalid pose")  # noqa: TRY004  callers expect one class
    try:
        message = base64.b64decode(value["message"], validate=True)
    except ValueError as error:
        raise ValueError(f"header has an invalid pose: {error}") from error
    if len(message) > _MAX_POSE_BYTES:
        raise ValueError(f"header has a pose longer than {_MAX_POSE_BYTES} bytes")
    return TimedPose(_stamp_ns(value), message)


def _stamp_ns(value: dict[str, Any]) -> int:
    stamp_ns = value.get("stamp_ns")
    if type(stamp_ns) is not int or not _MIN_STAMP_NS <= stamp_ns <= _MAX_STAMP_NS:
        raise ValueError("header has an invalid stamp_ns")
    return stamp_ns
