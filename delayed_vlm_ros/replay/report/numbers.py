"""Format numbers for people, with a unit that suits their magnitude."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any, TypeGuard

NO_VALUE = "–"
_UNIT_SPACE = "\u202f"  # narrow no-break space between a number and its unit
_MIN_EPOCH = 1e8  # seconds; smaller stamps count from the start of a machine or simulation


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def seconds(value: Any) -> str:
    """Format a duration in seconds, from ``83 ms`` to ``2 h 05 min``."""
    if not is_number(value):
        return NO_VALUE
    if 0 < value < 0.9995:  # noqa: PLR2004  larger values round to 1000 ms
        return _with_unit(f"{value * 1000:.{1 if value < 0.00995 else 0}f}", "ms")  # noqa: PLR2004
    if value < 119.5:  # noqa: PLR2004  seconds up to two minutes
        return _with_unit(f"{value:.{2 if value < 9.995 else 1}f}", "s")  # noqa: PLR2004
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:  # noqa: PLR2004
        return f"{_with_unit(str(minutes), 'min')} {_with_unit(f'{rest:02d}', 's')}"
    return f"{_with_unit(str(minutes // 60), 'h')} {_with_unit(f'{minutes % 60:02d}', 'min')}"


def size(value: Any) -> str:
    """Format a number of bytes, from ``12 B`` to ``3.4 GB``, in powers of ten."""
    if not is_number(value):
        return NO_VALUE
    number, units = float(value), ["B", "kB", "MB", "GB", "TB"]
    while abs(number) >= 999.5 and len(units) > 1:  # noqa: PLR2004
        number /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or abs(number) >= 99.5 else 1  # noqa: PLR2004
    return _with_unit(f"{number:.{digits}f}", units[0])


def share(value: Any) -> str:
    """Format a share of one as a percentage, with at most one decimal place."""
    if not is_number(value):
        return NO_VALUE
    text = f"{value * 100:.1f}"
    return _with_unit(text.removesuffix(".0"), "%")


def count(value: Any) -> str:
    """Format a count, or a median of counts, with at most one decimal place."""
    if not is_number(value):
        return NO_VALUE
    text = f"{value:,.1f}".removesuffix(".0")
    return text.replace(",", _UNIT_SPACE)


def ratio(value: Any) -> str:
    """Format a score or ratio with two decimal places."""
    return f"{value:.2f}" if is_number(value) else NO_VALUE


def clock(value: Any) -> str:
    """Format a time in a recording, in seconds, as ``0:12.5`` or ``1:02:03``."""
    if not is_number(value):
        return NO_VALUE
    tenths = round(abs(value) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    text = f"{hours}:{minutes:02d}:{second}" if hours else f"{minutes}:{second}"
    return f"−{text}" if value < 0 and tenths else text


def stamp(value: Any) -> str:
    """Format the stamp of an image, in seconds; stamps since 1970 as a date."""
    if not is_number(value):
        return NO_VALUE
    if not _MIN_EPOCH < value < 1e11:  # noqa: PLR2004
        return _with_unit(f"{value:.3f}", "s")
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{_UNIT_SPACE}{unit}"
