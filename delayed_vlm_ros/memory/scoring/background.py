"""A model of what earlier and later images show of one place, to find what only one image shows.

A ``Thumbnail`` is finer than a ``Descriptor`` and of the same kind: logarithms of luma and of two colour ratios. A
change of exposure or white balance adds one constant to all cells, which the median removes. Phase correlation (Kuglin
and Hines 1975) removes camera motion in whole cells; each cell's range over its neighbours covers the remaining motion.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.frame import RgbArray
from delayed_vlm_ros.memory.scoring.luma_grid import log_luma_grid, neighbourhood_range, widen_where_clipped

ROWS, COLUMNS = 48, 64
"""Number of rows and columns of cells in a thumbnail."""
HALVING_LIMIT = 4 * ROWS
"""Shorter side in pixels down to which an image may be halved without changing its thumbnail noticeably."""

_DARK_LEVEL = 10.0
_MAX_SHIFT = 16  # largest camera motion between two images of one place, in cells
_CHANGED_FROM = 0.12  # log difference from which a cell counts as changed
_SAME_PLACE_SHARE = 0.35  # largest share of changed cells between two images of one place
_WINDOW = np.outer(np.hanning(ROWS), np.hanning(COLUMNS)).astype(np.float32)
_STEP = 3  # every third row and column is enough for a median


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """Cell values of an image, finer than a ``Descriptor``.

    Attributes:
        values: Log luma, log red over green, log blue over green; shape (3, ROWS, COLUMNS), float32.
        lower: Minimum over the cell and its neighbours, same shape.
        upper: Maximum over the cell and its neighbours, same shape; infinite where the image is clipped.
        sharpness: Mean slope of the luma, in log units per cell; comparable within one place.
        contrast: Standard deviation of the log luma.
    """

    values: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    sharpness: float
    contrast: float


def downsample(image: RgbArray) -> Thumbnail:
    """Return the thumbnail of an image.

    Args:
        image: RGB image, shape (H, W, 3), uint8; may be halved down to ``HALVING_LIMIT``.
    """
    values, clipped = log_luma_grid(image, ROWS, COLUMNS, halving_limit=HALVING_LIMIT, dark_level=_DARK_LEVEL)
    lower, upper = neighbourhood_range(values)
    widen_where_clipped(lower, upper, clipped)
    luma = values[0]
    sharpness = float(np.abs(np.diff(luma, axis=1)).mean())
    return Thumbnail(values, lower, upper, sharpness, float(luma.std()))


def upper_median(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median of each plane, the larger of two middle values; shape (N, R, C) to (N, 1, 1)."""
    flat = planes.reshape(len(planes), -1)
    half = flat.shape[1] // 2
    return np.asarray(np.partition(flat, half, axis=1)[:, half, None, None])


class BackgroundModel:
    """The range over time of each cell of one image, from other images of the same place.

    Args:
        one: Thumbnail of the image.
        is_still: Whether to assume that the camera has not moved, which is faster.
    """

    def __init__(self, one: Thumbnail, *, is_still: bool = False) -> None:
        self._one = one
        self._is_still = is_still
        self._lower = np.full_like(one.lower, np.inf)
        self._upper = -self._lower

    def add(self, other: Thumbnail) -> bool:
        """Extend the ranges by another image.

        Returns:
            Whether the image shows the same place; if not, the ranges are unchanged.
        """
        bounds = None if self._is_still else _bounds(self._one, other, *_shift(self._one, other))
        # Phase correlation fails on plain images, and a camera that stands still has no shift.
        bounds = bounds or _bounds(self._one, other, 0, 0)
        if bounds is None:
            return False
        np.minimum(self._lower, bounds[0], out=self._lower)
        np.maximum(self._upper, bounds[1], out=self._upper)
        return True

    def merged_with(self, other: BackgroundModel) -> BackgroundModel:
        """Return the ranges over the images of two models of the same image."""
        both = BackgroundModel(self._one)
        both._lower, both._upper = np.minimum(self._lower, other._lower), np.maximum(self._upper, other._upper)
        return both

    def excess(self) -> NDArray[np.float32]:
        """Return how far the image's cells are outside of the ranges: log difference, (ROWS, COLUMNS), float32."""
        outside = np.maximum(_outside(self._one, self._lower, self._upper), 0.0)
        return np.asarray(np.sqrt(np.square(outside, out=outside).sum(axis=0)), np.float32)


def _outside(one: Thumbnail, lower: NDArray[np.float32], upper: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(one.values - upper, lower - one.values), np.float32)


def _shift(one: Thumbnail, other: Thumbnail) -> tuple[int, int]:
    """Return the rows and columns by which to move the other image onto this one."""
    # Without subtracting the mean, the edge of the window would dominate the correlation.
    here, there = (image.values[0] - image.values[0].mean() for image in (one, other))
    (right, down), _ = cv2.phaseCorrelate(here, there, _WINDOW)
    return -round(down), -round(right)


def _bounds(
    one: Thumbnail, other: Thumbnail, rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the other image's bounds, shifted onto this image and at its gain; None if it shows another place."""
    if max(abs(rows), abs(columns)) > _MAX_SHIFT:
        return None
    to_rows, from_rows = _overlap(rows, ROWS)
    to_columns, from_columns = _overlap(columns, COLUMNS)
    here = one.values[:, to_rows, to_columns][:, ::_STEP, ::_STEP]
    there = other.values[:, from_rows, from_columns][:, ::_STEP, ::_STEP]
    gain = upper_median(here - there)
    lower, upper = other.lower + gain, other.upper + gain
    if rows or columns:
        lower = _moved(lower, (to_rows, to_columns), (from_rows, from_columns), -np.inf)
        upper = _moved(upper, (to_rows, to_columns), (from_rows, from_columns), np.inf)
    changed = (_outside(one, lower, upper) > _CHANGED_FROM).any(axis=0)
    return None if np.count_nonzero(changed) > _SAME_PLACE_SHARE * changed.size else (lower, upper)


def _moved(
    planes: NDArray[np.float32], to: tuple[slice, slice], source: tuple[slice, slice], fill: float
) -> NDArray[np.float32]:
    """Return the shifted planes; cells from outside of the image get the fill value."""
    moved = np.full_like(planes, fill)
    moved[:, to[0], to[1]] = planes[:, source[0], source[1]]
    return moved


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    return slice(max(0, step), length + min(0, step)), slice(max(0, -step), length - max(0, step))
