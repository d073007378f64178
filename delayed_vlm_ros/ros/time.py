"""ROS time messages."""

from __future__ import annotations

from builtin_interfaces.msg import Time

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND


def time_message(nanoseconds: int) -> Time:
    """Return nanoseconds as a ``builtin_interfaces/Time``. Times before 1970 are negative."""
    seconds, remainder = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    return Time(sec=seconds, nanosec=remainder)
