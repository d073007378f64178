"""A folder of images as a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

# Data sets name images by their capture time since 1970: in seconds, in seconds and µs or ns, or in whole ms, µs or ns.
_EPOCH_TIME = re.compile(
    r"""
    (?<![\d.])
    (?:
        (?P<seconds>[1-9]\d{9}) (?: \.(?P<fraction>\d+) | [_-](?P<rest>\d{9}|\d{6}) )?
        | (?P<whole>[1-9]\d{12}(?:\d{3}){0,2})
    )
    (?!\d)
    """,
    re.VERBOSE,
)
_EPOCH_DIGITS = {13: 1_000_000, 16: 1_000, 19: 1}  # number of digits -> nanoseconds per unit
_DATE = re.compile(  # such as 20231114_221320 or 2023-11-14T22-13-20
    r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])[-_T ]?(?:[01]\d|2[0-3])[-_.:]?[0-5]\d"
)
_DIGITS = re.compile(r"\d+")
_MAX_FILES_NAMED = 5  # in a warning


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
        RecordingError: The folder has no images, or names with times of several series, such as those of two cameras.
    """

    kind = "folder"
    topic = ""
    type_name = ""

    def __init__(self, path: Path, rate: float = DEFAULT_RATE) -> None:
        self.name = path.resolve().name
        self.warnings: list[str] = []
        found = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
        files = sorted(found, key=_natural_key)
        if not files:
            raise RecordingError(f"{path} contains neither a bag nor images ({', '.join(IMAGE_SUFFIXES)})")
        every_series = _series(files)
        largest = max(every_series, key=len, default={})
        if len(largest) * 2 > len(files):
            stamped = self._use_times(path, files, largest)
        else:
            self._check_unused_times(path, files, every_series, rate)
            period_ns = NANOSECONDS_PER_SECOND / rate
            stamped = [(FIRST_STAMP_NS + round(number * period_ns), file) for number, file in enumerate(files)]
        self.image_count: int | None = len(stamped)
        bit_depth = BitDepth()
        self._images = [FolderImage(stamp_ns, file, bit_depth) for stamp_ns, file in stamped]

    def _use_times(self, path: Path, files: Sequence[Path], series: Mapping[Path, int]) -> list[tuple[int, Path]]:
        """Return the images of a series in time order, each time once; warn of the other files."""
        strays = [file for file in files if file not in series]
        if strays:
            self.warnings.append(
                f"{path}: {_named(strays)} not used: most names are times, and these are not or have other text; move "
                "them to another folder"
            )
        by_time: dict[int, Path] = {}
        for file, stamp_ns in series.items():
            by_time.setdefault(stamp_ns, file)
        repeated = [file for file, stamp_ns in series.items() if by_time[stamp_ns] != file]
        if repeated:
            self.warnings.append(
                f"{path}: {_named(repeated)} not used: another image has the same time; use one folder per camera"
            )
        return sorted(by_time.items())

    def _check_unused_times(
        self, path: Path, files: Sequence[Path], every_series: Sequence[Mapping[Path, int]], rate: float
    ) -> None:
        """Refuse a folder whose names hold times of several series; warn of other times that are not used."""
        timed = [file for series in every_series for file in series]
        if len(timed) * 2 > len(files):
            examples = ", ".join(min(series).name for series in every_series[:_MAX_FILES_NAMED])
            raise RecordingError(
                f"{path}: the names hold times, but are of {len(every_series)} kinds ({examples}): use one folder per "
                "camera, with the same text around the time in all names"
            )
        dated = timed or [file for file in files if _DATE.search(file.stem)]
        if dated:
            self.warnings.append(
                f"{path}: {_named(dated)}: the times in names are not used, and images are {rate:g} per second in the "
                "order of the names: name most files by their seconds since 1970, or check the rate (--image-rate)"
            )

    def images(self) -> Iterator[FolderImage]:
        """Yield the images in time order."""
        return iter(self._images)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _natural_key(file: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame_10 after frame_9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", file.name)]


def _named(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:_MAX_FILES_NAMED])
    return f"{names} and {len(files) - _MAX_FILES_NAMED} more" if len(files) > _MAX_FILES_NAMED else names


def _series(files: Iterable[Path]) -> list[dict[Path, int]]:
    """Return the times of files for each series of names: a time since 1970, with the same text around it."""
    series: dict[str, dict[Path, int]] = {}
    for file in files:
        found = _EPOCH_TIME.search(file.stem)
        if found is not None:
            text = _DIGITS.sub("#", f"{file.stem[: found.start()]}|{file.stem[found.end() :]}")
            series.setdefault(text, {})[file] = _time_ns(found)
    return list(series.values())


def _time_ns(found: re.Match[str]) -> int:
    whole = found["whole"]
    if whole is not None:
        return int(whole) * _EPOCH_DIGITS[len(whole)]
    fraction = found["fraction"] or found["rest"] or ""
    return int(found["seconds"]) * NANOSECONDS_PER_SECOND + int(fraction[:9].ljust(9, "0"))
