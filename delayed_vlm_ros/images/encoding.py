"""RGB arrays to JPEG, for web pages and recordings."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LIVE_WIDTH = 640
"""Maximum width of a live image, in pixels."""

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


def encode_live_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode a camera image as JPEG, scaled down to ``LIVE_WIDTH`` where it is wider.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    height, width = image.shape[:2]
    if width > LIVE_WIDTH:
        size = (LIVE_WIDTH, max(1, round(height * LIVE_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return encode_jpeg(image, _LIVE_QUALITY)
