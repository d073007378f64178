"""Telling pictures that are late, or of another clock, from time that has jumped."""

from __future__ import annotations

import math

_LATE_SEC = 1.0  # a picture may be so much older than the newest one and still only be late
_LEAP_SEC = 5.0  # a picture may be so much newer than the time that has passed would have it
_FASTEST = 100.0  # of a recording that is played, or a simulation: times as fast as it was
_SURE_AFTER = 3  # pictures in a row

STRAYS_OF_A_JUMP = _SURE_AFTER - 1
"""Pictures that pass for strays before it is clear that time has jumped."""


class StampWatch:
    """Looks at the stamp of every picture of a camera, and says when its time has jumped.

    One picture much older than the newest one, or much newer than it can be by now, is a stray: late, with a broken
    stamp, or from another publisher on the same topic. Time has jumped when several in a row are strays to the same
    side, each newer than the one before it, and none of the present time comes between.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all stamps: the next one is believed."""
        self._newest = -math.inf
        self._newest_came = 0.0
        self._stray = 0.0  # the last one's stamp
        self._strays = 0  # in a row

    def expect_after(self, stamp: float) -> None:
        """Believe a stamp of long ago, in seconds: what comes may be any time newer, and older is time gone back."""
        self._believe(stamp, -math.inf)

    def jump(self, stamp: float, arrival: float) -> float | None:
        """Look at a picture's stamp.

        Args:
            stamp: When it was taken, seconds.
            arrival: When it came, in seconds of a steady clock: a camera that was silent for an hour may be an hour on.

        Returns:
            By how many seconds time has jumped, once for each time it has, negative for back; 0.0 where it has not;
            None for a stray.
        """
        ahead = stamp - self._newest
        if math.isinf(ahead) or -_LATE_SEC < ahead <= _LEAP_SEC + _FASTEST * (arrival - self._newest_came):
            self._believe(max(stamp, self._newest), arrival)
            return 0.0
        goes_on = self._strays and stamp > self._stray and (self._stray > self._newest) == (ahead > 0)
        self._strays = self._strays + 1 if goes_on else 1
        self._stray = stamp
        if self._strays < _SURE_AFTER:
            return None
        self._believe(stamp, arrival)
        return ahead

    def _believe(self, newest: float, arrival: float) -> None:
        self._newest = newest
        self._newest_came = arrival
        self._strays = 0
