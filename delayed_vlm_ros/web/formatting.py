"""Numbers in words, as people read them on the page."""

from __future__ import annotations

from datetime import datetime, timezone

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_CALENDAR_FROM_NS = 1_000_000_000 * NANOSECONDS_PER_SECOND
"""Later stamps are of this century; earlier ones count from the start of a recording or a simulation."""


def duration(seconds: float) -> str:
    """A length of time in its largest unit or two: ``80 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def age(now_ns: int, stamp_ns: int) -> str:
    """How long ago a stamp was; ``now`` within the last second."""
    seconds = seconds_of(now_ns - stamp_ns)
    return "now" if seconds < 1.0 else duration(seconds)


def latency(seconds: float) -> str:
    """A short time with as many digits as tell something: ``84 ms``, ``1.24 s``, ``12.4 s``."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004


def size(count: float) -> str:
    """Bytes in the unit that fits: ``0 B``, ``812 kB``, ``14.2 MB``, ``1.3 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count:.0f} B"  # noqa: PLR2004


def count_of(number: int, thing: str) -> str:
    """A number with its noun: ``1 frame``, ``4 frames``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def clock(stamp_ns: int) -> str:
    """A stamp as this machine's time of day; a recording's or simulation's small ones in seconds."""
    if stamp_ns < _CALENDAR_FROM_NS:
        return f"{seconds_of(stamp_ns):.1f} s"
    moment = datetime.fromtimestamp(seconds_of(stamp_ns), tz=timezone.utc).astimezone()
    is_of_today = moment.date() == datetime.now(tz=timezone.utc).astimezone().date()
    return moment.strftime("%H:%M:%S" if is_of_today else "%d %b %H:%M:%S")
