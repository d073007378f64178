"""RGB arrays to JPEG and PNG, for web pages, recordings and exports."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LIVE_WIDTH = 640
"""Maximum width of a live image, in pixels."""

THUMBNAIL_WIDTH = 320
"""Maximum width of a thumbnail, in pixels."""

_LIVE_QUALITY = 78


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode an RGB image as JPEG at its own size.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
        quality: JPEG quality, 1 to 100.
    """
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError(f"OpenCV cannot encode an image of shape {image.shape} as JPEG")
    return data.tobytes()


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an RGB image as PNG, without loss.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise RuntimeError(f"OpenCV cannot encode an image of shape {image.shape} as PNG")
    return data.tobytes()


def encode_live_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode a camera image as JPEG, scaled down to ``LIVE_WIDTH`` where it is wider.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    return _encode_scaled(image, LIVE_WIDTH)


def encode_thumbnail(image: NDArray[np.uint8]) -> bytes:
    """Encode an image as JPEG, scaled down to ``THUMBNAIL_WIDTH`` where it is wider.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    return _encode_scaled(image, THUMBNAIL_WIDTH)


def _encode_scaled(image: NDArray[np.uint8], max_width: int) -> bytes:
    height, width = image.shape[:2]
    if width > max_width:
        size = (max_width, max(1, round(height * max_width / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return encode_jpeg(image, _LIVE_QUALITY)
