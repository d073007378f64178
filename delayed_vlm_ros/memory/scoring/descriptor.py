"""A small descriptor of an image, and the distance between two of them.

An image is averaged to a coarse grid of cells and stored as the logarithms of its luma and of two colour ratios. A
change of exposure or white balance adds one constant to all cells; the comparison subtracts the median over the cells.

Differences count only beyond what a camera shake of half a cell explains. Each cell is compared with the range of the
other image's values, interpolated half a cell around it: the sampling-insensitive dissimilarity of Birchfield and
Tomasi (IEEE PAMI 20(4), 1998). The distance is the mean over the few cells that differ most, so that an object covering
2–3 % of the image is not averaged away by the unchanged rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.frame import RgbArray
from delayed_vlm_ros.memory.scoring.luma_grid import log_luma_grid, neighbourhood_range, widen_where_clipped

CELLS = 24
"""Number of rows and of columns of cells in a descriptor."""

_COMPARED_SHARE = 0.02
_COMPARED_CELLS = round(_COMPARED_SHARE * CELLS * CELLS)
# A fifth of the cells is enough for a median. Their number is odd, so the median is one of their values, and the
# distance is symmetric.
_SAMPLED_CELLS = slice(0, CELLS * CELLS - 1, 5)
_MIDDLE = (CELLS * CELLS - 1) // 5 // 2
# Leaves enough pixels per cell for cells of fractional width.
_HALVING_LIMIT = 6 * CELLS
_DARK_LEVEL = 16.0
# Log difference that maps to a distance of 1 - 1/e.
_LOG_SCALE = 0.45
# Log difference from which a cell counts as changed: one sixth brighter or darker.
_CHANGED_FROM = 0.15
# In street and film scenes, cuts change 44 % of the cells or more, and motion within a scene at most 35 %.
_CUT_SHARE = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Descriptor:
    """Cell values of an image.

    All arrays are float32 of shape (3, CELLS * CELLS): log luma, log red over green, log blue over green.

    Attributes:
        values: Values of the cells.
        lower: Minimum within half a cell around.
        upper: Maximum within half a cell around. Bounds that clipping hides are infinite: a clipped cell has only a
            lower bound of its luma.
    """

    values: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]


def describe(image: RgbArray) -> Descriptor:
    """Return the descriptor of an image.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
    """
    values, clipped = log_luma_grid(image, CELLS, CELLS, halving_limit=_HALVING_LIMIT, dark_level=_DARK_LEVEL)
    # The extremes half-way to the neighbours are half-way to the neighbours' extremes.
    lower, upper = (np.asarray((values + extreme) / 2, np.float32) for extreme in neighbourhood_range(values))
    widen_where_clipped(lower, upper, clipped)
    return Descriptor(*(one.reshape(3, -1) for one in (values, lower, upper)))


def distances(one: Descriptor, others: Sequence[Descriptor]) -> NDArray[np.float64]:
    """Return the distances between one image and several others.

    Args:
        one: Descriptor of the image.
        others: Descriptors of N other images.

    Returns:
        N distances in 0..1, as from ``distance``.
    """
    if not others:
        return np.empty(0)
    return _to_distances(_cell_differences(one, others))


def _to_distances(differences: NDArray[np.float32]) -> NDArray[np.float64]:
    strongest = np.partition(differences, -_COMPARED_CELLS, axis=1)[:, -_COMPARED_CELLS:].mean(axis=1, dtype=np.float64)
    return np.asarray(-np.expm1(-strongest / _LOG_SCALE))


def distances_and_extents(
    one: Descriptor, others: Sequence[Descriptor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how strongly and over which share of the image one image differs from several others.

    Args:
        one: Descriptor of the image.
        others: Descriptors of N other images.

    Returns:
        N distances, as from ``distance``, and N shares of changed cells, 0..1: small for a new object, large for
        another place.
    """
    if not others:
        return np.empty(0), np.empty(0)
    differences = _cell_differences(one, others)
    return _to_distances(differences), np.asarray((differences > _CHANGED_FROM).mean(axis=1, dtype=np.float64))


def _cell_differences(one: Descriptor, others: Sequence[Descriptor]) -> NDArray[np.float32]:
    """Return log differences beyond gain and half a cell of shake, shape (N, CELLS * CELLS)."""
    values = np.stack([other.values for other in others])
    lower = np.stack([other.lower for other in others])
    upper = np.stack([other.upper for other in others])
    steps = one.values - values
    gain = np.partition(steps[..., _SAMPLED_CELLS], _MIDDLE, axis=2)[..., _MIDDLE, None]
    unexplained = np.minimum(
        _outside(one.values - gain, lower, upper),
        _outside(values + gain, one.lower, one.upper),
    )
    return np.asarray(np.sqrt(np.square(unexplained, out=unexplained).sum(axis=1)), np.float32)


def _outside(
    values: NDArray[np.float32], lower: NDArray[np.float32], upper: NDArray[np.float32]
) -> NDArray[np.float32]:
    outside = np.maximum(values - upper, lower - values)
    return np.asarray(np.maximum(outside, 0, out=outside), np.float32)


def distance(a: Descriptor, b: Descriptor) -> float:
    """Return the distance between two images; it is symmetric.

    Args:
        a: Descriptor of one image.
        b: Descriptor of the other.

    Returns:
        0 for the same view up to exposure, noise and small shake; about 0.6 if an object of clear contrast covers 2–3 %
        of the image; close to 1 for another scene.
    """
    return float(distances(a, [b])[0])


def is_cut(a: Descriptor, b: Descriptor) -> bool:
    """Return whether a large share of the image differs, as in a cut to another scene.

    Moving objects cause similar distances, but in a smaller share of the image.

    Args:
        a: Descriptor of one image.
        b: Descriptor of the other.
    """
    return bool((_cell_differences(a, [b]) > _CHANGED_FROM).mean() > _CUT_SHARE)
