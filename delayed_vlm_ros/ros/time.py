"""ROS time messages and clocks."""

from __future__ import annotations

from builtin_interfaces.msg import Time

# Humble has no rclpy.clock_type.
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

_MIN_SEC, _MAX_SEC = -(2**31), 2**31 - 1  # of builtin_interfaces/Time
_MAX_NANOSEC = 2**32 - 1


def time_message(nanoseconds: int) -> Time:
    """Return nanoseconds as a ``builtin_interfaces/Time``. Times before 1970 are negative.

    The message ends in January 2038, four seconds later with more than a second of nanoseconds. A time that it cannot
    hold becomes the nearest one.
    """
    seconds = min(max(nanoseconds // NANOSECONDS_PER_SECOND, _MIN_SEC), _MAX_SEC)
    remainder = nanoseconds - seconds * NANOSECONDS_PER_SECOND
    return Time(sec=seconds, nanosec=min(max(remainder, 0), _MAX_NANOSEC))


def steady_clock() -> Clock:
    """Return a clock for timers that must run while a simulated clock is paused."""
    return Clock(clock_type=ClockType.STEADY_TIME)
