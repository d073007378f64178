"""Telling late pictures from a clock that was set back."""

from __future__ import annotations

import math

_LATE_SEC = 1.0  # a picture may be so much older than the newest one and still only be late
_SURE_AFTER = 3  # pictures in a row


class StampWatch:
    """Looks at the stamp of every picture of a camera, and says when its time has gone back.

    One old picture is late, or comes from another camera on the same topic. Time has gone back when several in a row
    are older than the newest one by more than a second, each newer than the one before it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all stamps."""
        self._newest = -math.inf
        self._last_behind = math.inf
        self._behind = 0

    def went_back(self, stamp: float) -> float | None:
        """Look at a picture's stamp.

        Args:
            stamp: When it was taken, seconds.

        Returns:
            By how many seconds time has gone back, once for each time it has; None where it has not.
        """
        if stamp > self._newest - _LATE_SEC:
            self._newest = max(self._newest, stamp)
            self._behind = 0
            return None
        self._behind = self._behind + 1 if self._behind and stamp > self._last_behind else 1
        self._last_behind = stamp
        if self._behind < _SURE_AFTER:
            return None
        back = self._newest - stamp
        self.reset()
        self._newest = stamp
        return back
