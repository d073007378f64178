"""Time stamps: out of serialised messages, and between whole nanoseconds and the memory's seconds."""

from __future__ import annotations

import struct

from delayed_vlm_ros.errors import ImageError

NANOSECONDS_PER_SECOND = 1_000_000_000

# A serialised message begins with two bytes naming its encoding and two of options. The encodings that ROS messages
# come in, XCDR1 and XCDR2, are even for big-endian and odd for little-endian.
_CDR_HEADER_BYTES = 4
_PLAIN_CDR = {0x0000: ">", 0x0001: "<", 0x0006: ">", 0x0007: "<"}
_STAMP_BYTES = 8


def read_stamp(serialised: bytes) -> int:
    """Read ``header.stamp`` of a serialised message that begins with a ``std_msgs/Header``, and nothing else of it.

    Args:
        serialised: The message in CDR, as a subscription with ``raw=True`` gives it.

    Returns:
        The stamp in nanoseconds; 0 when it was not set.

    Raises:
        ImageError: The bytes are no such message.
    """
    if len(serialised) < _CDR_HEADER_BYTES + _STAMP_BYTES:
        raise ImageError(f"an image message of {len(serialised)} bytes is cut short: check the publisher and network")
    encoding = int.from_bytes(serialised[:2], "big")
    byte_order = _PLAIN_CDR.get(encoding)
    if byte_order is None:
        raise ImageError(f"an image message has the unknown encoding {encoding:#06x}: use a middleware that speaks CDR")
    seconds, nanoseconds = struct.unpack_from(f"{byte_order}iI", serialised, _CDR_HEADER_BYTES)
    return int(seconds) * NANOSECONDS_PER_SECOND + int(nanoseconds)


def seconds_of(nanoseconds: int) -> float:
    """Nanoseconds as seconds, correctly rounded: later stamps never come out earlier."""
    return nanoseconds / NANOSECONDS_PER_SECOND
