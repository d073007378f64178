"""Conversions from moments to ROS messages."""

from __future__ import annotations

import array

from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros import msg
from delayed_vlm_ros.images.encoding import encode_thumbnail
from delayed_vlm_ros.memory import Frame
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.services.find_handler import CameraMoment
from delayed_vlm_ros.ros.time import time_message


def moment_message(found: CameraMoment, *, include_thumbnail: bool) -> msg.Moment:
    """Return the message of a moment. Pose and thumbnail are those of its best pair.

    Args:
        found: The moment with its camera.
        include_thumbnail: Whether to fill ``thumbnail``.
    """
    camera, moment = found.camera, found.moment
    first, last = moment.pairs[0].pair.first, moment.pairs[-1].pair.last
    best = moment.best
    header = camera.header_of(first)
    message = msg.Moment(
        end_stamp=time_message(camera.header_of(last).stamp_ns),
        camera=camera.name,
        score=float(moment.score),
        id=best.id,
        reason=best.reason,
        label=best.label,
    )
    message.header.stamp, message.header.frame_id = time_message(header.stamp_ns), header.frame_id
    pose = camera.header_of(best.pair.first).pose
    if pose is not None:
        message.pose_valid, message.pose = True, pose
    if include_thumbnail:
        message.thumbnail = _thumbnail(best.pair.first, camera)
    return message


def _thumbnail(frame: Frame, camera: CameraMemory) -> CompressedImage:
    header = camera.header_of(frame)
    image = CompressedImage(format="jpeg", data=array.array("B", encode_thumbnail(frame.image)))
    image.header.stamp, image.header.frame_id = time_message(header.stamp_ns), header.frame_id
    return image
