"""Detect time jumps, outliers and frozen stamps in the time stamps of a camera."""

from __future__ import annotations

import math

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

_MAX_DELAY_SEC = 1.0  # an image this much older than the newest one is merely late
_MAX_LEAD_SEC = 5.0  # tolerance for images newer than the elapsed time allows
_MAX_PLAYBACK_SPEED = 100.0  # of a recording or a simulation, relative to real time; assumed until it is measured
_SPEED_WINDOW_SEC = 5.0  # shortest time over which the speed is measured: delayed images may arrive together
_SPEED_TOLERANCE = 1.5
_IMAGES_OF_A_JUMP = 3  # consecutive outliers that make a jump

_WINDOW_IMAGES = 5  # minimum number of images in a window of FrozenStampDetector
_WINDOW_SEC = 2.0  # minimum length of a window
_MAX_GAP_SEC = 1.0  # contribution of a silence to a window: images delayed by it arrive together, with old stamps
_MAX_REPEATED_STAMPS = 5  # different stamps that repeat in a window of frozen stamps
_MIN_ADVANCE = 0.001  # of the clock's advance; slower playback of a recording is not expected

LONGEST_GAP_SEC = 365 * 86400.0
"""Longest time between two images, in seconds; more is a clock that was set, even if arrival times show the same."""

OUTLIERS_BEFORE_JUMP = _IMAGES_OF_A_JUMP - 1
"""Number of images that count as outliers before a time jump is certain."""


class TimestampMonitor:
    """Checks the stamp of every image of a camera and detects time jumps.

    Stamps may advance by as much as the arrival times do, at the speed of the playback: after an hour of silence, a
    stamp may be an hour newer. Images that were queued during an outage arrive after it with old stamps, so each stamp
    is compared with the least delayed image so far, not only with the last one.

    A single image that is much older than the newest one, or newer than the elapsed time allows, is an outlier: it is
    late, has a broken stamp, or comes from another publisher on the topic. Several consecutive outliers on the same
    side, each newer than the last, are a time jump.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Drop all stamps: the next one is the new baseline."""
        self._newest = -math.inf
        self._newest_arrival = 0.0
        self._undelayed = -math.inf  # stamp that an image with the smallest delay so far has at the newest arrival
        self._outlier = 0.0  # stamp of the last outlier
        self._outliers = 0  # consecutive ones
        self._speed = 1.0  # of the playback
        self._largest_speed = _MAX_PLAYBACK_SPEED
        self._speed_since: tuple[float, float, float] | None = None  # newest, undelayed, arrival: start of measurement

    def expect_after(self, stamp: float) -> None:
        """Accept an old stamp, in seconds, as the baseline.

        Later stamps are valid, however late; earlier ones mean that the clock went backward.
        """
        self._accept(stamp, -math.inf)

    def update(self, stamp: float, arrival: float) -> float | None:
        """Check the stamp of the next image.

        Args:
            stamp: Acquisition time, in seconds.
            arrival: Arrival time on a steady clock, in seconds.

        Returns:
            Size of the time jump in seconds, once per jump, negative for backward; 0.0 without a jump; None for an
            outlier. The size is the change of the camera's clock: a silence before the jump does not count, even if
            queued images arrived after it.
        """
        lead = stamp - self._newest
        elapsed = max(0.0, arrival - self._newest_arrival)
        if math.isinf(lead) or -_MAX_DELAY_SEC < lead <= self._largest_lead(elapsed):
            undelayed = self._undelayed + (self._speed * elapsed if elapsed <= LONGEST_GAP_SEC else 0.0)
            self._accept(max(stamp, self._newest), arrival, undelayed)
            self._measure_speed()
            return 0.0
        is_same_side = (self._outlier > self._newest) == (lead > 0)
        continues = self._outliers > 0 and stamp > self._outlier and is_same_side
        self._outliers = self._outliers + 1 if continues else 1
        self._outlier = stamp
        if self._outliers < _IMAGES_OF_A_JUMP:
            return None
        silence = elapsed if elapsed <= LONGEST_GAP_SEC else 0.0
        if lead > 0:
            silence += self._undelayed - self._newest
        self._accept(stamp, arrival)
        self._speed_since = None
        return lead - (silence if silence > _MAX_DELAY_SEC else 0.0)

    def _largest_lead(self, elapsed: float) -> float:
        """Return how much newer than the newest one a stamp may be; after restored frames, any time may have passed."""
        if math.isinf(elapsed):
            return math.inf
        delay = self._undelayed - self._newest
        return min(_MAX_LEAD_SEC + delay + self._largest_speed * elapsed, LONGEST_GAP_SEC)

    def _measure_speed(self) -> None:
        """Measure the speed of playback once per window. Images that catch up after an outage are not fast playback."""
        now = (self._newest, self._undelayed, self._newest_arrival)
        if self._speed_since is None or self._newest_arrival < self._speed_since[-1]:
            self._speed_since = now
        newest, undelayed, elapsed = (end - start for end, start in zip(now, self._speed_since, strict=True))
        if elapsed >= _SPEED_WINDOW_SEC:
            self._speed = min(max(1.0, min(newest, undelayed) / elapsed), _MAX_PLAYBACK_SPEED)
            self._largest_speed = _SPEED_TOLERANCE * self._speed
            self._speed_since = now

    def _accept(self, newest: float, arrival: float, undelayed: float = -math.inf) -> None:
        self._newest = newest
        self._newest_arrival = arrival
        self._undelayed = max(newest, undelayed)
        self._outliers = 0


