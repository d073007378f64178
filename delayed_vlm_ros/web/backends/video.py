"""A video file or a camera device, played in a thread at the pace of life. Needs no ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import VideoSourceError
from delayed_vlm_ros.images.video import VideoSource, open_video

_RETRY_SEC = 2.0
_LATE_SEC = 1.0  # behind a file's own pace from which it is played slower than life rather than with jumps
_JOIN_SEC = 0.5


class LocalVideo:
    """Plays from ``start`` until its end or ``stop``; a device that fails is opened again.

    Args:
        video: A video file, or a camera device.
        loop: Whether a file begins again at its end.
        shown: Called in the player's thread with each image, ``(height, width, 3)`` uint8, RGB.

    Attributes:
        trouble: Why there is no new image; empty while all is well.

    Raises:
        VideoSourceError: It cannot be opened.
    """

    def __init__(self, video: str, shown: Callable[[NDArray[np.uint8]], None], *, loop: bool) -> None:
        self.trouble = ""
        self._video = video
        self._loop = loop
        self._shown = shown
        self._source: VideoSource | None = open_video(video)
        self.is_device = self._source.is_device
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="video", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns within half a second, whatever the camera's driver does."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SEC)

    def _run(self) -> None:
        while not self._stopping.is_set():
            source, self._source = self._backend, None
            try:
                with source or open_video(self._video) as opened:
                    self.trouble = ""
                    self._play(opened)
            except VideoSourceError as error:
                self.trouble = f"{error}. Trying again every {_RETRY_SEC:g} s"
                self._stopping.wait(_RETRY_SEC)
            else:
                if not self._loop:
                    self.trouble = "The video has ended. What was kept of it can be asked about."
                    return

    def _play(self, source: VideoSource) -> None:
        began = time.monotonic()
        for frame in source.frames():
            if not source.is_device:
                behind = time.monotonic() - began - frame.stamp
                if behind > _LATE_SEC:
                    began += behind
                self._stopping.wait(max(0.0, -behind))
            if self._stopping.is_set():
                return
            self._shown(frame.image)
