"""Times in the arguments and results of tools."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_END_SEC = 2**31  # of builtin_interfaces/Time, in January 2038
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d)(?P<seconds>:\d\d)?(?:[.,](?P<fraction>\d{1,9}))?"
    r" ?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?"
)
_FRACTION_DIGITS = 9


def parse_time(name: str, value: float | str | None) -> int:
    """Return a time in nanoseconds since 1970; 0 for None.

    Args:
        name: Name of the argument, for the error message.
        value: Seconds since 1970, or an ISO 8601 date and time with its time zone.

    Raises:
        BadRequestError: The time is invalid or out of range, or has no time zone.
    """
    if value is None:
        return 0
    nanoseconds = _parse_iso(name, value) if isinstance(value, str) else _from_seconds(name, value)
    if not 0 < nanoseconds < _END_SEC * NANOSECONDS_PER_SECOND:
        raise BadRequestError(
            f"'{name}' must be a time between 1970 and 2038, in seconds, got {value}: milliseconds must be divided by "
            "1000, and a time relative to now is 'last_sec'"
        )
    return nanoseconds


def _from_seconds(name: str, value: float) -> int:
    if not math.isfinite(value):
        raise BadRequestError(f"'{name}' must be a finite number of seconds, got {value}")
    return round(value * NANOSECONDS_PER_SECOND)


def _parse_iso(name: str, text: str) -> int:
    found = _ISO.fullmatch(text.strip())
    if found is None:
        raise BadRequestError(
            f"'{name}' must be a date and time such as 2026-11-30T10:30:00Z, or seconds since 1970 as a number, got "
            f"'{text[:40]}'"
        )
    zone = found["zone"]
    if zone is None:
        raise BadRequestError(f"'{name}' has no time zone ('{text}'): append Z for UTC, or an offset such as +02:00")
    zone = "+00:00" if zone in "Zz" else f"{zone[:3]}:{zone[-2:]}"
    try:
        moment = datetime.fromisoformat(f"{found['date']}T{found['clock']}{found['seconds'] or ':00'}{zone}")
    except ValueError as error:
        raise BadRequestError(f"'{name}' is no valid time ('{text}'): {error}") from None
    fraction = (found["fraction"] or "").ljust(_FRACTION_DIGITS, "0")
    return (moment - _EPOCH) // timedelta(seconds=1) * NANOSECONDS_PER_SECOND + int(fraction)


def format_time(nanoseconds: int) -> str:
    """Return a time as ISO 8601 in UTC; ``parse_time`` returns exactly the same nanoseconds. Empty for 0.

    Args:
        nanoseconds: Time since 1970 in nanoseconds.
    """
    if not nanoseconds:
        return ""
    seconds, rest = divmod(nanoseconds, NANOSECONDS_PER_SECOND)
    fraction = f"{rest:09d}".rstrip("0").ljust(3, "0")
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}.{fraction}Z"
