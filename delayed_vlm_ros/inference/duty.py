"""A limit on the share of the device's time that work takes which nobody waits for."""

from __future__ import annotations


class DutyLimit:
    """Limits a kind of work to a share of the time of a device: after it, the device rests for the remaining share.

    Args:
        max_duty: Largest share, above 0 and up to 1.
    """

    def __init__(self, max_duty: float) -> None:
        self._max_duty = max_duty
        self._rests_until = 0.0

    @property
    def rests_until(self) -> float:
        """Time at which the work may start again, in seconds on the same clock."""
        return self._rests_until

    def allows(self, now: float) -> bool:
        """Return whether the work may start now."""
        return now >= self._rests_until

    def add(self, seconds: float, now: float) -> None:
        """Count work that has just ended.

        Args:
            seconds: How long it took.
            now: Present time, in seconds on a steady clock.
        """
        rest_sec = seconds * (1.0 / self._max_duty - 1.0)
        self._rests_until = max(now, self._rests_until) + rest_sec
