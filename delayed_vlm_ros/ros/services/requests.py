"""What requests of all kinds have in common: which camera they mean, and which moment."""

from __future__ import annotations

from collections.abc import Mapping

from builtin_interfaces.msg import Time

from delayed_vlm_ros.errors import BadRequestError, UnknownCameraError
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of, seconds_of

ALL_CAMERAS = "*"
"""Names all cameras in a question."""


def cameras_named(cameras: Mapping[str, CameraMemory], name: str) -> tuple[CameraMemory, ...]:
    """The cameras that a question names.

    Args:
        cameras: By name, one or more.
        name: Empty: the first one; ``ALL_CAMERAS``: all.

    Raises:
        UnknownCameraError: There is none of this name.
    """
    return tuple(cameras.values()) if name == ALL_CAMERAS else (camera_named(cameras, name),)


def camera_named(cameras: Mapping[str, CameraMemory], name: str) -> CameraMemory:
    """The camera that a request names.

    Args:
        cameras: By name, one or more.
        name: Empty: the first one.

    Raises:
        UnknownCameraError: There is none of this name.
    """
    if not name:
        return next(iter(cameras.values()))
    if name not in cameras:
        raise UnknownCameraError(
            f"there is no camera '{name}': the cameras are {', '.join(cameras)}; leave it empty for the first"
        )
    return cameras[name]


def camera_of_pair(cameras: Mapping[str, CameraMemory], name: str, pair_id: int) -> CameraMemory:
    """The camera that a request about a pair means: ids are unique in the node, so the id alone says which.

    Args:
        cameras: By name, one or more.
        name: Empty: the camera that keeps the pair; the first one, where none does.
        pair_id: The pair's id; 0: the request names none.

    Raises:
        UnknownCameraError: There is none of this name.
    """
    if not name and pair_id:
        for camera in cameras.values():
            if any(kept.id == pair_id for kept in camera.frame_manager.snapshot()):
                return camera
    return camera_named(cameras, name)


def moment(field: str, stamp: Time) -> float | None:
    """A request's stamp in seconds, the same float as a frame of that stamp has; None when it is zero.

    Args:
        field: The stamp's name, for people.
        stamp: The stamp.

    Raises:
        BadRequestError: It is no time.
    """
    nanoseconds = nanoseconds_of(stamp)
    if nanoseconds < 0 or stamp.nanosec >= NANOSECONDS_PER_SECOND:
        raise BadRequestError(
            f"{field} is {stamp.sec} s and {stamp.nanosec} ns: give a time after 1970 with fewer than 10⁹ ns, or leave "
            "it zero"
        )
    return seconds_of(nanoseconds) if nanoseconds else None
