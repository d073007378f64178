"""Images from a video file or a camera device, with their times.

    with open_video("room.mp4") as video:
        for frame in video.frames():
            use(frame.image, frame.stamp)

OpenCV does the decoding; what it knows but does not say clearly (what is wrong with this file, when was this image
taken) is worked out here. Needs numpy and OpenCV only.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import VideoSourceError

_ASSUMED_RATE = 25.0  # images per second where a file tells neither times nor a rate
_BELIEVABLE_RATES = (0.01, 1000.0)  # some files give the ticks of their clock as the rate
_JITTER = 0.05  # part of a period by which an image may come early and still be the next one


@dataclass(frozen=True)
class VideoFrame:
    """One image.

    Attributes:
        image: ``(height, width, 3)`` uint8, RGB, upright.
        stamp: Seconds from the source's first image.
    """

    image: NDArray[np.uint8]
    stamp: float


class VideoSource:
    """An open video file or camera device; a context manager, made by ``open_video``.

    Attributes:
        name: What the user called it.
        is_device: Whether it is a camera: it has no end, and its images come when they come.
        frames_per_second: The rate it says it has; None when it does not say.
        frame_count: How many images the file says it has; None when it does not say, and for a device.
    """

    def __init__(self, name: str, capture: Any, *, is_device: bool) -> None:
        self.name = name
        self.is_device = is_device
        self._capture = capture
        self._opened = time.monotonic()
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.frames_per_second = rate if _BELIEVABLE_RATES[0] <= rate <= _BELIEVABLE_RATES[1] else None
        count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = int(count) if not is_device and math.isfinite(count) and count >= 1 else None
        self._first_time = 0.0  # what the source calls the time of its first image (s)
        self._stamp = -1.0  # of the newest image
        # One image is decoded right away: many a file that opens has none.
        self._waiting = self._first()
        if self._waiting is None:
            capture.release()
            raise VideoSourceError(_no_image(name, is_device=is_device))

    @property
    def duration_sec(self) -> float | None:
        """Length of the file (s); None when the file does not say, and for a device."""
        if self.frame_count is None or self.frames_per_second is None:
            return None
        return self.frame_count / self.frames_per_second

    def frames(self, rate: float | None = None) -> Iterator[VideoFrame]:
        """Go through the images, from where the source stands; a file ends, a device does not.

        Args:
            rate: Images per second of the source's own time at most, the others are skipped; None gives all.

        Yields:
            Each image; stamps increase strictly.

        Raises:
            VideoSourceError: The device stopped delivering.
        """
        newest_slot = -1
        for stamp, retrieve in self.images():
            if rate:
                slot = math.floor(stamp * rate + _JITTER)
                if slot <= newest_slot:
                    continue
                newest_slot = slot
            image = retrieve()
            if image is not None:
                yield VideoFrame(image, stamp)
        if self.is_device:
            raise VideoSourceError(
                f"camera device {self.name} stopped delivering images: is it unplugged? Plug it in again"
            )

    def images(self) -> Iterator[tuple[float, Callable[[], NDArray[np.uint8] | None]]]:
        """Go through the images without decoding them, from where the source stands.

        Yields:
            Each image's stamp (s from the source's first image; they increase strictly), and what decodes it to
            RGB, ``(height, width, 3)``, until the next one is taken; it gives None where that cannot be done.
        """
        while (image := self._next()) is not None:
            stamp, waiting = image
            yield stamp, self._retrieve if waiting is None else partial(_rgb, waiting)

    def close(self) -> None:
        """Let go of the file or device; it may be called twice."""
        self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self) -> tuple[float, NDArray[np.uint8] | None] | None:
        """The next image's stamp, and its pixels where they are decoded already; None at the end."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            return waiting
        if not self._capture.grab():
            return None
        return self._advance(), None

    def _retrieve(self) -> NDArray[np.uint8] | None:
        decoded, pixels = self._capture.retrieve()
        return _rgb(pixels) if decoded else None

    def _first(self) -> tuple[float, NDArray[np.uint8]] | None:
        decoded, pixels = self._capture.read()
        if not decoded:
            return None
        self._first_time = self._source_time()
        return self._advance(), pixels

    def _advance(self) -> float:
        """The grabbed image's stamp: what the source says, or one period on where that does not increase."""
        stamp = self._source_time() - self._first_time
        if stamp <= self._stamp:
            stamp = self._stamp + 1.0 / (self.frames_per_second or _ASSUMED_RATE)
        self._stamp = stamp
        return stamp

    def _source_time(self) -> float:
        if self.is_device:
            return time.monotonic() - self._opened
        said = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        return said if math.isfinite(said) else 0.0


