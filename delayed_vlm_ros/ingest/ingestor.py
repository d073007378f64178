"""Add camera images to a memory.

``FrameIngestor`` resizes and adds every image. ``SamplingIngestor`` also decides by time stamp which images to add, and
handles missing, frozen and jumping stamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.sampling import FrameSampler, SampleCheck
from delayed_vlm_ros.ingest.timestamps import FrozenStampDetector, TimestampMonitor
from delayed_vlm_ros.memory.frame import KeptPair
from delayed_vlm_ros.memory.grid import Grid, as_rgb_array, letterbox
from delayed_vlm_ros.memory.manager import AddedFrame, SmartFrameManager
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of

CONTINUES = "the memory continues as if no time had passed"
"""Effect of a time jump that does not empty the memory, for log messages and reports."""

_RIGHT_AGAIN_SEC = 5.0  # a clock this close to the memory's time is right again


class FrameIngestor:
    """Resizes the images of one camera to one grid and adds them to a memory.

    The first image sets the grid, which holds until ``reset``: all kept frames have one shape, so the model reads them
    as one video. Images of another shape are letterboxed.

    Args:
        geometry: Image sizes that the model accepts.
        frame_manager: The memory.
    """

    def __init__(self, geometry: FrameGeometry, frame_manager: SmartFrameManager) -> None:
        self._geometry = geometry
        self.frame_manager = frame_manager
        self._grid: Grid | None = None

    @property
    def grid(self) -> Grid | None:
        """Size of the kept frames; None before the first image."""
        return self._grid

    def add(self, image: Any, stamp: float, source: Any = None) -> AddedFrame:
        """Resize an image and add it to the memory.

        Args:
            image: RGB uint8 array of shape (H, W, 3) or PIL image, of any size.
            stamp: Acquisition time in seconds; must be newer than the newest kept stamp.
            source: Object kept with the frame.

        Raises:
            ImageError: The image cannot be used; nothing has changed.
            StampOrderError: The stamp is not newer than the newest kept one; nothing has changed.
        """
        image = as_rgb_array(image)
        grid = self._grid or self._geometry.grid_for(*image.shape[:2])
        added = self.frame_manager.add(letterbox(image, grid), stamp, source)
        self._grid = grid
        return added

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Load key frames of an earlier run into the empty memory; their size becomes the grid.

        Args:
            pairs: Pairs for ``SmartFrameManager.restore``, of a size that the geometry allows.

        Raises:
            ValueError: The memory is not empty.
        """
        self.frame_manager.restore(pairs)
        if pairs:
            height, width = pairs[0].pair.first.image.shape[:2]
            self._grid = Grid(height, width)

    def reset(self) -> None:
        """Drop every frame and the grid."""
        self.frame_manager.reset()
        self._grid = None


@dataclass(frozen=True, slots=True)
class SampleDecision:
    """The outcome of ``SamplingIngestor.decide`` for one image.

    Attributes:
        stamp: Time of the image in the memory, in seconds.
        is_due: Whether to add the image.
        jump_sec: Size of the time jump at this image, in seconds; negative is backward, 0.0 is no jump.
    """

    stamp: float
    is_due: bool
    jump_sec: float


