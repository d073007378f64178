"""What an image message must have: those of ROS do, and those that are read from a bag without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class RawMessage(Protocol):
    """A ``sensor_msgs/Image``."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """A ``sensor_msgs/CompressedImage``."""

    format: str
    data: Any


@dataclass
class DenseImage:
    """A raw image of ours: little-endian, its rows directly behind each other.

    Attributes:
        height: Rows.
        width: Pixels in a row.
        encoding: As in ROS.
        step: Bytes of a row.
        data: The rows.
        is_bigendian: Never.
    """

    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: int = 0
