"""Numbers as people read them: with a unit that suits their size."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any, TypeGuard

NOTHING = "–"
_BLANK = "\u202f"  # narrow and without a line break, between a number and its unit
_PROBABLY_EPOCH = 1e8  # seconds; an earlier stamp counts from a machine's or a simulation's start


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that can be shown and computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def seconds(value: Any) -> str:
    """A duration, from ``83 ms`` to ``2 h 05 min``."""
    if not is_number(value):
        return NOTHING
    if 0 < value < 0.9995:  # noqa: PLR2004  what rounds to 1000 ms is a second
        return _with_unit(f"{value * 1000:.{1 if value < 0.00995 else 0}f}", "ms")  # noqa: PLR2004
    if value < 119.5:  # noqa: PLR2004  two minutes are still told apart in seconds
        return _with_unit(f"{value:.{2 if value < 9.995 else 1}f}", "s")  # noqa: PLR2004
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:  # noqa: PLR2004
        return f"{_with_unit(str(minutes), 'min')} {_with_unit(f'{rest:02d}', 's')}"
    return f"{_with_unit(str(minutes // 60), 'h')} {_with_unit(f'{minutes % 60:02d}', 'min')}"


def size(value: Any) -> str:
    """Bytes, from ``12 B`` to ``3.4 GB``, in powers of ten."""
    if not is_number(value):
        return NOTHING
    number, units = float(value), ["B", "kB", "MB", "GB", "TB"]
    while abs(number) >= 999.5 and len(units) > 1:  # noqa: PLR2004
        number /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or abs(number) >= 99.5 else 1  # noqa: PLR2004
    return _with_unit(f"{number:.{digits}f}", units[0])


def share(value: Any) -> str:
    """A share of one as per cent; the decimal place only where it says something."""
    if not is_number(value):
        return NOTHING
    text = f"{value * 100:.1f}"
    return _with_unit(text.removesuffix(".0"), "%")


def count(value: Any) -> str:
    """A number of things; a median may lie between two."""
    if not is_number(value):
        return NOTHING
    text = f"{value:,.1f}".removesuffix(".0")
    return text.replace(",", _BLANK)


def ratio(value: Any) -> str:
    """A score or ratio with two places."""
    return f"{value:.2f}" if is_number(value) else NOTHING


def clock(value: Any) -> str:
    """A moment of a recording: ``0:12.5``, ``1:02:03``."""
    if not is_number(value):
        return NOTHING
    tenths = round(abs(value) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    second = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    text = f"{hours}:{minutes:02d}:{second}" if hours else f"{minutes}:{second}"
    return f"−{text}" if value < 0 and tenths else text


def stamp(value: Any) -> str:
    """An image's time stamp, as a date where it is one."""
    if not is_number(value):
        return NOTHING
    if not _PROBABLY_EPOCH < value < 1e11:  # noqa: PLR2004
        return _with_unit(f"{value:.3f}", "s")
    return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _with_unit(number: str, unit: str) -> str:
    return f"{number}{_BLANK}{unit}"
