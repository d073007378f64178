"""Images for agents, of a bounded size."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.messages import CompressedMessage
from delayed_vlm_ros.images.validation import compressed_data, compressed_name, validate_file

MAX_SIDE = 1024
"""Longest side of an image in pixels. Models scale larger images down."""

MAX_BYTES = 300_000
"""Largest JPEG file in bytes. Clients read at most 1 MiB of a message, and base64 adds a third."""

_QUALITIES = (85, 70, 50, 30, 10)


@dataclass(frozen=True)
class BoundedImage:
    """An image that clients can show.

    Attributes:
        jpeg: The file.
        width: Width in pixels.
        height: Height in pixels.
        original_size: Width and height before it was scaled down; None if it was not.
    """

    jpeg: bytes
    width: int
    height: int
    original_size: tuple[int, int] | None = None


def bounded_image(message: CompressedMessage) -> BoundedImage:
    """Return the image of a message; one that is too large is scaled down.

    Raises:
        ImageError: The data is not a JPEG or PNG of an accepted size.
    """
    data = compressed_data(message)
    height, width = validate_file(data, compressed_name(message))
    if max(height, width) <= MAX_SIDE and len(data) <= MAX_BYTES and "jpeg" in message.format:
        return BoundedImage(data, width, height)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot decode {compressed_name(message)}: {error}: ask for the key frame again") from error
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    original_size = (width, height) if image.size != (width, height) else None
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= MAX_BYTES:
            break
    return BoundedImage(file.getvalue(), image.width, image.height, original_size)
