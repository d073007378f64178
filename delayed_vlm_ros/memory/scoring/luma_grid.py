"""A coarse grid of logarithms of an image; a change of exposure or white balance adds one constant to all cells."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.frame import RgbArray
from delayed_vlm_ros.memory.scoring.resize import halved

_CLIPPING_LEVEL = 235.0  # cells with a mean above this contain clipped pixels
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)
_NEIGHBOURS = np.ones((3, 3), np.uint8)


def log_luma_grid(
    image: RgbArray, rows: int, columns: int, *, halving_limit: int, dark_level: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Average an image to cells.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        rows: Number of rows of cells.
        columns: Number of columns of cells.
        halving_limit: Limit for ``halved``, in pixels.
        dark_level: Constant added to 0..255 values before the logarithm, to suppress noise and the black level.

    Returns:
        Log luma, log red over green and log blue over green, shape (3, rows, columns), float32; and a mask of the
        clipped cells, shape (rows, columns), bool.
    """
    small = halved(image, halving_limit)
    cells = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    channels = np.ascontiguousarray(np.moveaxis(cells, -1, 0))
    red, green, blue = np.log(channels + dark_level)
    luma = np.log(cells @ _LUMA_WEIGHTS + dark_level)
    return np.stack([luma, red - green, blue - green]), channels.max(axis=0) > _CLIPPING_LEVEL


def neighbourhood_range(planes: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the minimum and the maximum over each cell and its neighbours, each of the same shape as ``planes``."""
    lower, upper = (
        np.stack([np.asarray(extreme(plane, _NEIGHBOURS), np.float32) for plane in planes])
        for extreme in (cv2.erode, cv2.dilate)
    )
    return lower, upper


def widen_where_clipped(lower: NDArray[np.float32], upper: NDArray[np.float32], clipped: NDArray[np.bool_]) -> None:
    """Make bounds of clipped cells infinite where unknown: only a lower bound of luma remains.

    Args:
        lower: Lower bounds, shape (3, rows, columns); modified in place.
        upper: Upper bounds, shape (3, rows, columns); modified in place.
        clipped: Mask of the clipped cells, shape (rows, columns).
    """
    lower[1:, clipped] = -np.inf
    upper[:, clipped] = np.inf
