"""The ``~/get_frames`` service: images of kept pairs."""

from __future__ import annotations

import array
from collections.abc import Iterable
from typing import Any, TypeAlias

import cv2
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.memory import Frame, KeptPair
from delayed_vlm_ros.ros.output.messages import key_frame
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.time import time_message

MAX_RESPONSE_BYTES = 32_000_000
"""Maximum size of the images in a response, in bytes; one pair is returned in any case."""

MAX_IDS = 4096
"""Maximum number of ids in a request."""

PNG, JPEG = "png", "jpeg"
_JPEG_QUALITY = 90

_Images: TypeAlias = tuple[CompressedImage, CompressedImage]

_ENCODERS: dict[str, tuple[str, list[int]]] = {
    PNG: (".png", []),
    JPEG: (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]),
}


def handle_get_frames(response: Any, request: Any, cameras: Iterable[CameraMemory]) -> None:
    """Fill a ``GetFrames`` response with the pairs of the request.

    Args:
        response: An empty response.
        request: The request.
        cameras: The cameras of the request.

    Raises:
        BadRequestError: The format is unknown or there are too many ids.
    """
    image_format = request.format or PNG
    if image_format not in _ENCODERS:
        raise BadRequestError(f"'format' must be {' or '.join(_ENCODERS)}, or empty for png, got '{image_format}'")
    if len(request.ids) > MAX_IDS:
        raise BadRequestError(
            f"'ids' must have at most {MAX_IDS} entries, or none for all kept pairs, got {len(request.ids)}"
        )
    ids = set(request.ids)
    wanted = [
        (pair, camera) for camera in cameras for pair in camera.frame_manager.snapshot() if pair.id in ids or not ids
    ]
    returned = _take_until(MAX_RESPONSE_BYTES, (_images(pair, camera, image_format) for pair, camera in wanted))
    response.key_frames = [key_frame(pair, camera) for pair, camera in wanted[: len(returned)]]
    response.first_images = [first for first, _ in returned]
    response.second_images = [second for _, second in returned]
    response.left_out = [pair.id for pair, _ in wanted[len(returned) :]]
    response.missing = sorted(ids - {pair.id for pair, _ in wanted})
    response.warnings = _warnings(len(response.missing), len(response.left_out))


def to_compressed_image(frame: Frame, camera: CameraMemory, image_format: str) -> CompressedImage:
    """Return a kept frame as a message with the stamp and frame_id of the camera's message.

    Args:
        frame: A kept frame, in the size in which the model receives it.
        camera: Camera of the frame.
        image_format: ``PNG`` (lossless) or ``JPEG``.
    """
    extension, settings = _ENCODERS[image_format]
    data = cv2.imencode(extension, frame.image[..., ::-1], settings)[1]
    header = camera.header_of(frame)
    message = CompressedImage(format=image_format, data=array.array("B", data.tobytes()))
    message.header.stamp = time_message(header.stamp_ns)
    message.header.frame_id = header.frame_id
    return message


def _images(kept: KeptPair, camera: CameraMemory, image_format: str) -> _Images:
    first, second = kept.pair.first, kept.pair.second
    return (
        to_compressed_image(first, camera, image_format),
        CompressedImage() if second is None else to_compressed_image(second, camera, image_format),
    )


def _take_until(limit_bytes: int, images: Iterable[_Images]) -> list[_Images]:
    """Return the first images whose total size is within the limit, and at least one pair. Encodes no others."""
    taken: list[_Images] = []
    size = 0
    for pair in images:
        size += sum(len(image.data) for image in pair)
        if size > limit_bytes and taken:
            break
        taken.append(pair)
    return taken


def _warnings(missing: int, left_out: int) -> list[str]:
    sentences = []
    if missing:
        sentences.append(f"{missing} of the ids are not kept: evicted, or never assigned.")
    if left_out:
        sentences.append(
            f"{left_out} pairs exceed the response limit of {MAX_RESPONSE_BYTES // 10**6} MB: request the ids in "
            "left_out in another call, or use jpeg."
        )
    return sentences
