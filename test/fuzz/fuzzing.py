"""Run property tests on generated input and count their cases.

The environment variable FUZZ_CASES is the approximate total number of cases; `make fuzz` sets it.
"""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings

TESTS = 17  # tests that share the cases
CASES: Counter[str] = Counter()
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# A case takes a few milliseconds. This limit detects a hang, even on a busy machine; it does not measure speed.
_HANGS_AFTER = timedelta(seconds=60)


def fuzz(**strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that runs a property test on its share of the cases."""

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
    """Return a damaged copy: some bytes changed, and truncated.

    Args:
        content: Original bytes.
        changes: Position (modulo the length) and new value of each changed byte.
        length: Length of the result; counted from the end if negative, the whole length if 0.
    """
    damaged = bytearray(content)
    for position, value in changes:
        if damaged:
            damaged[position % len(damaged)] = value
    return bytes(damaged[:length] if length else damaged)


def check_message(error: Exception) -> None:
    """Check that an error has a message that may be shown."""
    assert len(str(error)) > 10
    check_text(str(error))


def check_text(text: str) -> None:
    """Check that a terminal shows the text as it is, on one line."""
    assert not CONTROL.search(text), ascii(text)
