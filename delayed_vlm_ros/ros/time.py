"""ROS time messages and clocks."""

from __future__ import annotations

from builtin_interfaces.msg import Time

# Humble has no rclpy.clock_type.
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND


def time_message(nanoseconds: int) -> Time:
    """Return nanoseconds as a ``builtin_interfaces/Time``. Times before 1970 are negative."""
    seconds, remainder = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    return Time(sec=seconds, nanosec=remainder)


def steady_clock() -> Clock:
    """Return a clock for timers that must run while a simulated clock is paused."""
    return Clock(clock_type=ClockType.STEADY_TIME)
