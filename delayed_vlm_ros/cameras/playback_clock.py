"""Clock of a recording during playback."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from delayed_vlm_ros.ingest.timestamps import TimestampMonitor
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of


class PlaybackClock:
    """Follows the stamps of the images that are played, and runs on between them.

    An image is due at its recording time, and its stamp sets the clock. Single late or broken stamps do not. When the
    stamps jump for good, as ``TimestampMonitor`` detects it, a new timeline begins: the clock pauses at its first stamp
    until ``resume()``.

    Args:
        rate: Playback speed relative to real time.
        steady: Steady clock, in seconds.
    """

    def __init__(self, rate: float, steady: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._steady = steady
        self._monitor = TimestampMonitor()
        self._has_timeline = False
        self._newest_ns = 0  # newest stamp
        self._set_by_ns: float = -math.inf  # newest stamp that has set the clock
        self._offset_ns = 0  # stamp minus recording time
        self._recorded_ns = 0  # recording time at ``_resumed_at``
        self._resumed_at: float | None = None  # on the steady clock; None while paused
        self._now_ns = 0

    def begins_timeline(self, stamp_ns: int, recorded_ns: int) -> bool:
        """Check the next image; if a timeline begins with it, pause the clock at its stamp and return True.

        Args:
            stamp_ns: Acquisition time of the image, in nanoseconds.
            recorded_ns: Recording time of the image, in nanoseconds.
        """
        jump_sec = self._monitor.update(seconds_of(stamp_ns), seconds_of(recorded_ns))
        if self._has_timeline and not jump_sec:
            is_outlier = jump_sec is None
            if not is_outlier and stamp_ns > self._newest_ns:
                self._newest_ns = stamp_ns
            return False
        self._has_timeline = True
        self._newest_ns = self._now_ns = stamp_ns
        self._recorded_ns = recorded_ns
        self._offset_ns = stamp_ns - recorded_ns
        self._resumed_at = None
        self._set_by_ns = stamp_ns
        return True

    def resume(self) -> None:
        """Start the clock at the first image of the timeline, which is due now."""
        self._resumed_at = self._steady()

    def pause(self) -> None:
        """Stop the clock."""
        self._now_ns = self.now_ns()
        self._resumed_at = None

    def seconds_until(self, due: int) -> float:
        """Return the seconds until an image is due; negative if it is late.

        Args:
            due: Recording time of the image, in nanoseconds.
        """
        return (due - self._recorded_now()) / (self._rate * NANOSECONDS_PER_SECOND)

    def delay(self, seconds: float) -> None:
        """Postpone all later images."""
        if self._resumed_at is not None:
            self._resumed_at += seconds

    def set_to(self, stamp_ns: int, recorded_ns: int) -> None:
        """Set the clock to an image that is due; a stamp that does not advance leaves the clock running."""
        if self._set_by_ns < stamp_ns == self._newest_ns:
            self._set_by_ns = stamp_ns
            self._offset_ns = stamp_ns - recorded_ns

    def now_ns(self) -> int:
        """Return the current time in nanoseconds. It never decreases within a timeline."""
        if self._resumed_at is not None:
            self._now_ns = max(self._now_ns, self._recorded_now() + self._offset_ns)
        return self._now_ns

    def _recorded_now(self) -> int:
        if self._resumed_at is None:
            return self._recorded_ns
        elapsed_sec = self._steady() - self._resumed_at
        return self._recorded_ns + round(elapsed_sec * self._rate * NANOSECONDS_PER_SECOND)
