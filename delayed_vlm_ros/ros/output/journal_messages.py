"""Conversions from lines of the journal to ROS messages."""

from __future__ import annotations

import array

from geometry_msgs.msg import Point, PoseStamped, Quaternion
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros import msg
from delayed_vlm_ros.journal import JournalEntry, Pose
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.text import escaped


def journal_moment(entry: JournalEntry, *, score: float = 0.0) -> msg.Moment:
    """Return the message of a line, with its thumbnail if the line has it.

    Args:
        entry: The line.
        score: Share of the words found; 0 without a search.
    """
    message = msg.Moment(
        end_stamp=time_message(entry.end_stamp_ns),
        camera=entry.camera,
        score=float(score),
        journal_id=entry.id,
        caption=escaped(entry.caption),
        reason=entry.reason,
        label=entry.label,
    )
    message.header.stamp, message.header.frame_id = time_message(entry.stamp_ns), entry.frame_id
    if entry.pose is not None:
        message.pose_valid, message.pose = True, _pose_message(entry.pose)
    if entry.thumbnail:
        message.thumbnail = CompressedImage(format="jpeg", data=array.array("B", entry.thumbnail))
        message.thumbnail.header.stamp, message.thumbnail.header.frame_id = message.header.stamp, entry.frame_id
    return message


def _pose_message(pose: Pose) -> PoseStamped:
    x, y, z = pose.position
    qx, qy, qz, qw = pose.orientation
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = time_message(pose.stamp_ns), pose.frame_id
    message.pose.position = Point(x=x, y=y, z=z)
    message.pose.orientation = Quaternion(x=qx, y=qy, z=qz, w=qw)
    return message
