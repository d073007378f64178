"""A camera's images by their stamps: which ones its memory takes, and what becomes of it when time goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.ingest.intake import FrameIntake
from delayed_vlm_ros.ingest.sampling import FrameSampler, SampleCheck
from delayed_vlm_ros.ingest.timestamps import StampProgress, TimestampMonitor
from delayed_vlm_ros.memory.frame import KeptPair
from delayed_vlm_ros.memory.manager import AddedFrame
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of


@dataclass(frozen=True, slots=True)
class SampleDecision:
    """An image's place in time.

    Attributes:
        stamp: Its time in the memory, seconds.
        is_due: Whether the memory takes it.
        jump_sec: By how much time has jumped with it, negative for back; 0.0 where it has not.
    """

    stamp: float
    is_due: bool
    jump_sec: float


class FrameFeed:
    """Brings one camera's images into its memory, sampled at a steady rate and through jumps of time.

    An image is decoded only when it is due, so there are three steps: ``usable_stamp`` and ``place`` for every
    image's stamp, and ``add`` for an image that is due. A live camera and a recording that is read
    without ROS go the same way.

    Args:
        intake: The memory's entrance.
        sampler: Chooses the images to remember.
        topic: Where they come from, for what is said about a stray one.
        restarts: Whether the memory begins anew when time goes back; else it goes on as if no time had passed.

    Attributes:
        stamps_missing: Whether the newest image has no stamp.
        stamps_stand_still: Whether stamps have stopped advancing, and the times of arrival are used instead.
        restamped: Images whose time of arrival was used, for either reason.
    """

    def __init__(self, intake: FrameIntake, sampler: FrameSampler, topic: str, *, restarts: bool) -> None:
        self._intake = intake
        self._sampler = sampler
        self._topic = topic
        self._restarts = restarts
        self._watch = TimestampMonitor()
        self._progress = StampProgress()
        self._check = SampleCheck(sampler.sample_fps)
        self.stamps_missing = False
        self.stamps_stand_still = False
        self.restamped = 0
        self._ahead_ns = 0
        self._newest_ns = 0

    @property
    def restarts(self) -> bool:
        """Whether the memory begins anew when time goes back."""
        return self._restarts

    @property
    def ahead_sec(self) -> float:
        """How far the memory's time is ahead of the messages', after time has gone back."""
        return seconds_of(self._ahead_ns)

    @property
    def outcome(self) -> str:
        """What becomes of the memory when time goes back, for people."""
        if self._restarts:
            return "its memory begins anew, without marks"
        return "its memory goes on as if no time had passed"

    @property
    def missed(self) -> int:
        """Images that were due by their times of arrival, but not by their stamps."""
        return self._check.missed

    @property
    def sampled_share(self) -> float | None:
        """Share of the images due by arrival that are due by their stamps; None when they are enough."""
        return self._check.share if self._check.is_missing else None

    def usable_stamp(self, stamp_ns: int, clock_ns: int) -> int:
        """Return the image's stamp, or its time of arrival where stamps are missing or stand still.

        Args:
            stamp_ns: The message's stamp, nanoseconds; 0 when it was not set.
            clock_ns: When it arrived, on the clock that stamps are compared with, nanoseconds.
        """
        self.stamps_missing = stamp_ns == 0
        if not self.stamps_missing:
            self.stamps_stand_still = self._progress.stands_still(stamp_ns, clock_ns)
        if self.stamps_missing or self.stamps_stand_still:
            self.restamped += 1
            return clock_ns
        return stamp_ns

    def place(self, stamp_ns: int, arrival: float, clock_ns: int) -> SampleDecision:
        """Find an image's place in time; when time has gone back, do what is to be done then.

        Args:
            stamp_ns: What ``usable_stamp`` returned, nanoseconds.
            arrival: When it came, in seconds of a steady clock.
            clock_ns: As for ``usable_stamp``.

        Raises:
            ImageError: Its stamp fits neither the present time nor a new one.
        """
        jump = self._watch.jump(seconds_of(stamp_ns), arrival)
        if jump is None:
            raise ImageError(
                f"its stamp {seconds_of(stamp_ns):.3f} s does not follow those before: check the camera's clock, "
                f"and that nobody else publishes on {self._topic}"
            )
        if jump < 0 and self._restarts:
            self.begin_anew()
        elif jump < 0:
            # The newest stamp seen becomes the present one; the sampler's next slot comes a period later.
            self._ahead_ns += round(-jump * NANOSECONDS_PER_SECOND)
        elif jump > 0 and stamp_ns > self._newest_ns:  # if it had gone back, it is right again
            self._ahead_ns = 0
        self._newest_ns = max(self._newest_ns, stamp_ns + self._ahead_ns)
        stamp = seconds_of(stamp_ns + self._ahead_ns)
        is_due = self._sampler.accept(stamp)
        self._check.count(seconds_of(clock_ns), is_due=is_due)
        return SampleDecision(stamp, is_due, jump)

    def add(self, image: Any, place: SampleDecision, source: Any = None) -> AddedFrame:
        """Remember an image that is due.

        Raises:
            ImageError: It cannot be used; nothing has changed.
        """
        return self._intake.add(image, place.stamp, source)

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Take in the key frames of an earlier memory: what comes now is expected behind them, however much later.

        Images older than that mean that time has gone back, as at any other time.

        Args:
            pairs: As for `FrameIntake.restore`.

        Raises:
            ValueError: The memory is not empty.
        """
        self._intake.restore(pairs)
        newest = self._intake.frame_manager.newest_stamp
        if newest is not None:
            self._watch.expect_after(newest)
            self._sampler.accept(newest)

    def sample_at(self, fps: float) -> None:
        """Remember so many frames per second from now on."""
        self._sampler.set_rate(fps)
        self._check.set_rate(fps)

    def begin_anew(self) -> None:
        """Forget every frame; the present time stays."""
        self._intake.reset()
        self._sampler.reset()
        self._check.reset()
        self._ahead_ns = self._newest_ns = 0

    def reset(self) -> None:
        """Forget every frame and stamp: the next image is remembered, whatever its stamp."""
        self.begin_anew()
        self._watch.reset()
