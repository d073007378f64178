"""What a recording of a camera is, whatever it is kept in."""

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

RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

BAG_SUFFIXES = (".mcap", ".db3", ".zstd")
"""Of a bag's files that hold messages."""

FIRST_STAMP_NS = NANOSECONDS_PER_SECOND
"""Where the stamps of images begin that were taken at no known time: 0 would mean that there is none."""


class RecordedImage(Protocol):
    """One image, not decoded yet."""

    @property
    def stamp_ns(self) -> int:
        """When the camera took it, nanoseconds; 0 where its message does not say.

        Raises:
            ImageError: Its message is broken.
        """

    @property
    def arrival_ns(self) -> int:
        """When it was recorded, nanoseconds."""

    @property
    def serialised(self) -> bytes:
        """Its message in CDR; empty where it comes from none."""

    def decode(self) -> NDArray[np.uint8]:
        """Its pixels: RGB, shape (height, width, 3).

        Raises:
            ImageError: It cannot be used.
        """


@dataclass(frozen=True)
class StampedImage:
    """What images have in common that come from no message, and of which nothing is known but the stamp."""

    stamp_ns: int

    @property
    def arrival_ns(self) -> int:
        """The stamp."""
        return self.stamp_ns

    @property
    def serialised(self) -> bytes:
        """There is no message."""
        return b""


class Recording(Protocol):
    """A camera's images in the order in which they were recorded; a context manager.

    Attributes:
        name: What it is called in reports.
        kind: ``bag``, ``video`` or ``folder``.
        topic: The images' topic; empty where there is none.
        type_name: The type of their messages, such as ``sensor_msgs/msg/Image``; empty where there are none.
        image_count: How many images it says it has; None when it does not say.
        damage: Where reading had to stop before the end and why, or how what was read differs from what the recording
            lists, in a sentence; empty while nothing is wrong. Complete after the last image.
    """

    name: str
    kind: str
    topic: str
    type_name: str
    image_count: int | None
    damage: str

    def images(self) -> Iterator[RecordedImage]:
        """Go through the images, once. Damage ends them, and is told in ``damage``."""

    def close(self) -> None:
        """Let go of its files."""

    def __enter__(self) -> Self:
        """Nothing to do: it is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
