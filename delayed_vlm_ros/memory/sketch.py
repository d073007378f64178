"""A small picture to find in it what neither the moment before nor the one after shows.

Finer than a ``Descriptor`` and of the same kind: logarithms of luma and of two colour ratios, in which a change of
exposure or white balance adds one constant to all cells. The constant is taken out by a median, and camera motion by
phase correlation (Kuglin and Hines 1975), to whole cells; what is left of it, each cell's range over its
neighbours explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import RgbArray

ROWS, COLUMNS = 48, 64
"""Cells of a sketch."""

# Added to 0..255 values before the logarithm: below it lie noise and the black level, and they should not count.
_DARK_LEVEL = 10.0
# Cells averaging above this hold clipped pixels: they say "at least this bright" and nothing of colour.
_CLIPPING_LEVEL = 235.0
_HALVED_DOWN_TO = 4 * ROWS
# The farthest the camera may have moved between two pictures of one place, in cells.
_FARTHEST = 16
# Log difference from which a cell is not as it was.
_CHANGED_FROM = 0.12
# The largest share of such cells with which two pictures show the same place.
_SAME_PLACE_SHARE = 0.35
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_WINDOW = np.outer(np.hanning(ROWS), np.hanning(COLUMNS)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What a picture shows, cell by cell; arrays are float32 of shape (ROWS, COLUMNS, 3) unless said otherwise.

    Attributes:
        values: Log luma, log red over green, log blue over green.
        lower: The smallest value among the cell and its neighbours.
        upper: The largest value there; infinite where the picture is clipped.
        spectrum: Fourier transform of the windowed luma without its mean, complex64 of shape (ROWS, COLUMNS // 2 + 1).
        sharpness: Mean slope of the luma, in logarithms per cell; to be compared within one place.
        contrast: Standard deviation of the luma.
    """

    values: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    spectrum: NDArray[np.complex64]
    sharpness: float
    contrast: float


def sketch(image: RgbArray) -> Sketch:
    """Sketch a picture.

    Args:
        image: RGB picture, shape (H, W, 3), uint8.
    """
    picture: NDArray[Any] = image
    # Averaging down by exact halves first is several times faster than in one step.
    while picture.shape[0] > _HALVED_DOWN_TO:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        picture = cv2.resize(picture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    cells = cv2.resize(picture, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA).astype(np.float32)
    logs = np.log(cells + _DARK_LEVEL)
    luma = np.log(cells @ _LUMA + _DARK_LEVEL)
    values = np.stack([luma, logs[..., 0] - logs[..., 1], logs[..., 2] - logs[..., 1]], axis=-1)
    lower = np.asarray(cv2.erode(values, _NEIGHBOURS), np.float32)
    upper = np.asarray(cv2.dilate(values, _NEIGHBOURS), np.float32)
    clipped = cells.max(axis=-1) > _CLIPPING_LEVEL
    if clipped.any():
        lower[clipped, 1:] = -np.inf
        upper[clipped] = np.inf
    spectrum = np.fft.rfft2((luma - luma.mean()) * _WINDOW).astype(np.complex64)
    sharpness = float(np.abs(np.diff(luma, axis=1)).mean())
    return Sketch(values, lower, upper, spectrum, sharpness, float(luma.std()))


def _shift(one: Sketch, other: Sketch) -> tuple[int, int]:
    """Rows and columns by which the other picture must be moved to lie over this one."""
    cross = one.spectrum * other.spectrum.conj()
    peaks = np.fft.irfft2(cross / (np.abs(cross) + 1e-3), s=(ROWS, COLUMNS))
    row, column = divmod(int(peaks.argmax()), COLUMNS)
    return row - ROWS * (row > ROWS // 2), column - COLUMNS * (column > COLUMNS // 2)


def _moved(array: NDArray[np.float32], rows: int, columns: int, blank: float) -> NDArray[np.float32]:
    """The array moved down and to the right; what comes in from outside is blank."""
    moved = np.full_like(array, blank)
    to_rows, from_rows = _overlap(rows, ROWS)
    to_columns, from_columns = _overlap(columns, COLUMNS)
    moved[to_rows, to_columns] = array[from_rows, from_columns]
    return moved


def middle(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of each of three values over cells, shape (N, 3) to (3,); of two middle ones the larger."""
    half = len(cells) // 2
    return np.asarray(np.partition(np.ascontiguousarray(cells.T), half, axis=1)[:, half])


def _overlap(step: int, length: int) -> tuple[slice, slice]:
    return slice(max(0, step), length + min(0, step)), slice(max(0, -step), length - max(0, step))


class Surroundings:
    """What other pictures of the same place show around one picture: the range of each of its cells over time.

    Args:
        one: The picture.
    """

    def __init__(self, one: Sketch) -> None:
        self._one = one
        self._lower = np.full((ROWS, COLUMNS, 3), np.inf, np.float32)
        self._upper = -self._lower

    def add(self, other: Sketch) -> bool:
        """Take another picture's cells into the ranges.

        Returns:
            Whether it shows the same place; if not, nothing has changed.
        """
        bounds = _bounds(self._one, other)
        if bounds is None:
            return False
        np.minimum(self._lower, bounds[0], out=self._lower)
        np.maximum(self._upper, bounds[1], out=self._upper)
        return True

    def excess(self) -> NDArray[np.float32]:
        """How far the picture's cells lie outside of the ranges: log difference, shape (ROWS, COLUMNS), float32."""
        outside = np.maximum(self._one.values - self._upper, self._lower - self._one.values)
        return np.asarray(np.sqrt(np.square(np.maximum(outside, 0.0)).sum(axis=-1)), np.float32)


def _bounds(one: Sketch, other: Sketch) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The other picture's bounds, laid over this one and at its gain; None where it shows another place."""
    rows, columns = _shift(one, other)
    if max(abs(rows), abs(columns)) > _FARTHEST:
        return None
    to_rows, from_rows = _overlap(rows, ROWS)
    to_columns, from_columns = _overlap(columns, COLUMNS)
    difference = one.values[to_rows, to_columns] - other.values[from_rows, from_columns]
    gain = middle(difference[::2, ::2].reshape(-1, 3))
    lower = _moved(other.lower, rows, columns, -np.inf) + gain
    upper = _moved(other.upper, rows, columns, np.inf) + gain
    outside = np.maximum(one.values - upper, lower - one.values).max(axis=-1)
    return None if (outside > _CHANGED_FROM).mean() > _SAME_PLACE_SHARE else (lower, upper)
