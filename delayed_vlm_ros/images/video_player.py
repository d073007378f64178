"""Play a video file at its own speed, or a camera device as its images arrive."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.images.player import Player
from delayed_vlm_ros.images.video import VideoSource, open_video

RETRY_SEC = 2.0
"""Pause before a failed source is opened again, in seconds."""


class VideoPlayer(Player[VideoSource]):
    """Plays a video in a thread and opens it again after an error.

    A camera device needs the thread: its read blocks until the next image, and images that are not read grow old in the
    driver's queue.

    Args:
        video: Path of a video file, or a camera device as for ``open_video``.
        show: Callback for each image, a uint8 RGB array of shape (height, width, 3); called in the player's thread.
        loop: Whether to repeat a file at its end.
        max_rate: Maximum images per second, the others are skipped; 0 for no limit.
        on_open: As for ``Player``.
        on_retry: As for ``Player``.
        on_late: As for ``Player``.
        on_finish: As for ``Player``.

    Attributes:
        is_device: Whether the source is a camera device.

    Raises:
        VideoSourceError: The source cannot be opened or has no image.
    """

    def __init__(
        self,
        video: str,
        show: Callable[[NDArray[np.uint8]], None],
        *,
        loop: bool,
        max_rate: float = 0.0,
        on_open: Callable[[VideoSource], None] | None = None,
        on_retry: Callable[[Exception], None] | None = None,
        on_late: Callable[[], None] | None = None,
        on_finish: Callable[[Exception | None], None] | None = None,
    ) -> None:
        source = open_video(video)
        super().__init__(
            source,
            self._play_video,
            reopen=partial(open_video, video),
            loop=loop,
            retry_sec=RETRY_SEC,
            on_open=on_open,
            on_retry=on_retry,
            on_late=on_late,
            on_finish=on_finish,
        )
        self.is_device = source.is_device
        self._show = show
        self._max_rate = max_rate

    def _play_video(self, source: VideoSource) -> int:
        schedule = _FileSchedule()
        stamp = 0.0
        count = 0
        for frame in source.frames(self._max_rate or None):
            if source.is_device:
                if self.is_closing:
                    return count
            else:
                stamp = frame.stamp
                if not self.wait_until(schedule, stamp):
                    return count
            self._show(frame.image)
            count += 1
        # The last image lasts one period too, so that a loop keeps its rhythm.
        self.wait(schedule.seconds_until(stamp + 1.0 / (source.frames_per_second or 1.0)))
        return count


class _FileSchedule:
    """Schedule of a file's images by their stamps, in seconds from the first image."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds_until(self, due: float) -> float:
        return self._start + due - time.monotonic()

    def delay(self, seconds: float) -> None:
        self._start += seconds
