"""Making images small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray


def halved(image: NDArray[Any], down_to: int) -> NDArray[Any]:
    """Average an image down by exact halves, which is several times faster than in one step to an odd size.

    Args:
        image: Shape (H, W, 3), uint8.
        down_to: Its shorter side is halved while it is longer than this.

    Returns:
        The smaller image; of one that is halved already, itself.
    """
    while min(image.shape[:2]) > down_to:
        height, width = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return image
