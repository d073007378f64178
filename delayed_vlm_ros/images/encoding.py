"""Images as the browser gets them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

LIVE_WIDTH = 640
"""Most columns of the live image."""

_LIVE_QUALITY, _KEPT_QUALITY = 78, 90


def encode_live_jpeg(image: NDArray[np.uint8]) -> bytes:
    """A camera's image as JPEG, scaled down to ``LIVE_WIDTH`` where it is wider.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    height, width = image.shape[:2]
    if width > LIVE_WIDTH:
        size = (LIVE_WIDTH, max(1, round(height * LIVE_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return _jpeg(image, _LIVE_QUALITY)


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """A kept frame as JPEG, in its own size.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    return _jpeg(image, _KEPT_QUALITY)


def _jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise RuntimeError(f"OpenCV cannot write an image of shape {image.shape} as JPEG")
    return data.tobytes()
