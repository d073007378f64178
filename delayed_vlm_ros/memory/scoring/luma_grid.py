"""An image as a coarse grid of logarithms, in which a change of exposure or white balance adds one constant to all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from delayed_vlm_ros.memory.scoring.resize import halved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import RgbArray

# Cells averaging above this hold clipped pixels.
_CLIPPING_LEVEL = 235.0
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def log_luma_grid(
    image: RgbArray, rows: int, columns: int, *, halved_down_to: int, dark_level: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average an image to cells.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        rows: Rows of cells.
        columns: Columns of cells.
        halved_down_to: See `halved`.
        dark_level: Added to 0..255 values before the logarithm: below it lie noise and the black level, which should
            not count.

    Returns:
        Log luma, log red over green and log blue over green, shape (3, rows, columns), float32; and which cells are
        clipped, shape (rows, columns), bool.
    """
    small = halved(image, halved_down_to)
    cells = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    channels = np.ascontiguousarray(np.moveaxis(cells, -1, 0))
    red, green, blue = np.log(channels + dark_level)
    luma = np.log(cells @ _LUMA_WEIGHTS + dark_level)
    return np.stack([luma, red - green, blue - green]), channels.max(axis=0) > _CLIPPING_LEVEL


def least_and_most_around(planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The smallest and the largest value among each cell of some planes and its neighbours, of the planes' shape."""
    least, most = (
        np.stack([np.asarray(extreme(plane, _NEIGHBOURS), np.float32) for plane in planes])
        for extreme in (cv2.erode, cv2.dilate)
    )
    return least, most


def open_where_clipped(lower: NDArray[np.float32], upper: NDArray[np.float32], clipped: NDArray[np.bool_]) -> None:
    """Let bounds of clipped cells, shape (3, rows, columns), say only "at least this bright" and nothing of colour."""
    lower[1:, clipped] = -np.inf
    upper[:, clipped] = np.inf