class SamplingIngestor:
    """Adds the images of one camera to a memory at a steady rate and handles their time stamps.

    An image is decoded only when it is due. Call ``usable_stamp`` and ``decide`` for the stamp of every image, then
    ``add`` for each image that is due. Live cameras and recordings use the same calls.

    Args:
        geometry: Image sizes that the model accepts.
        frame_manager: The memory.
        sample_fps: Frames per second to add.
        topic: Image source, for error messages.
        restart_on_jump: Whether a backward time jump empties the memory. Otherwise, and after a forward jump, the
            memory keeps its frames and counts later images on from the newest one.

    Attributes:
        stamps_missing: Whether the newest image has no stamp.
        stamps_frozen: Whether stamps have stopped advancing; arrival times are used instead.
        images_restamped: Number of images that got their arrival time as stamp.

    Raises:
        ConfigurationError: ``sample_fps`` is not a positive finite number.
    """

    def __init__(
        self,
        geometry: FrameGeometry,
        frame_manager: SmartFrameManager,
        sample_fps: float,
        *,
        topic: str,
        restart_on_jump: bool,
    ) -> None:
        self._ingestor = FrameIngestor(geometry, frame_manager)
        self._sampler = FrameSampler(sample_fps)
        self._check = SampleCheck(sample_fps)
        self._topic = topic
        self._restart_on_jump = restart_on_jump
        self._monitor = TimestampMonitor()
        self._frozen_stamps = FrozenStampDetector()
        self.stamps_missing = False
        self.stamps_frozen = False
        self.images_restamped = 0
        self._offset_ns = 0
        self._newest_ns = 0
        self._follows_restore = False  # no image with a right clock has followed the restored frames yet

    @property
    def restart_on_jump(self) -> bool:
        """Whether a backward time jump empties the memory."""
        return self._restart_on_jump

    @property
    def offset_sec(self) -> float:
        """Seconds that the memory adds to stamps since time jumped: positive backward, negative forward, 0.0 before."""
        return seconds_of(self._offset_ns)

    @property
    def backward_jump_effect(self) -> str:
        """Effect of a backward time jump on the memory, for log messages and reports."""
        if self._restart_on_jump:
            return "the memory is emptied, marked frames included"
        return CONTINUES

    @property
    def images_missed(self) -> int:
        """Number of images that were due by arrival time but not by stamp."""
        return self._check.missed

    @property
    def sampled_share(self) -> float | None:
        """Share of the images due by arrival time that are also due by stamp; None while it is high enough."""
        return self._check.share if self._check.is_low else None

    def usable_stamp(self, stamp_ns: int, clock_ns: int) -> int:
        """Return the stamp of an image, or its arrival time where stamps are missing or frozen.

        Args:
            stamp_ns: Stamp of the message, in nanoseconds; 0 if it was not set.
            clock_ns: Arrival time on the clock that stamps are compared with, in nanoseconds.
        """
        self.stamps_missing = stamp_ns == 0
        if not self.stamps_missing:
            self.stamps_frozen = self._frozen_stamps.update(stamp_ns, clock_ns)
        if self.stamps_missing or self.stamps_frozen:
            self.images_restamped += 1
            return clock_ns
        return stamp_ns

    def decide(self, stamp_ns: int, arrival: float, clock_ns: int) -> SampleDecision:
        """Decide whether to sample an image; handle time jumps.

        Args:
            stamp_ns: Return value of ``usable_stamp``, in nanoseconds.
            arrival: Arrival time on a steady clock, in seconds.
            clock_ns: Arrival time as for ``usable_stamp``, in nanoseconds.

        Raises:
            ImageError: The stamp is an outlier.
        """
        jump = self._monitor.update(seconds_of(stamp_ns), arrival)
        if jump is None:
            raise ImageError(
                f"stamp {seconds_of(stamp_ns):.3f} s is out of sequence: check the camera's clock, and that "
                f"{self._topic} has one publisher"
            )
        if jump < 0 and self._restart_on_jump:
            self.restart()
        elif jump:
            self._remove_jump(jump, stamp_ns)
        elif not self._offset_ns:
            self._follows_restore = False
        self._newest_ns = max(self._newest_ns, stamp_ns + self._offset_ns)
        stamp = seconds_of(stamp_ns + self._offset_ns)
        is_due = self._sampler.accept(stamp)
        self._check.count(seconds_of(clock_ns), is_due=is_due)
        return SampleDecision(stamp, is_due, jump)

    def _remove_jump(self, jump_sec: float, stamp_ns: int) -> None:
        """Change the offset so that the memory's time does not jump; use stamps as they are when they are right again.

        Without a silence, this image is mapped onto the newest stamp; the sampler's next slot comes a period later.
        """
        offset_ns = self._offset_ns - round(jump_sec * NANOSECONDS_PER_SECOND)
        is_close = abs(offset_ns) <= _RIGHT_AGAIN_SEC * NANOSECONDS_PER_SECOND
        # A robot without a clock battery starts in 1970: its images seem older than the restored key frames and are
        # shifted behind them. Once its clock is set, stamps are right, and the time since the key frames is a true gap.
        clock_is_set = self._follows_restore and jump_sec > 0
        self._offset_ns = 0 if (is_close or clock_is_set) and stamp_ns > self._newest_ns else offset_ns

    def add(self, image: Any, decision: SampleDecision, source: Any = None) -> AddedFrame:
        """Resize an image that is due and add it to the memory.

        Args:
            image: RGB uint8 array of shape (H, W, 3) or PIL image, of any size.
            decision: Return value of ``decide`` for this image.
            source: Object kept with the frame.

        Raises:
            ImageError: The image cannot be used; nothing has changed.
        """
        return self._ingestor.add(image, decision.stamp, source)

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Load key frames of an earlier run into the empty memory.

        Images may follow after any length of time. An image older than the key frames counts as a backward time jump.

        Args:
            pairs: Pairs for ``FrameIngestor.restore``.

        Raises:
            ValueError: The memory is not empty.
        """
        self._ingestor.restore(pairs)
        newest = self._ingestor.frame_manager.newest_stamp
        if newest is not None:
            self._monitor.expect_after(newest)
            self._sampler.accept(newest)
            self._newest_ns = round(newest * NANOSECONDS_PER_SECOND)
            self._follows_restore = True

    def set_rate(self, sample_fps: float) -> None:
        """Change the number of frames to add per second.

        Raises:
            ConfigurationError: ``sample_fps`` is not a positive finite number.
        """
        self._sampler.set_rate(sample_fps)
        self._check.set_rate(sample_fps)

    def restart(self) -> None:
        """Drop every frame; keep the newest stamp as the baseline for time jumps."""
        self._ingestor.reset()
        self._sampler.reset()
        self._check.reset()
        self._offset_ns = self._newest_ns = 0
        self._follows_restore = False

    def reset(self) -> None:
        """Drop every frame and stamp: the next image is due at any stamp."""
        self.restart()
        self._monitor.reset()
