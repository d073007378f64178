"""Fast image reduction."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def halved(image: NDArray[Any], limit: int) -> NDArray[Any]:
    """Return an image averaged down by exact halves, which is several times faster than one step to an odd size.

    Args:
        image: Shape (H, W, 3), uint8.
        limit: Length in pixels; the image is halved while its shorter side is longer.

    Returns:
        The smaller image; the same object if it is within the limit.
    """
    while min(image.shape[:2]) > limit:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        small = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(small)
    return image
