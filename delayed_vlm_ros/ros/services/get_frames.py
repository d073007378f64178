"""Requests for the images of kept pairs."""

from __future__ import annotations

import array
from collections.abc import Iterable
from typing import Any, TypeAlias

import cv2
from sensor_msgs.msg import CompressedImage

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.memory import Frame, KeptPair
from delayed_vlm_ros.ros.output.messages import key_frame
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.time import time_message

MAX_RESPONSE_BYTES = 32_000_000
"""Most bytes of images in one response, but for a single pair."""

MAX_IDS = 4096
"""Most ids in one request."""

PNG, JPEG = "png", "jpeg"
_JPEG_QUALITY = 90

_Images: TypeAlias = tuple[CompressedImage, CompressedImage]

_ENCODERS: dict[str, tuple[str, list[int]]] = {
    PNG: (".png", []),
    JPEG: (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]),
}


def handle_get_frames(response: Any, request: Any, cameras: Iterable[CameraMemory]) -> None:
    """Fill a ``GetFrames`` response with what the request asks for.

    Args:
        response: An empty one.
        request: The request.
        cameras: The cameras that it means.

    Raises:
        BadRequestError: The request makes no sense.
    """
    image_format = request.format or PNG
    if image_format not in _ENCODERS:
        raise BadRequestError(f"format is '{image_format}': give {' or '.join(_ENCODERS)}, or leave it empty for png")
    if len(request.ids) > MAX_IDS:
        raise BadRequestError(f"{len(request.ids)} ids are given: give at most {MAX_IDS}, or none for all kept frames")
    asked = set(request.ids)
    wanted = [
        (pair, camera)
        for camera in cameras
        for pair in camera.frame_manager.snapshot()
        if pair.id in asked or not asked
    ]
    shown = _within_limit((_images(pair, camera, image_format) for pair, camera in wanted), MAX_RESPONSE_BYTES)
    response.key_frames = [key_frame(pair, camera) for pair, camera in wanted[: len(shown)]]
    response.first_images = [first for first, _ in shown]
    response.second_images = [second for _, second in shown]
    response.left_out = [pair.id for pair, _ in wanted[len(shown) :]]
    response.missing = sorted(asked - {pair.id for pair, _ in wanted})
    response.notice = _notice(len(response.missing), len(response.left_out))


def _within_limit(images: Iterable[_Images], limit: int) -> list[_Images]:
    """The first ones that together have no more bytes than the limit, and one in any case. Makes no more than that."""
    shown: list[_Images] = []
    size = 0
    for pair in images:
        size += sum(len(image.data) for image in pair)
        if size > limit and shown:
            break
        shown.append(pair)
    return shown


def _images(kept: KeptPair, camera: CameraMemory, image_format: str) -> _Images:
    first, second = kept.pair.first, kept.pair.second
    return (
        to_compressed_image(first, camera, image_format),
        CompressedImage() if second is None else to_compressed_image(second, camera, image_format),
    )


def to_compressed_image(frame: Frame, camera: CameraMemory, image_format: str) -> CompressedImage:
    """A kept frame as it is encoded for the model, under the stamp and frame of the camera's message.

    Args:
        frame: The frame.
        camera: Its camera.
        image_format: ``PNG``, which loses nothing, or ``JPEG``.
    """
    extension, settings = _ENCODERS[image_format]
    data = cv2.imencode(extension, frame.image[..., ::-1], settings)[1]
    header = camera.header_of(frame)
    message = CompressedImage(format=image_format, data=array.array("B", data.tobytes()))
    message.header.stamp = time_message(header.stamp_ns)
    message.header.frame_id = header.frame_id
    return message


def _notice(missing: int, left_out: int) -> str:
    sentences = []
    if missing:
        sentences.append(f"{missing} of the ids are not kept: they have left the memory, or never were there.")
    if left_out:
        sentences.append(
            f"{left_out} of the key frames do not fit into a response of {MAX_RESPONSE_BYTES // 10**6} MB: ask for the "
            "ids in left_out by another call, or for jpeg."
        )
    return " ".join(sentences)
