"""A folder of images as a recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.images.bit_depth import BitDepth
from delayed_vlm_ros.images.conversion import decode_file
from delayed_vlm_ros.replay.recordings.recording import FIRST_STAMP_NS, Recording, StampedImage
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
DEFAULT_RATE = 2.0
_COLOUR_DIMENSIONS = 3

# Data sets name images by their capture time since 1970: in seconds, or in whole ms, µs or ns.
_EPOCH_SECONDS = re.compile(r"[1-9]\d{9}(\.\d+)?")
_EPOCH_DIGITS = {13: 1_000_000, 16: 1_000, 19: 1}  # number of digits -> nanoseconds per unit


@dataclass(frozen=True)
class FolderImage(StampedImage):
    """One image file.

    Attributes:
        file: Path of the file.
        bit_depth: Depth of the folder's 16-bit images.
    """

    file: Path
    bit_depth: BitDepth

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels: RGB, shape ``(height, width, 3)``.

        Raises:
            ImageError: The file is truncated, damaged or not an image.
        """
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read '{self.file}' ({error.strerror}): check the file") from error
        image = decode_file(data, self.bit_depth, f"'{self.file}'")
        return image if image.ndim == _COLOUR_DIMENSIONS else np.stack([image] * 3, axis=-1)


class FolderRecording(Recording):
    """Images of a folder, ordered by the times or numbers in their names.

    Args:
        path: Path of the folder.
        rate: Images per second if the file names are not times.

    Raises:
        RecordingError: The folder has no images.
    """

    kind = "folder"
    topic = ""
    type_name = ""

    def __init__(self, path: Path, rate: float = DEFAULT_RATE) -> None:
        self.name = path.resolve().name
        self.warnings: list[str] = []
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_natural_key)
        if not files:
            raise RecordingError(f"{path} contains neither a bag nor images ({', '.join(IMAGE_SUFFIXES)})")
        self.image_count: int | None = len(files)
        timed = [(time, file) for file in files if (time := _time_in_name(file.stem)) is not None]
        period_ns = NANOSECONDS_PER_SECOND / rate
        numbered = [(FIRST_STAMP_NS + round(number * period_ns), file) for number, file in enumerate(files)]
        stamped = sorted(timed) if len(timed) == len(files) else numbered
        bit_depth = BitDepth()
        self._images = [FolderImage(stamp_ns, file, bit_depth) for stamp_ns, file in stamped]

    def images(self) -> Iterator[FolderImage]:
        """Yield the images in time order."""
        return iter(self._images)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _natural_key(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame_10 after frame_9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", file.name)]


def _time_in_name(stem: str) -> int | None:
    """Return the time that a file name states, in nanoseconds; None if it states none."""
    if _EPOCH_SECONDS.fullmatch(stem):
        seconds, _, fraction = stem.partition(".")
        return int(seconds) * NANOSECONDS_PER_SECOND + int(fraction[:9].ljust(9, "0"))
    return int(stem) * _EPOCH_DIGITS[len(stem)] if stem.isdecimal() and len(stem) in _EPOCH_DIGITS else None
