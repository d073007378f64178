"""Sample frames at a steady rate from a faster camera stream."""

from __future__ import annotations

import math

from delayed_vlm_ros.errors import ConfigurationError, ImageError

# Share of a period by which an image may precede its slot: with jitter, the next image may come much too late.
_EARLY_SHARE = 0.1
# Smallest gap between two sampled images, as a share of a period: a late image may be close to the next slot.
_MIN_GAP_SHARE = 0.5

_COMPARISON_IMAGES = 20  # images due by arrival time in one comparison of SampleCheck
_LOW_SHARE = 0.6  # of these due by stamp: images that are late for some seconds do not point to a clock fault


class FrameSampler:
    """Decides for each image of a camera, by its stamp, whether it belongs to the sample.

    Slots are one period apart, and the first image at (or slightly before) a slot is sampled. Slots do not move with
    the images that fill them, so jitter does not accumulate and the long-run rate is exact. Two sampled images are at
    most one period plus one input interval apart, and at least half a period. From a camera slower than the rate, every
    image is sampled. After a pause, slots restart at the first image.

    Args:
        sample_fps: Rate of the sample, in frames per second.

    Attributes:
        sample_fps: Current rate of the sample, in frames per second.

    Raises:
        ConfigurationError: ``sample_fps`` is not a positive finite number.
    """

    def __init__(self, sample_fps: float) -> None:
        self._last = -math.inf
        self.set_rate(sample_fps)
        self.reset()

    def set_rate(self, sample_fps: float) -> None:
        """Change the rate; the next slot is a new period after the last sampled image.

        Raises:
            ConfigurationError: ``sample_fps`` is not a positive finite number.
        """
        if not (math.isfinite(sample_fps) and sample_fps > 0):
            raise ConfigurationError(f"sample_fps must be a positive finite number, got {sample_fps}")
        self.sample_fps = sample_fps
        self._period = 1.0 / sample_fps
        self._due = self._last + self._period

    def reset(self) -> None:
        """Drop all stamps: the next image is sampled."""
        self._last = -math.inf
        self._due = -math.inf
        self._last_backward = math.inf

    def accept(self, stamp: float) -> bool:
        """Return whether to sample an image, and count it if so.

        A stamp more than a period before the last sampled one (a clock set back, a restarted bag) is accepted, so that
        the memory rejects and counts it. At most one such stamp per period is accepted, to avoid decoding every image
        that the memory will reject.

        Args:
            stamp: Acquisition time of the image, in seconds.

        Raises:
            ImageError: The stamp is not a finite number.
        """
        if not math.isfinite(stamp):
            raise ImageError(f"image stamp must be a finite time in seconds, got {stamp}: check the camera's clock")
        if stamp < self._last - self._period:
            if abs(stamp - self._last_backward) < self._period:
                return False
            self._last_backward = stamp
            return True
        earliest = max(self._due - _EARLY_SHARE * self._period, self._last + _MIN_GAP_SHARE * self._period)
        if stamp < earliest:
            return False
        slot_missed = stamp >= self._due + self._period
        self._due = (stamp if slot_missed else self._due) + self._period
        self._last = stamp
        self._last_backward = math.inf
        return True


class SampleCheck:
    """Counts images that their stamps keep out of the sample, by sampling the arrival times as well.

    With stamps of a slow clock, or of whole seconds, fewer images are due by stamp than by arrival time. With correct
    stamps both counts are about equal at any camera rate; when images are delayed and then arrive together, more are
    due by stamp.

    Args:
        sample_fps: Rate of the sample, in frames per second.

    Attributes:
        missed: Number of images that were due by arrival time but not by stamp.
        share: Share of the images due by arrival time that were due by stamp, in the last comparison; 1.0 before it.
    """

    def __init__(self, sample_fps: float) -> None:
        self._arrivals = FrameSampler(sample_fps)
        self.missed = 0
        self.share = 1.0
        self._due = self._expected = 0

    @property
    def is_low(self) -> bool:
        """Whether the last comparison found too few images due by stamp."""
        return self.share < _LOW_SHARE

    def set_rate(self, sample_fps: float) -> None:
        """Change the rate and restart the comparison."""
        self._arrivals.set_rate(sample_fps)
        self._due = self._expected = 0

    def reset(self) -> None:
        """Restart the comparison; keep ``missed``."""
        self._arrivals.reset()
        self._due = self._expected = 0
        self.share = 1.0

    def count(self, clock_sec: float, *, is_due: bool) -> None:
        """Count one image.

        Args:
            clock_sec: Arrival time on the node's clock, in seconds.
            is_due: Whether the image is due by its stamp.
        """
        self._due += is_due
        self._expected += self._arrivals.accept(clock_sec)
        if self._expected < _COMPARISON_IMAGES:
            return
        self.share = self._due / self._expected
        if self.is_low:
            self.missed += self._expected - self._due
        self._due = self._expected = 0
