"""Times in options of commands, and in their output."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.time import FIRST_DATE_SEC, NANOSECONDS_PER_SECOND, seconds_of

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d)?")
_SECONDS = re.compile(r"\d+(\.\d{1,9})?")
_END_SEC = 2**31  # of builtin_interfaces/Time


def parse_stamp(option: str, text: str, now: datetime | None = None) -> int:
    """Return a time in nanoseconds since 1970; 0 for an empty text.

    Args:
        option: Name of the option, for the error message.
        text: ``10:30`` (the last one), a date with a time such as ``2026-11-30 10:30`` in local time or with a time
            zone, or seconds since 1970.
        now: Present local time; None: that of this machine.

    Raises:
        BadRequestError: The text is no time, or the time is out of range.
    """
    text = text.strip()
    if not text:
        return 0
    nanoseconds = _from_seconds(text) if _SECONDS.fullmatch(text) else _from_words(option, text, now)
    if not 0 < nanoseconds < _END_SEC * NANOSECONDS_PER_SECOND:
        raise BadRequestError(f"{option} must be a time between 1970 and 2038, got '{text}'")
    return nanoseconds


def _from_seconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * NANOSECONDS_PER_SECOND + int(fraction.ljust(9, "0"))


def _from_words(option: str, text: str, now: datetime | None) -> int:
    now = now or datetime.now().astimezone()
    is_clock = _CLOCK.fullmatch(text) is not None
    if is_clock:
        text = f"{now.date()} {text.zfill(5) if text.count(':') == 1 else text.zfill(8)}"
    try:
        moment = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text))
        if is_clock and moment.astimezone() > now:  # at half past midnight, 23:50 is a time of the day before
            moment -= timedelta(days=1)
        moment = moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError):
        raise BadRequestError(
            f"{option} must be a time such as 10:30, '2026-11-30 10:30' or 2026-11-30T10:30Z, or seconds since 1970, "
            f"got '{text}'"
        ) from None
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def stamp_text(nanoseconds: int, now: datetime | None = None) -> str:
    """Return a time in local time, with the date unless it is today; in seconds if it does not count from 1970.

    Args:
        nanoseconds: The time in nanoseconds.
        now: Present local time; None: that of this machine.
    """
    if nanoseconds < FIRST_DATE_SEC * NANOSECONDS_PER_SECOND:
        return f"{seconds_of(nanoseconds):.1f} s"
    local = (_EPOCH + timedelta(microseconds=nanoseconds // 1000)).astimezone()
    today = (now or datetime.now().astimezone()).date()
    return local.strftime("%H:%M:%S" if local.date() == today else "%Y-%m-%d %H:%M:%S")
