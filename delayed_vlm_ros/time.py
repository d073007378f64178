"""Time stamps: read from serialised messages and converted between nanoseconds and seconds."""

from __future__ import annotations

import struct
import time
from typing import Protocol

from delayed_vlm_ros.errors import ImageError

NANOSECONDS_PER_SECOND = 1_000_000_000

FIRST_DATE_SEC = 1_000_000_000
"""September 2001. A smaller stamp counts from the start of a simulation or a device."""

MAX_AHEAD_SEC = 5.0
"""Lead of a stamp over the node's clock that is no fault: the clocks of two machines may differ a little."""

MAX_LATE_SEC = 10.0
"""Age of a stamp on arrival that is no fault: images arrive late from a network camera or on a busy machine."""

# A serialised message begins with a two-byte encoding identifier and two bytes of options. ROS messages use XCDR1 and
# XCDR2, whose identifiers are even for big-endian and odd for little-endian.
_CDR_HEADER_BYTES = 4
_BYTE_ORDERS = {0x0000: ">", 0x0001: "<", 0x0006: ">", 0x0007: "<"}
_STAMP_BYTES = 8


class Stamp(Protocol):
    """A ``builtin_interfaces/Time``, without an import of ROS."""

    sec: int
    nanosec: int


def read_stamp(serialised: bytes) -> int:
    """Return the ``header.stamp`` of a serialised message that begins with a ``std_msgs/Header``.

    The rest of the message is not read.

    Args:
        serialised: The message in CDR, as a subscription with ``raw=True`` delivers it.

    Returns:
        The stamp in nanoseconds; 0 if it is not set.

    Raises:
        ImageError: The message is cut short or has an unknown encoding.
    """
    if len(serialised) < _CDR_HEADER_BYTES + _STAMP_BYTES:
        raise ImageError(f"image message cut short ({len(serialised)} bytes): check the publisher and the network")
    encoding = int.from_bytes(serialised[:2], "big")
    byte_order = _BYTE_ORDERS.get(encoding)
    if byte_order is None:
        raise ImageError(f"image message has unknown encoding {encoding:#06x}: use a middleware that speaks CDR")
    seconds, nanoseconds = struct.unpack_from(f"{byte_order}iI", serialised, _CDR_HEADER_BYTES)
    return int(seconds) * NANOSECONDS_PER_SECOND + int(nanoseconds)


def steady_sec() -> float:
    """Return the time of a clock that never jumps, in seconds.

    On Linux, it includes the time for which the machine was suspended: then the system clock advances as well.
    """
    boot_clock: int | None = getattr(time, "CLOCK_BOOTTIME", None)  # Linux only
    return time.monotonic() if boot_clock is None else time.clock_gettime(boot_clock)


def nanoseconds_of(stamp: Stamp) -> int:
    """Return a message's stamp in nanoseconds."""
    return int(stamp.sec) * NANOSECONDS_PER_SECOND + int(stamp.nanosec)


def seconds_of(nanoseconds: int) -> float:
    """Return nanoseconds as seconds, correctly rounded, so that the order of stamps is preserved."""
    return nanoseconds / NANOSECONDS_PER_SECOND
