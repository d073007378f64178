"""A video file as a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ImageError, RecordingError
from delayed_vlm_ros.images.video import open_video
from delayed_vlm_ros.replay.recordings.recording import FIRST_STAMP_NS, Recording, StampedImage
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

_MIN_SHARE_READ = 0.95  # the image count in a file's header is not always exact


@dataclass(frozen=True)
class VideoImage(StampedImage):
    """One image of a video; decode it before taking the next one.

    Attributes:
        retrieve: Function that decodes the image; it returns None if that fails.
    """

    retrieve: Callable[[], NDArray[np.uint8] | None]

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels: RGB, shape ``(height, width, 3)``.

        Raises:
            ImageError: The image is damaged.
        """
        pixels = self.retrieve()
        if pixels is None:
            raise ImageError("cannot decode an image of the video: the file is damaged")
        return pixels


class VideoRecording(Recording):
    """Images of a video file.

    Args:
        path: Path of the file.

    Raises:
        VideoSourceError: The file cannot be read.
        RecordingError: The path is a camera device.
    """

    kind = "video"
    topic = ""
    type_name = ""

    def __init__(self, path: Path) -> None:
        self._source = open_video(str(path))
        if self._source.is_device:
            self._source.close()
            raise RecordingError(f"{path} is a camera device, which has no end: name a video file")
        self.name = path.stem
        self.image_count = self._source.frame_count
        self.warnings: list[str] = []

    def images(self) -> Iterator[VideoImage]:
        """Yield the images in time order."""
        count, stamp = 0, 0.0
        for stamp, retrieve in self._source.images():
            count += 1
            yield VideoImage(FIRST_STAMP_NS + round(stamp * NANOSECONDS_PER_SECOND), retrieve)
        if self.image_count is not None and count < _MIN_SHARE_READ * self.image_count:
            self.warnings.append(
                f"{self._source.name} is damaged: it ends after {count} of {self.image_count} images, {stamp:.1f} s "
                "after the first one"
            )

    def close(self) -> None:
        """Close the file; further calls do nothing."""
        self._source.close()
