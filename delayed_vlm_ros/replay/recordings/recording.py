"""The interface of a recording, independent of its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

if TYPE_CHECKING:
    from typing_extensions import Self

ZSTD_SUFFIX = ".zstd"
"""Suffix of a bag's file that the recorder has compressed as a whole."""

BAG_SUFFIXES = (".mcap", ".db3", ZSTD_SUFFIX)
"""Suffixes of the files of a bag that hold messages."""

FIRST_STAMP_NS = NANOSECONDS_PER_SECOND
"""Stamp of the first image where capture times are unknown, in nanoseconds. A stamp of 0 means that there is none."""


class RecordedImage(Protocol):
    """One image, not decoded yet."""

    @property
    def stamp_ns(self) -> int:
        """Capture time in nanoseconds; 0 if the message has no stamp.

        Raises:
            ImageError: The message cannot be read.
        """

    @property
    def arrival_ns(self) -> int:
        """Recording time in nanoseconds."""

    @property
    def serialised(self) -> bytes:
        """The message in CDR; empty if the image does not come from a message."""

    def decode(self) -> NDArray[np.uint8]:
        """Return the pixels: RGB, shape ``(height, width, 3)``.

        Raises:
            ImageError: The image is damaged or has an unsupported encoding.
        """


@dataclass(frozen=True)
class StampedImage:
    """Base of images that do not come from a message. Their recording time is their stamp.

    Attributes:
        stamp_ns: Capture time in nanoseconds.
    """

    stamp_ns: int

    @property
    def arrival_ns(self) -> int:
        """Recording time in nanoseconds, which equals the stamp."""
        return self.stamp_ns

    @property
    def serialised(self) -> bytes:
        """Empty: there is no message."""
        return b""


class Recording(Protocol):
    """Images of a camera in recorded order; a context manager.

    Attributes:
        name: Name in reports.
        kind: ``bag``, ``video`` or ``folder``.
        topic: Topic of the images; empty unless the recording is a bag.
        type_name: Message type, such as ``sensor_msgs/msg/Image``; empty unless the recording is a bag.
        image_count: Number of images that the recording states; None if it states none.
        warnings: Reasons why images are missing: where reading stopped early, and how the images read differ from those
            the recording lists. Complete after the last image.
    """

    name: str
    kind: str
    topic: str
    type_name: str
    image_count: int | None
    warnings: list[str]

    def images(self) -> Iterator[RecordedImage]:
        """Yield the images, once. Damage ends the iteration and adds to ``warnings``."""

    def close(self) -> None:
        """Close the files; further calls do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
