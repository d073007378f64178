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

_MOST_OF_THEM = 0.95  # what a file says of its images is not always exact


@dataclass(frozen=True)
class VideoImage(StampedImage):
    """One image, to be decoded before the next one is taken; see ``RecordedImage``."""

    retrieve: Callable[[], NDArray[np.uint8] | None]

    def decode(self) -> NDArray[np.uint8]:
        """Decode it."""
        pixels = self.retrieve()
        if pixels is None:
            raise ImageError("an image of the video cannot be decoded: the file is damaged there")
        return pixels


class VideoRecording(Recording):
    """See ``Recording``.

    Args:
        path: The file.

    Raises:
        VideoSourceError: It cannot be read.
        RecordingError: It is a camera device, which has no end.
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
        self.damage = ""

    def images(self) -> Iterator[VideoImage]:
        """Go through the images."""
        count, stamp = 0, 0.0
        for stamp, retrieve in self._source.images():
            count += 1
            yield VideoImage(FIRST_STAMP_NS + round(stamp * NANOSECONDS_PER_SECOND), retrieve)
        if self.image_count is not None and count < _MOST_OF_THEM * self.image_count:
            self.damage = (
                f"{self._source.name} is damaged: it says it has {self.image_count} images, and ends with the "
                f"{count}th, {stamp:.1f} s after the first one"
            )

    def close(self) -> None:
        """Let go of the file; it may be called twice."""
        self._source.close()
