"""A small image to find in it what neither the moment before nor the one after shows.

Finer than a ``Descriptor`` and of the same kind: logarithms of luma and of two colour ratios, in which a change of
exposure or white balance adds one constant to all cells. The constant is taken out by a median, and camera motion by
phase correlation (Kuglin and Hines 1975), to whole cells; what is left of it, each cell's range over its
neighbours explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from delayed_vlm_ros.memory.scoring.luma_grid import least_and_most_around, log_luma_grid, open_where_clipped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import RgbArray

ROWS, COLUMNS = 48, 64
"""Cells of a sketch."""
HALVED_DOWN_TO = 4 * ROWS
"""An image may be halved while its shorter side is longer than this, and the sketch still comes out right."""

_DARK_LEVEL = 10.0
# The farthest the camera may have moved between two images of one place, in cells.
_FARTHEST = 16
# Log difference from which a cell is not as it was.
_CHANGED_FROM = 0.12
# The largest share of such cells with which two images show the same place.
_SAME_PLACE_SHARE = 0.35
_WINDOW = np.outer(np.hanning(ROWS), np.hanning(COLUMNS)).astype(np.float32)
# Every so manieth row and column is enough for a median.
_SPARSE = 3


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """What an image shows, cell by cell.

    Attributes:
        values: Log luma, log red over green, log blue over green: shape (3, ROWS, COLUMNS), float32.
        lower: The smallest value among the cell and its neighbours, likewise.
        upper: The largest value there; infinite where the image is clipped.
        sharpness: Mean slope of the luma, in logarithms per cell; to be compared within one place.
        contrast: Standard deviation of the luma.
    """

    values: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    sharpness: float
    contrast: float


def downsample(image: RgbArray) -> Thumbnail:
    """Sketch an image.

    Args:
        image: RGB image, shape (H, W, 3), uint8; it may have been halved before.
    """
    values, clipped = log_luma_grid(image, ROWS, COLUMNS, halved_down_to=HALVED_DOWN_TO, dark_level=_DARK_LEVEL)
    lower, upper = least_and_most_around(values)
    open_where_clipped(lower, upper, clipped)
    luma = values[0]
    sharpness = float(np.abs(np.diff(luma, axis=1)).mean())
    return Thumbnail(values, lower, upper, sharpness, float(luma.std()))


def middle(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of each of some planes, shape (N, R, C) to (N, 1, 1); of two middle ones the larger."""
    flat = planes.reshape(len(planes), -1)
    half = flat.shape[1] // 2
    return np.asarray(np.partition(flat, half, axis=1)[:, half, None, None])


class BackgroundModel:
    """What other images of the same place show around one image: the range of each of its cells over time.

    Args:
        one: The image.
        lies_still: Whether the camera is taken not to have moved, which is quicker.
    """

    def __init__(self, one: Thumbnail, *, lies_still: bool = False) -> None:
        self._one = one
        self._lies_still = lies_still
        self._lower = np.full_like(one.lower, np.inf)
        self._upper = -self._lower

    def add(self, other: Thumbnail) -> bool:
        """Take another image's cells into the ranges.

        Returns:
            Whether it shows the same place; if not, nothing has changed.
        """
        bounds = None if self._lies_still else _bounds(self._one, other, *_shift(self._one, other))
        # On plain images the phases say nothing, and a camera that stands still has not moved.
        bounds = bounds or _bounds(self._one, other, 0, 0)
        if bounds is None:
            return False
        np.minimum(self._lower, bounds[0], out=self._lower)
        np.maximum(self._upper, bounds[1], out=self._upper)
        return True

    def with_all_of(self, other: BackgroundModel) -> BackgroundModel:
        """The ranges over what both know of the same image."""
        both = BackgroundModel(self._one)
        both._lower, both._upper = np.minimum(self._lower, other._lower), np.maximum(self._upper, other._upper)
        return both

    def excess(self) -> NDArray[np.float32]:
        """How far the image's cells lie outside of the ranges: log difference, shape (ROWS, COLUMNS), float32."""
        outside = np.maximum(_outside(self._one, self._lower, self._upper), 0.0)
        return np.asarray(np.sqrt(np.square(outside, out=outside).sum(axis=0)), np.float32)


def _outside(one: Thumbnail, lower: NDArray[np.float32], upper: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.maximum(one.values - upper, lower - one.values), np.float32)


def _shift(one: Thumbnail, other: Thumbnail) -> tuple[int, int]:
    """Rows and columns by which the other image must be moved to lie over this one."""
    # Without its mean, or the window's edge would be the clearest thing to see.
    here, there = (image.values[0] - image.values[0].mean() for image in (one, other))
    (right, down), _ = cv2.phaseCorrelate(here, there, _WINDOW)
    return -round(down), -round(right)


def _bounds(
    one: Thumbnail, other: Thumbnail, rows: int, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The other image's bounds, moved to lie over this one, at its gain; None where it shows another place."""
    if max(abs(rows), abs(columns)) > _FARTHEST:
        return None
    to_rows, from_rows = _overlap(rows, ROWS)
    to_columns, from_columns = _overlap(columns, COLUMNS)
    here = one.values[:, to_rows, to_columns][:, ::_SPARSE, ::_SPARSE]
    there = other.values[:, from_rows, from_columns][:, ::_SPARSE, ::_SPARSE]
    gain = middle(here - there)
    lower, upper = other.lower + gain, other.upper + gain
    if rows or columns:
        lower = _moved(lower, (to_rows, to_columns), (from_rows, from_columns), -np.inf)
        upper = _moved(upper, (to_rows, to_columns), (from_rows, from_columns), np.inf)
    changed = (_outside(one, lower, upper) > _CHANGED_FROM).any(axis=0)
    return None if np.count_nonzero(changed) > _SAME_PLACE_SHARE * changed.size else (lower, upper)


def _moved(
    planes: NDArray[np.float32], to: tuple[slice, slice], source: tuple[slice, slice], blank: float
) -> NDArray[np.float32]:
    """The planes moved; what comes in from outside is blank."""
    moved = np.full_like(planes, blank)
    moved[:, to[0], to[1]] = planes[:, source[0], source[1]]
    return moved


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    return slice(max(0, step), length + min(0, step)), slice(max(0, -step), length - max(0, step))