class FrozenStampDetector:
    """Detects stamps that stop advancing while images keep arriving.

    Images are grouped into windows of a minimum number and duration. Stamps are frozen when the newest stamp of a
    window has hardly advanced since the window before, and the window holds only a few different stamps or covers
    hardly any time: one constant stamp, a few repeated ones, or a counter of another unit. A single far-off stamp among
    good ones, or a short recording in a loop, is not frozen. Durations are on the node's own clock, so a slow or paused
    simulation does not look like frozen stamps.
    """

    def __init__(self) -> None:
        self._previous_ns: int | None = None  # newest stamp of the previous window
        self._stamps_ns: set[int] = set()  # of this window
        self._clock_ns = 0  # at the newest image
        self._elapsed_sec = 0.0
        self._images = 0
        self._frozen = False

    def update(self, stamp_ns: int, clock_ns: int) -> bool:
        """Count the next image; return whether the stamps of the last complete window were frozen.

        Args:
            stamp_ns: Stamp of the image, in nanoseconds.
            clock_ns: Arrival time on the node's clock, in nanoseconds.
        """
        if self._previous_ns is None:
            self._previous_ns, self._clock_ns = stamp_ns, clock_ns
        gap_sec = (clock_ns - self._clock_ns) / NANOSECONDS_PER_SECOND
        self._elapsed_sec += min(max(gap_sec, 0.0), _MAX_GAP_SEC)
        self._clock_ns = clock_ns
        self._images += 1
        self._stamps_ns.add(stamp_ns)
        if self._images >= _WINDOW_IMAGES and self._elapsed_sec >= _WINDOW_SEC:
            newest_ns, required_ns = max(self._stamps_ns), _MIN_ADVANCE * self._elapsed_sec * NANOSECONDS_PER_SECOND
            # A backward jump is movement, too.
            has_advanced = abs(newest_ns - self._previous_ns) >= required_ns
            is_narrow = newest_ns - min(self._stamps_ns) < required_ns
            repeats = len(self._stamps_ns) <= min(_MAX_REPEATED_STAMPS, self._images // 2)
            self._frozen = not has_advanced and (is_narrow or repeats)
            self._previous_ns, self._stamps_ns = newest_ns, set()
            self._elapsed_sec, self._images = 0.0, 0
        return self._frozen
