"""A folder of images as a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.replay.recordings.recording import FIRST_STAMP_NS, Recording, StampedImage
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
DEFAULT_RATE = 2.0

# Data sets name images by the time they were taken: in seconds, or in whole ms, µs or ns, all since 1970.
_EPOCH_SECONDS = re.compile(r"[1-9]\d{9}(\.\d+)?")
_EPOCH_DIGITS = {13: 1_000_000, 16: 1_000, 19: 1}


@dataclass(frozen=True)
class FolderImage(StampedImage):
    """One file; see ``RecordedImage``."""

    file: Path

    def decode(self) -> NDArray[np.uint8]:
        """Read the file."""
        pixels = cv2.imread(str(self.file), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ImageError(f"{self.file} is damaged, or no image: OpenCV cannot decode it")
        return np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


class FolderRecording(Recording):
    """See ``Recording``. The images come in the order of the numbers in their names.

    Args:
        path: The folder.
        rate: Images per second, where their names are no times.

    Raises:
        RecordingError: There are no images in it.
    """

    kind = "folder"
    topic = ""
    type_name = ""
    damage = ""

    def __init__(self, path: Path, rate: float = DEFAULT_RATE) -> None:
        self.name = path.resolve().name
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_by_number)
        if not files:
            raise RecordingError(f"{path} holds neither a bag nor images ({', '.join(IMAGE_SUFFIXES)})")
        self.image_count: int | None = len(files)
        named = [(time, file) for file in files if (time := _time_in_name(file.stem)) is not None]
        period_ns = NANOSECONDS_PER_SECOND / rate
        numbered = [(FIRST_STAMP_NS + round(number * period_ns), file) for number, file in enumerate(files)]
        timed = sorted(named) if len(named) == len(files) else numbered
        self._images = [FolderImage(stamp, file) for stamp, file in timed]

    def images(self) -> Iterator[FolderImage]:
        """Go through the images."""
        return iter(self._images)

    def close(self) -> None:
        """Nothing is open."""


def _by_number(file: Path) -> list[tuple[int, str]]:
    """So that frame_10 comes behind frame_9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", file.name)]


def _time_in_name(stem: str) -> int | None:
    """Nanoseconds, where a file's name is a time."""
    if _EPOCH_SECONDS.fullmatch(stem):
        seconds, _, fraction = stem.partition(".")
        return int(seconds) * NANOSECONDS_PER_SECOND + int(fraction[:9].ljust(9, "0"))
    return int(stem) * _EPOCH_DIGITS[len(stem)] if stem.isdecimal() and len(stem) in _EPOCH_DIGITS else None
