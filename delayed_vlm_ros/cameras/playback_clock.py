"""What time it is in a recording that is played."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from delayed_vlm_ros.ingest.timestamps import TimestampMonitor
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of


class PlaybackClock:
    """The time of a recording that is played: its images' stamps, and between two of them it runs on.

    An image is due by the time at which it was recorded; its stamp says what time it is then. Single stamps that are
    late or broken move no time. Where the stamps jump for good, as the memory sees it, a new line of time begins: it
    stands still at its beginning until ``run``.

    Args:
        rate: Recorded seconds that pass in a second.
        steady: A clock that never jumps, seconds.
    """

    def __init__(self, rate: float, steady: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._steady = steady
        self._watch = TimestampMonitor()
        self._began = False
        self._newest_ns = 0  # stamp
        self._reached_ns = -math.inf  # the newest stamp that the time has been set by
        self._ahead_ns = 0  # of the stamps to the times of recording
        self._recorded_ns = 0  # the time of recording that it was or will be when ``_since`` says
        self._since: float | None = None  # None while it stands still
        self._told_ns = 0

    def begins(self, stamp_ns: int, recorded_ns: int) -> bool:
        """Look at the next image; where a line of time begins with it, stand still at its stamp.

        Args:
            stamp_ns: When it was taken, nanoseconds.
            recorded_ns: When it was recorded, nanoseconds.
        """
        jump = self._watch.jump(seconds_of(stamp_ns), seconds_of(recorded_ns))
        if self._began and not jump:
            if jump is not None and stamp_ns > self._newest_ns:
                self._newest_ns = stamp_ns
            return False
        self._began = True
        self._newest_ns = self._told_ns = stamp_ns
        self._recorded_ns = recorded_ns
        self._ahead_ns = stamp_ns - recorded_ns
        self._since = None
        self._reached_ns = stamp_ns
        return True

    def run(self) -> None:
        """Go on from where it stands: the image with which this line of time begins is due."""
        self._since = self._steady()

    def stand(self) -> None:
        """Go no further."""
        self._told_ns = self.now_ns()
        self._since = None

    def seconds_until(self, recorded_ns: int) -> float:
        """How long it takes until an image is due; negative: so much too late."""
        return (recorded_ns - self._recorded_at_present()) / (self._rate * NANOSECONDS_PER_SECOND)

    def delay(self, seconds: float) -> None:
        """Play all that comes so much later."""
        if self._since is not None:
            self._since += seconds

    def reach(self, stamp_ns: int, recorded_ns: int) -> None:
        """It is the time of this image, which is due; stamps that do not advance leave the time running."""
        if self._reached_ns < stamp_ns == self._newest_ns:
            self._reached_ns = stamp_ns
            self._ahead_ns = stamp_ns - recorded_ns

    def now_ns(self) -> int:
        """What time it is, nanoseconds; never less than before on the same line of time."""
        if self._since is not None:
            self._told_ns = max(self._told_ns, self._recorded_at_present() + self._ahead_ns)
        return self._told_ns

    def _recorded_at_present(self) -> int:
        if self._since is None:
            return self._recorded_ns
        return self._recorded_ns + round((self._steady() - self._since) * self._rate * NANOSECONDS_PER_SECOND)
