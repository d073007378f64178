"""The fields of image messages that conversion reads, for messages of ROS and of bags read without ROS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

RAW_TYPE = "sensor_msgs/msg/Image"
"""Type of a topic with raw images."""

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
"""Type of a topic with compressed images."""


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
    """A raw image without row padding, little-endian.

    Attributes:
        height: Image height, in pixels.
        width: Image width, in pixels.
        encoding: ROS encoding name.
        step: Length of a row, in bytes.
        data: Pixel data, row after row.
        is_bigendian: Byte order of the pixel data; always 0.
    """

    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: int = 0
