"""Sizes of image files other than JPEG and PNG, read by Pillow without decoding."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, TiffImagePlugin

from delayed_vlm_ros.errors import ImageError

_FORMATS = ("BMP", "WEBP", "TIFF", "PPM")
_ALL_ROWS = 0xFFFFFFFF  # TIFF: the whole image is one strip


def header_sizes(data: bytes, name: str) -> tuple[tuple[int, int], ...]:
    """Return (height, width) of the image in a BMP, WebP, TIFF or PPM file, and of the blocks of a TIFF.

    Args:
        data: The file.
        name: Name of the file, for error messages.

    Returns:
        First the image's size; empty for a file of another format, and for a truncated or damaged header.

    Raises:
        ImageError: Pillow's own limit refuses the image.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            blocks = (_block_size(image),) if isinstance(image, TiffImagePlugin.TiffImageFile) else ()
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large ({error}): scale it down") from error
    except Exception:  # noqa: BLE001  Pillow has no common error class for damaged headers
        return ()
    return ((height, width), *blocks)


def _block_size(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Return (height, width) of a TIFF's tile or strip: its decoder allocates a whole one, however small the image."""
    tags: Any = image.tag_v2
    rows = tags.get(TiffImagePlugin.ROWSPERSTRIP, _ALL_ROWS)
    height = int(tags.get(TiffImagePlugin.TILELENGTH, image.height if rows == _ALL_ROWS else rows))
    return height, int(tags.get(TiffImagePlugin.TILEWIDTH, image.width))
