"""Telling images that are late, or of another clock, from time that has jumped."""

from __future__ import annotations

import math

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

_LATE_SEC = 1.0  # an image may be so much older than the newest one and still only be late
_LEAP_SEC = 5.0  # an image may be so much newer than the time that has passed would have it
_FASTEST = 100.0  # of a recording that is played, or a simulation: times as fast as it was
_SURE_AFTER = 3  # images in a row

_WINDOW_IMAGES = 5  # and both of these before stamps count as standing still
_WINDOW_SEC = 2.0
_LONGEST_GAP_SEC = 1.0  # what a silence adds to a window: images held up by it arrive together, with old stamps
_LEAST_ADVANCE = 0.001  # of the clock's: a recording of one that was played this slowly is not expected

STRAYS_OF_A_JUMP = _SURE_AFTER - 1
"""Images that pass for strays before it is clear that time has jumped."""


class TimestampMonitor:
    """Looks at the stamp of every image of a camera, and says when its time has jumped.

    One image much older than the newest one, or much newer than it can be by now, is a stray: late, with a broken
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
        """Look at an image's stamp.

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


class StampProgress:
    """Detects stamps that stand still while images keep arriving.

    Arriving images are grouped into windows of some images and seconds. Stamps stand still when the newest stamp of a
    window is the newest one of the window before: one constant stamp, or a few that repeat. The clock is the node's
    own, so that a simulation that runs slowly, or is paused, is not mistaken for such a camera.
    """

    def __init__(self) -> None:
        self._before_ns: int | None = None  # the newest stamp of the window before
        self._newest_ns: int | None = None  # of this window
        self._clock_ns = 0  # at the newest image
        self._passed_sec = 0.0
        self._images = 0
        self._still = False

    def stands_still(self, stamp_ns: int, clock_ns: int) -> bool:
        """Look at the next image.

        Args:
            stamp_ns: Its stamp, nanoseconds.
            clock_ns: The node's clock when it arrived, nanoseconds.

        Returns:
            Whether the stamps of the last full window stood still.
        """
        if self._before_ns is None:
            self._before_ns, self._clock_ns = stamp_ns, clock_ns
        gap_sec = (clock_ns - self._clock_ns) / NANOSECONDS_PER_SECOND
        self._passed_sec += min(max(gap_sec, 0.0), _LONGEST_GAP_SEC)
        self._clock_ns = clock_ns
        self._images += 1
        self._newest_ns = stamp_ns if self._newest_ns is None else max(self._newest_ns, stamp_ns)
        if self._images >= _WINDOW_IMAGES and self._passed_sec >= _WINDOW_SEC:
            # A jump back moves, too.
            moved_sec = abs(self._newest_ns - self._before_ns) / NANOSECONDS_PER_SECOND
            self._still = moved_sec < _LEAST_ADVANCE * self._passed_sec
            self._before_ns, self._newest_ns = self._newest_ns, None
            self._passed_sec, self._images = 0.0, 0
        return self._still
