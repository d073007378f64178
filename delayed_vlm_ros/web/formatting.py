"""Text for times, sizes, counts and errors on the page."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from delayed_vlm_ros.time import FIRST_DATE_SEC, NANOSECONDS_PER_SECOND, seconds_of

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

_OFFSET_STEP_SEC = 6 * _HOUR
_MAX_OFFSET_STEPS = 1000

"""Later stamps are Unix times; earlier ones count from the start of a recording or a simulation."""


def duration(seconds: float) -> str:
    """Return a duration in its one or two largest units: ``80 s``, ``3 min``, ``2 h 5 min``, ``3 d 4 h``."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        return _two_units(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two_units(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def _two_units(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def age(now_ns: int, stamp_ns: int) -> str:
    """Return the age of a stamp; ``now`` below one second."""
    seconds = seconds_of(now_ns - stamp_ns)
    return "now" if seconds < 1.0 else duration(seconds)


def latency(seconds: float) -> str:
    """Return a latency with two or three significant digits: ``84 ms``, ``1.24 s``, ``12.4 s``."""
    if seconds < 1.0:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"  # noqa: PLR2004


def answer_latency(first_token_sec: float, total_sec: float) -> str:
    """Return the two latencies of an answer: ``time to first token 84 ms / total 1.24 s``."""
    return f"time to first token {latency(first_token_sec)} / total {latency(total_sec)}"


def size(count: float) -> str:
    """Return a number of bytes in a suitable unit: ``0 B``, ``812 kB``, ``14.2 MB``, ``1.3 GB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count:.0f} B"  # noqa: PLR2004


def quantity(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 frame``, ``4 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock(stamp_ns: int) -> str:
    """Return a stamp as local time, or in seconds if it does not count from the Unix epoch."""
    if stamp_ns < FIRST_DATE_SEC * NANOSECONDS_PER_SECOND:
        return f"{seconds_of(stamp_ns):.1f} s"
    local = _local(stamp_ns)
    is_today = local.date() == datetime.now(tz=timezone.utc).astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%d %b %H:%M:%S")


def _local(stamp_ns: int) -> datetime:
    return datetime.fromtimestamp(seconds_of(stamp_ns), tz=timezone.utc).astimezone()


def _utc_offset_sec(stamp_ns: int) -> int:
    return (_local(stamp_ns).utcoffset() or timedelta()) // timedelta(seconds=1)


def utc_offsets(since_ns: int, until_ns: int) -> list[tuple[int, int]]:
    """Return the offsets of local time between two stamps, for a browser in another time zone.

    Args:
        since_ns: First stamp, in nanoseconds.
        until_ns: Last stamp.

    Returns:
        Stamps in seconds from which an offset in seconds is valid, oldest first; none if the stamps do not count from
        the Unix epoch.
    """
    if since_ns < FIRST_DATE_SEC * NANOSECONDS_PER_SECOND:
        return []
    since, until = since_ns // NANOSECONDS_PER_SECOND, until_ns // NANOSECONDS_PER_SECOND
    offsets = [(since, _utc_offset_sec(since_ns))]
    step = max(_OFFSET_STEP_SEC, (until - since) // _MAX_OFFSET_STEPS)
    for end in [*range(since + step, until, step), until]:
        offset = _utc_offset_sec(end * NANOSECONDS_PER_SECOND)
        if offset != offsets[-1][1]:
            offsets.append((_start_of_offset(max(since, end - step), end, offset), offset))
    return offsets


def _start_of_offset(before: int, valid: int, offset: int) -> int:
    """Return the first second of an offset, between a second with another one and a second with it."""
    while valid - before > 1:
        middle = (before + valid) // 2
        if _utc_offset_sec(middle * NANOSECONDS_PER_SECOND) == offset:
            valid = middle
        else:
            before = middle
    return valid


def sentence(message: object) -> str:
    """Return an error message as a sentence, with a capital letter and a full stop."""
    text = capitalised(str(message).rstrip("."))
    return f"{text}." if text else ""


def capitalised(text: str) -> str:
    """Return a text with a capital letter, unless it starts with a name such as ``memory.star.size``."""
    return text[0].upper() + text[1:] if re.match(r"[a-z]+ ", text) else text
