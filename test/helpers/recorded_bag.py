"""Bags with images of the demo's room, written without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene

SECOND = 10**9
START_NS = 1_700_000_000 * SECOND  # in the past
RATE = 10  # images per second
TOPIC = "/camera/image_raw"

_TYPES = get_typestore(Stores.LATEST)
_LATENCY_NS = 5_000_000
_HEIGHT, _WIDTH = 120, 160


def write_bag(path: Path, stamps_ns: Sequence[int], *, compressed: bool = False) -> Path:
    """Write a bag of images that were received ``RATE`` times per second, and return its path.

    Args:
        path: Folder of the bag; must not exist.
        stamps_ns: Stamp of each image, in nanoseconds.
        compressed: Whether to write JPEG images.
    """
    make = _compressed if compressed else _raw
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, make(0, 0).__msgtype__, typestore=_TYPES)
        for number, stamp_ns in enumerate(stamps_ns):
            message = make(number, stamp_ns)
            recorded_ns = START_NS + number * SECOND // RATE + _LATENCY_NS
            writer.write(connection, recorded_ns, _TYPES.serialize_cdr(message, message.__msgtype__))
    return path


def regular_stamps(count: int, start_ns: int = START_NS) -> list[int]:
    """Return stamps of consecutive images at ``RATE``."""
    return [start_ns + number * SECOND // RATE for number in range(count)]


def _header(stamp_ns: int):
    stamp = _TYPES.types["builtin_interfaces/msg/Time"](sec=stamp_ns // SECOND, nanosec=stamp_ns % SECOND)
    return _TYPES.types["std_msgs/msg/Header"](stamp=stamp, frame_id="lens")


def _image(number: int):
    return render(story_scene(), number / RATE, _HEIGHT, _WIDTH)


def _raw(number: int, stamp_ns: int):
    data = _image(number).reshape(-1)
    return _TYPES.types["sensor_msgs/msg/Image"](
        _header(stamp_ns), _HEIGHT, _WIDTH, "rgb8", is_bigendian=0, step=3 * _WIDTH, data=data
    )


def _compressed(number: int, stamp_ns: int):
    data = cv2.imencode(".jpg", _image(number)[..., ::-1])[1].reshape(-1)
    return _TYPES.types["sensor_msgs/msg/CompressedImage"](_header(stamp_ns), "jpeg", data)
