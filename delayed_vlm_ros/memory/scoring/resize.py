"""Making pictures small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray


def halved(picture: NDArray[Any], down_to: int) -> NDArray[Any]:
    """Average a picture down by exact halves, which is several times faster than in one step to an odd size.

    Args:
        picture: Shape (H, W, 3), uint8.
        down_to: Its shorter side is halved while it is longer than this.

    Returns:
        The smaller picture; of one that is halved already, itself.
    """
    while min(picture.shape[:2]) > down_to:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        picture = cv2.resize(picture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return picture
