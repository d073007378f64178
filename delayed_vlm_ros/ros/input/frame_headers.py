"""What a frame's message said, as it stands in a file of kept frames."""

from __future__ import annotations

import base64
from typing import Any

from delayed_vlm_ros.ros.input.poses import FrameHeader, TimedPose

_MOST_NS = 2**31 * 10**9  # ROS counts seconds in 32 bits
# Whoever publishes may put megabytes into a name; a file of kept frames is not where they go.
_MOST_FRAME_ID_CHARACTERS = 1000
_MOST_POSE_BYTES = 10_000


def describe_header(header: FrameHeader) -> dict[str, Any]:
    """A header for JSON, with the pose that is nearest now. A frame_id of unreasonable length is cut."""
    nearest = header.nearest
    pose = None
    if nearest is not None and len(nearest.serialised) <= _MOST_POSE_BYTES:
        pose = {"stamp_ns": nearest.stamp_ns, "message": base64.b64encode(nearest.serialised).decode("ascii")}
    frame_id = header.frame_id[:_MOST_FRAME_ID_CHARACTERS]
    return {"stamp_ns": header.stamp_ns, "frame_id": frame_id, "pose": pose}


def revive_header(described: Any) -> FrameHeader:
    """The header that was described.

    Raises:
        ValueError: It makes no sense.
    """
    if not isinstance(described, dict):
        raise ValueError("no object")  # noqa: TRY004  the caller's one kind of error
    frame_id, pose = described.get("frame_id"), described.get("pose")
    if not isinstance(frame_id, str) or len(frame_id) > _MOST_FRAME_ID_CHARACTERS or "\0" in frame_id:
        raise ValueError("without a frame_id")
    frame_id.encode()  # a lone surrogate, which JSON can hold, would stop every message with it; a ValueError, too
    nearest = None
    if pose is not None:
        if not isinstance(pose, dict) or not isinstance(pose.get("message"), str):
            raise ValueError("with a pose that is none")
        message = base64.b64decode(pose["message"], validate=True)
        if len(message) > _MOST_POSE_BYTES:
            raise ValueError("with a pose that is too long")
        nearest = TimedPose(_stamp_ns(pose), message)
    return FrameHeader(_stamp_ns(described), frame_id, nearest)


def _stamp_ns(described: dict[str, Any]) -> int:
    value = described.get("stamp_ns")
    if type(value) is not int or not -_MOST_NS <= value < _MOST_NS:
        raise ValueError("without a time")
    return value
