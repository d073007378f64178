"""Properties that hold for whatever comes: how many cases each of them gets, and counting them.

FUZZ_CASES (environment) is about how many there are in all; `make fuzz` sets it.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings

TESTS = 11  # that share the cases
CASES: Counter[str] = Counter()

# A case takes a few milliseconds. This is no measure of speed, but what passes for hanging, on the busiest machine.
_HANGS_AFTER = timedelta(seconds=60)


def fuzz(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of a property on its share of the cases."""

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def counted(**values: Any) -> None:
            CASES[test.__name__] += 1
            test(**values)

        share = max(1, int(os.environ.get("FUZZ_CASES", "3000")) // TESTS)
        limits = settings(
            max_examples=share,
            deadline=_HANGS_AFTER,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        )
        return limits(given(**strategies)(counted))

    return decorated


def flipped(content: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    """Bytes with some of them changed, cut off at a length.

    Args:
        content: The bytes.
        changes: Position, taken around the end, and new value of each.
        length: How many are left; counted from the end where negative.
    """
    damaged = bytearray(content)
    for position, value in changes:
        if damaged:
            damaged[position % len(damaged)] = value
    return bytes(damaged[:length] if length else damaged)


def check_told(error: Exception) -> None:
    """Check that an error says something to its reader."""
    assert len(str(error)) > 10