def open_video(source: str | int) -> VideoSource:
    """Open a video file or a camera device.

    Args:
        source: Path of a file; or a device: its number (``0``, ``"0"``) or its path (``"/dev/video0"``).

    Returns:
        The open source, to be used in a ``with`` statement.

    Raises:
        VideoSourceError: There is no such file or device, or no image can be got from it.
    """
    name = str(source).strip()
    if not name:
        raise VideoSourceError("no video is given: name a video file, or a camera device such as /dev/video0")
    if name.isdecimal():
        return _open_device(Path(f"/dev/video{int(name)}"))
    if name.startswith("/dev/"):
        return _open_device(Path(name))
    return _open_file(Path(name).expanduser())


def _open_file(path: Path) -> VideoSource:
    if path.is_dir():
        raise VideoSourceError(f"{path} is a folder: name one video file in it")
    if not path.exists():
        raise VideoSourceError(f"there is no file {path}: check the path (the current folder is {Path.cwd()})")
    if not os.access(path, os.R_OK):
        raise VideoSourceError(f"{path} may not be read by this user: change its permissions")
    if path.stat().st_size == 0:
        raise VideoSourceError(f"{path} is empty (0 bytes): copy or record it again")
    with _opencv_silent():
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise VideoSourceError(
                f"{path} is not a video that OpenCV can read: it is something else, damaged, or cut short; "
                f"check it with `ffprobe {path.name}`, or convert it to MP4 (H.264)"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # a phone's upright video is stored lying on its side
        return VideoSource(str(path), capture, is_device=False)


def _open_device(path: Path) -> VideoSource:
    if sys.platform == "linux" and not path.exists():
        present = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
        raise VideoSourceError(
            f"there is no camera device {path} (present: {present}): plug the camera in, or name another one"
        )
    if sys.platform == "linux" and not os.access(path, os.R_OK | os.W_OK):
        raise VideoSourceError(
            f"camera device {path} may not be used by this user: add the user to the group 'video' and log in again"
        )
    number = re.fullmatch(r"/dev/video(\d+)", str(path.resolve()))
    capture = cv2.VideoCapture(int(number[1]) if number else str(path))
    if not capture.isOpened():
        raise VideoSourceError(
            f"camera device {path} cannot be opened: another program uses it, or it is not a camera "
            f"(many cameras have a second device without images: try its neighbours)"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest image, not one from a queue; not all drivers obey
    return VideoSource(str(path), capture, is_device=True)


@contextmanager
def _opencv_silent() -> Iterator[None]:
    """Keep OpenCV's and FFmpeg's own messages from the user: the errors raised here say the same in words.

    FFmpeg's are set through the environment, which OpenCV reads once; a value set by the user stays.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = getattr(getattr(cv2, "utils", None), "logging", None)  # older builds of OpenCV lack it
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _no_image(name: str, *, is_device: bool) -> str:
    if is_device:
        return (
            f"camera device {name} opens but delivers no image: another program may use it, "
            f"or it is not a camera's image device (try its neighbours)"
        )
    return (
        f"{name} opens as a video but holds no image that can be decoded: it is damaged, has sound only, "
        f"or this OpenCV lacks its codec; convert it to MP4 (H.264)"
    )


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 or pixels.shape[2] == 1 else cv2.COLOR_BGR2RGB  # noqa: PLR2004
    return cv2.cvtColor(pixels, code)
