"""Picking frames at a steady rate out of a faster camera stream."""

from __future__ import annotations

import math

from delayed_vlm_ros.errors import ConfigurationError, ImageError

# An image this share of a period before its slot is taken: with jitter, the next one may come much too late.
_EARLY_SHARE = 0.1
# A late image must not be followed at once by the one that is due at its own slot.
_SHORTEST_GAP_SHARE = 0.5

_COMPARED = 20  # images due by their arrival, before the two ways of sampling are compared
_ENOUGH_SHARE = 0.6  # of these due by their stamps: images that are late for some seconds are no fault of the clock


class FrameSampler:
    """Says of each image of a camera, by its stamp, whether it belongs to the sample.

    Slots lie one period apart, and the first image at (or a little before) each slot is taken. As slots do not move
    with the images that filled them, jitter does not add up: the long-run rate is exact. Two images taken are
    never further apart than a period plus the interval between two input images, nor closer than half a period. A
    camera slower than the rate is taken whole. After a pause the slots start again from the first image.

    Args:
        sample_fps: Rate of the sample, frames per second.

    Attributes:
        sample_fps: The present rate.

    Raises:
        ConfigurationError: `sample_fps` is not a positive finite number.
    """

    def __init__(self, sample_fps: float) -> None:
        self._last = -math.inf
        self.set_rate(sample_fps)
        self.reset()

    def set_rate(self, sample_fps: float) -> None:
        """Take so many frames per second from now on: the next slot lies a new period after the last image taken.

        Raises:
            ConfigurationError: `sample_fps` is not a positive finite number.
        """
        if not (math.isfinite(sample_fps) and sample_fps > 0):
            raise ConfigurationError(f"sample_fps must be a positive number of frames per second, got {sample_fps}")
        self.sample_fps = sample_fps
        self._period = 1.0 / sample_fps
        self._due = self._last + self._period

    def reset(self) -> None:
        """Forget all stamps: the next image is taken."""
        self._last = -math.inf
        self._due = -math.inf
        self._last_backward = math.inf

    def accept(self, stamp: float) -> bool:
        """Decide about one image, and count it if it is taken.

        A stamp more than a period before the last one taken (a clock set back, a bag played again) is not for the
        sampler to judge. It passes, so that the memory refuses it and counts that, but no more often than one per
        period of such stamps, so that refused images are not all decoded first.

        Args:
            stamp: When the image was taken, seconds.

        Returns:
            Whether to take it.

        Raises:
            ImageError: The stamp is not a finite number.
        """
        if not math.isfinite(stamp):
            raise ImageError(f"the image's stamp is {stamp}, not a time in seconds: check the camera's clock")
        if stamp < self._last - self._period:
            if abs(stamp - self._last_backward) < self._period:
                return False
            self._last_backward = stamp
            return True
        earliest = max(self._due - _EARLY_SHARE * self._period, self._last + _SHORTEST_GAP_SHARE * self._period)
        if stamp < earliest:
            return False
        missed_a_slot = stamp >= self._due + self._period
        self._due = (stamp if missed_a_slot else self._due) + self._period
        self._last = stamp
        self._last_backward = math.inf
        return True


class SampleCheck:
    """Counts the images that stamps keep out of the sample, by sampling the times of arrival as well.

    Stamps of a slow clock, or of whole seconds, make fewer images due than arrive in time to be so. Stamps and
    arrivals of a correct camera make about as many images due, at any rate of the camera; when arrivals are delayed
    and then come together, by their stamps more are due.

    Args:
        sample_fps: Rate of the sample, frames per second.

    Attributes:
        missed: Images that were due by their times of arrival, but not by their stamps.
        share: Share of the images due by arrival that were due by their stamps, in the last comparison; 1.0 before.
    """

    def __init__(self, sample_fps: float) -> None:
        self._arrivals = FrameSampler(sample_fps)
        self.missed = 0
        self.share = 1.0
        self._due = self._expected = 0

    @property
    def is_missing(self) -> bool:
        """Whether the last comparison found too few images due by their stamps."""
        return self.share < _ENOUGH_SHARE

    def set_rate(self, sample_fps: float) -> None:
        """Compare at another rate from now on."""
        self._arrivals.set_rate(sample_fps)
        self._due = self._expected = 0

    def reset(self) -> None:
        """Begin a new comparison; the count stays."""
        self._arrivals.reset()
        self._due = self._expected = 0
        self.share = 1.0

    def count(self, clock_sec: float, *, is_due: bool) -> None:
        """Count one image.

        Args:
            clock_sec: The node's clock when it arrived, seconds.
            is_due: Whether it is due by its stamp.
        """
        self._due += is_due
        self._expected += self._arrivals.accept(clock_sec)
        if self._expected < _COMPARED:
            return
        self.share = self._due / self._expected
        if self.is_missing:
            self.missed += self._expected - self._due
        self._due = self._expected = 0
