"""Images and their timestamps from a video file, a camera device or a network stream.

    with open_video("room.mp4") as video:
        for frame in video.frames():
            use(frame.image, frame.stamp)

OpenCV decodes. This module adds what OpenCV leaves out: why a source cannot be read, and strictly increasing stamps.
It requires neither ROS nor torch.
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
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import VideoSourceError, without_credentials
from delayed_vlm_ros.images.validation import MAX_IMAGE_PIXELS

_DEFAULT_FPS = 25.0  # where a file has neither timestamps nor a rate
_PLAUSIBLE_FPS = (0.01, 1000.0)  # some files report the ticks of their clock as the rate
_STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
_STREAM_TIMEOUT_MS = 5000  # to connect, and between two images
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")  # pathlib removes one of the slashes

_JITTER = 0.05  # share of a period by which an image may be early and still be the next one


@dataclass(frozen=True)
class VideoFrame:
    """One image of a video.

    Attributes:
        image: Upright RGB image, ``(height, width, 3)`` uint8.
        stamp: Time since the first image of the source, in seconds.
    """

    image: NDArray[np.uint8]
    stamp: float


class VideoSource:
    """An open video file, camera device or network stream, created by ``open_video``. It is a context manager.

    Attributes:
        name: Path, device or address that the user named; an address without its credentials.
        is_device: Whether the source is a camera device or a network stream: it has no end, and its images are live.
        frames_per_second: Reported frame rate; None when unknown.
        frame_count: Reported number of images in the file; None when unknown, and for a device.
    """

    def __init__(self, name: str, capture: Any, *, is_device: bool) -> None:
        self.name = name
        self.is_device = is_device
        self._capture = capture
        self._opened = time.monotonic()
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        self.frames_per_second = rate if _PLAUSIBLE_FPS[0] <= rate <= _PLAUSIBLE_FPS[1] else None
        count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.frame_count = int(count) if not is_device and math.isfinite(count) and count >= 1 else None
        self._first_time = 0.0  # the source's own time of its first image, in seconds
        self._stamp = -1.0  # of the newest image
        # Decode one image now: many files that can be opened hold none.
        self._check_size()
        self._waiting = self._first()
        if self._waiting is None:
            capture.release()
            raise VideoSourceError(_no_image(name, is_device=is_device))

    @property
    def kind(self) -> str:
        """``video file``, ``camera device`` or ``network stream``."""
        if not self.is_device:
            return "video file"
        return "network stream" if is_stream(self.name) else "camera device"

    @property
    def duration_sec(self) -> float | None:
        """Length of the file, in seconds; None when unknown, and for a device."""
        if self.frame_count is None or self.frames_per_second is None:
            return None
        return self.frame_count / self.frames_per_second

    def frames(self, rate: float | None = None) -> Iterator[VideoFrame]:
        """Read the remaining images. A file ends; a device does not.

        Args:
            rate: Maximum images per second of source time; images in between are skipped. None reads every image.

        Yields:
            Each image; stamps increase strictly.

        Raises:
            VideoSourceError: The device or stream stopped delivering images.
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
            remedy = "check the camera and the network" if is_stream(self.name) else "check that it is plugged in"
            raise VideoSourceError(f"{self.kind} {self.name} stopped delivering images: {remedy}")

    def images(self) -> Iterator[tuple[float, Callable[[], NDArray[np.uint8] | None]]]:
        """Read the remaining images without decoding them.

        Yields:
            The image's stamp, in seconds since the first image of the source, and a function that decodes it. Stamps
            increase strictly. The function returns RGB ``(height, width, 3)`` uint8, or None if the image cannot be
            decoded; it is valid until the next image is read.
        """
        while (image := self._next()) is not None:
            stamp, waiting = image
            yield stamp, self._retrieve if waiting is None else partial(_rgb, waiting)

    def close(self) -> None:
        """Release the file or device. Closing twice is allowed."""
        self._capture.release()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_size(self) -> None:
        """Refuse a source of too many pixels. OpenCV scales later images to the size of the first one."""
        width, height = (int(self._capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_IMAGE_PIXELS:
            self._capture.release()
            raise VideoSourceError(
                f"cannot read {self.kind} '{self.name}': its images have {width} × {height} pixels, and the limit is "
                f"{MAX_IMAGE_PIXELS} pixels: scale it down, for example with ffmpeg"
            )

    def _next(self) -> tuple[float, NDArray[np.uint8] | None] | None:
        """Return the next image's stamp, and its pixels if they are already decoded; None at the end."""
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
        """Return the stamp of the grabbed image: the source's own, or one period later where that does not increase."""
        stamp = self._source_time() - self._first_time
        if stamp <= self._stamp:
            stamp = self._stamp + 1.0 / (self.frames_per_second or _DEFAULT_FPS)
        self._stamp = stamp
        return stamp

    def _source_time(self) -> float:
        if self.is_device:
            return time.monotonic() - self._opened
        reported = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        return reported if math.isfinite(reported) else 0.0


def is_stream(source: str) -> bool:
    """Return whether a source is an address such as ``rtsp://camera/stream``, not a path."""
    return _ADDRESS.match(source) is not None


def open_video(source: str | int) -> VideoSource:
    """Open a video file, a camera device or a network stream.

    Args:
        source: Path of a file, a device given by number (``0``, ``"0"``) or path (``"/dev/video0"``), or the address of
            a stream (``rtsp://…``, ``http://…``).

    Returns:
        The open source, for use in a ``with`` statement.

    Raises:
        VideoSourceError: The source does not exist or delivers no image.
    """
    name = str(source).strip()
    if not name:
        raise VideoSourceError("no video given: name a video file, or a camera device such as /dev/video0")
    if name.isdecimal():
        return _open_device(Path(f"/dev/video{int(name)}"))
    if name.startswith("/dev/"):
        return _open_device(Path(name))
    if is_stream(name):
        return _open_stream(name)
    return _open_file(Path(name).expanduser())


def _open_file(path: Path) -> VideoSource:
    cannot_open = f"cannot open video '{path}'"
    if path.is_dir():
        raise VideoSourceError(f"{cannot_open}: it is a folder; name one video file in it")
    if not path.exists():
        raise VideoSourceError(f"{cannot_open}: file not found; check the path (current folder: {Path.cwd()})")
    if not os.access(path, os.R_OK):
        raise VideoSourceError(f"{cannot_open}: permission denied; change the file's permissions")
    if path.stat().st_size == 0:
        raise VideoSourceError(f"{cannot_open}: the file is empty; copy or record it again")
    with _opencv_silent():
        capture = cv2.VideoCapture(str(path))
        if not capture.isOpened():
            raise VideoSourceError(
                f"{cannot_open}: not a video file, or damaged, truncated, or in a format that OpenCV does not support; "
                f"check it with `ffprobe {path.name}`, or convert it to MP4 (H.264)"
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones store upright videos sideways
        return VideoSource(str(path), capture, is_device=False)


def _open_stream(address: str) -> VideoSource:
    name = without_credentials(address)
    scheme = address.partition(":")[0].lower()
    if scheme not in _STREAM_SCHEMES:
        raise VideoSourceError(f"cannot open network stream {name}: '{scheme}' is none of {', '.join(_STREAM_SCHEMES)}")
    timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    with _opencv_silent():
        # FFmpeg's RTSP uses TCP in OpenCV unless OPENCV_FFMPEG_CAPTURE_OPTIONS says otherwise.
        options = [value for timeout in timeouts for value in (timeout, _STREAM_TIMEOUT_MS)]
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, options)
        if not capture.isOpened():
            raise VideoSourceError(
                f"cannot open network stream {name}: no answer within {_STREAM_TIMEOUT_MS / 1000:g} s, wrong "
                "address or password, or no video; check it with ffprobe"
            )
        if capture.get(cv2.CAP_PROP_FRAME_COUNT) >= 1:
            capture.release()
            raise VideoSourceError(f"{name} is a file on a server, not a live stream: download it and name the file")
        return VideoSource(name, capture, is_device=True)


def _open_device(path: Path) -> VideoSource:
    cannot_open = f"cannot open camera device {path}"
    if sys.platform == "linux" and not path.exists():
        present = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
        raise VideoSourceError(
            f"{cannot_open}: device not found (present: {present}); plug the camera in, or name another device"
        )
    if sys.platform == "linux" and not os.access(path, os.R_OK | os.W_OK):
        raise VideoSourceError(f"{cannot_open}: permission denied; add the user to the group 'video' and log in again")
    number = re.fullmatch(r"/dev/video(\d+)", str(path.resolve()))
    capture = cv2.VideoCapture(int(number[1]) if number else str(path))
    if not capture.isOpened():
        raise VideoSourceError(
            f"{cannot_open}: another program uses it, or it is not a capture device; close that program, or try the "
            "neighbouring devices (many cameras have a second device without images)"
        )
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # read the newest image, not one from a queue; some drivers ignore it
    return VideoSource(str(path), capture, is_device=True)


@contextmanager
def _opencv_silent() -> Iterator[None]:
    """Suppress the messages of OpenCV and FFmpeg: the errors raised here say the same in plain words.

    OpenCV reads FFmpeg's log level from the environment once. A value set by the user is kept.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    logging = getattr(getattr(cv2, "utils", None), "logging", None)  # missing in older builds of OpenCV
    if logging is None:
        yield
        return
    before = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)


def _no_image(name: str, *, is_device: bool) -> str:
    if is_device and is_stream(name):
        return f"network stream {name} opens but delivers no image: check the camera, and its codec with ffprobe"
    if is_device:
        return (
            f"camera device {name} opens but delivers no image: another program may use it, or it is not a capture "
            "device; close that program, or try the neighbouring devices"
        )
    return (
        f"cannot read video '{name}': no image can be decoded; the file is damaged or has sound only, or OpenCV lacks "
        "its codec. Convert it to MP4 (H.264)"
    )


def _rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 or pixels.shape[2] == 1 else cv2.COLOR_BGR2RGB  # noqa: PLR2004
    return cast("NDArray[np.uint8]", cv2.cvtColor(pixels, code))
