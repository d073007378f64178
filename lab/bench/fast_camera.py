"""Camera of the load benchmarks: publishes prepared images at a fixed rate.

Images are rendered and serialized once. Only their stamps are written for each publication, so the camera costs little
processor time. ``python -m lab.bench.fast_camera`` is the camera process that the benchmarks start.
"""

from __future__ import annotations

import itertools
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import rclpy
import typer
from numpy.typing import NDArray
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.scenes import Scene, render

TRANSPORTS = ("raw", "compressed")
RCLError = rclpy_implementation.RCLError

_SCENE_SEED = 3
_IMAGE_SPACING_SEC = 0.5
_STAMP_OFFSET = 4  # bytes, in a serialized message that begins with a header
_LARGEST_DELAY_SEC = 0.1  # a camera that is later than this skips images instead of catching up


def render_images(count: int, height: int, width: int) -> list[NDArray[np.uint8]]:
    """Return RGB images of one synthetic room, each ``(height, width, 3)`` uint8."""
    scene = Scene.from_seed(_SCENE_SEED)
    return [render(scene, number * _IMAGE_SPACING_SEC, height, width) for number in range(count)]


def serialize_images(images: list[NDArray[np.uint8]], transport: str = "raw") -> list[bytearray]:
    """Return images as serialized messages, ready for ``set_stamp``.

    Args:
        images: RGB images, each ``(H, W, 3)`` uint8.
        transport: ``raw`` for ``sensor_msgs/Image`` in rgb8, ``compressed`` for ``CompressedImage`` in JPEG.
    """
    return [bytearray(serialize_message(_message(image, transport))) for image in images]


def _message(image: NDArray[np.uint8], transport: str) -> Any:
    if transport == "raw":
        return image_message(image)
    message = CompressedImage(format="jpeg")
    message.data.frombytes(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
    return message


def set_stamp(message: bytearray, stamp_ns: int) -> None:
    """Write a stamp in nanoseconds into the header of a serialized message."""
    struct.pack_into("<iI", message, _STAMP_OFFSET, *divmod(stamp_ns, 10**9))


def ticks(rate: float) -> Iterator[int]:
    """Yield 0, 1, 2, … at a rate in Hz, without end."""
    due = time.monotonic()
    for number in itertools.count():
        yield number
        due = max(due + 1.0 / rate, time.monotonic() - _LARGEST_DELAY_SEC)
        time.sleep(max(0.0, due - time.monotonic()))


def command(transport: str, rate: float, height: int, width: int, **options: object) -> list[str]:
    """Return the command line of a camera process; ``options`` are further options of ``main``."""
    values = {"transport": transport, "rate": rate, "height": height, "width": width, **options}
    arguments = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "lab.bench.fast_camera", *arguments]


def main(
    transport: Annotated[str, typer.Option(help="Image transport: raw or compressed.")] = "raw",
    rate: Annotated[float, typer.Option(help="Images per second.")] = 30.0,
    height: Annotated[int, typer.Option(help="Image height in pixels.")] = 480,
    width: Annotated[int, typer.Option(help="Image width in pixels.")] = 640,
    images: Annotated[int, typer.Option(help="Different images, published in turn.")] = 4,
    depth: Annotated[int, typer.Option(help="Depth of the publisher's queue, in images.")] = 2,
    log: Annotated[
        Path | None, typer.Option(help="File for the stamp (ns) and success (0 or 1) of each image.")
    ] = None,
) -> None:
    """Publish images until the process is ended."""
    rclpy.init()
    node = Node("fast_camera")
    kind, topic = (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
    publisher = node.create_publisher(kind, topic, QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE))
    messages = serialize_images(render_images(images, height, width), transport)
    with (log or Path("/dev/null")).open("wb", buffering=0) as written:
        for number in ticks(rate):
            if not rclpy.ok():
                return
            message = messages[number % images]
            stamp_ns = time.time_ns()
            set_stamp(message, stamp_ns)
            try:
                publisher.publish(bytes(message))
            except RCLError:  # the middleware had no free buffer in time: the receivers are too slow
                written.write(struct.pack("<qq", stamp_ns, 0))
            else:
                written.write(struct.pack("<qq", stamp_ns, 1))


if __name__ == "__main__":
    typer.run(main)
