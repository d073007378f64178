"""Stamps of messages, from and to whole nanoseconds."""

from __future__ import annotations

from builtin_interfaces.msg import Time

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND


def nanoseconds_of(stamp: Time) -> int:
    """A message's stamp in nanoseconds."""
    return int(stamp.sec) * NANOSECONDS_PER_SECOND + int(stamp.nanosec)


def time_message(nanoseconds: int) -> Time:
    """Nanoseconds as a message's stamp."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    return Time(sec=seconds, nanosec=rest)
