"""A small description of what an image shows, and how different two of them are.

An image is averaged to a coarse grid of cells and kept as the logarithms of its luma and of its two colour ratios,
where a change of exposure or white balance adds one constant to all cells. Comparing takes that constant out by its
median over the cells. Differences count only beyond what half a cell of camera shake explains: each cell is compared
with the range of the other image's values interpolated half a cell around it, the sampling-insensitive
dissimilarity of Birchfield and Tomasi (IEEE PAMI 20(4), 1998). The distance is the mean over the few cells that differ
most, so that a thing covering 2–3 % of the image is not averaged away by the rest that stayed as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from delayed_vlm_ros.memory.scoring.luma_grid import least_and_most_around, log_luma_grid, open_where_clipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import RgbArray

CELLS = 24
"""Rows and columns of cells in a descriptor."""

_COMPARED_SHARE = 0.02
_COMPARED_CELLS = round(_COMPARED_SHARE * CELLS * CELLS)
# A fifth of the cells is enough for a median. They are an odd number, so that it is one of them whichever image is
# taken from the other.
_SOME = slice(0, CELLS * CELLS - 1, 5)
_MIDDLE = (CELLS * CELLS - 1) // 5 // 2
# Still enough pixels in each cell that cells of broken width come out right.
_HALVED_DOWN_TO = 6 * CELLS
_DARK_LEVEL = 16.0
# Log difference that becomes a distance of 1 - 1/e.
_LOG_SCALE = 0.45
# Log difference from which a cell counts as changed: a sixth brighter or darker.
_CHANGED_FROM = 0.15
# In street and film scenes, cuts change 44 % of the cells or more, and motion within a scene at most 35 %.
_CUT_SHARE = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Descriptor:
    """What an image shows, cell by cell.

    All arrays are float32 of shape (3, CELLS * CELLS): log luma, log red over green, log blue over green.

    Attributes:
        values: The cells' own values.
        lower: The smallest value within half a cell around.
        upper: The largest value within half a cell around. Where the image is clipped it says only "at least this
            bright" and nothing of colour: the bounds that are not known are infinite.
    """

    values: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]


def describe(image: RgbArray) -> Descriptor:
    """Describe an image.

    Args:
        image: RGB image, shape (H, W, 3), uint8.

    Returns:
        Its descriptor.
    """
    values, clipped = log_luma_grid(image, CELLS, CELLS, halved_down_to=_HALVED_DOWN_TO, dark_level=_DARK_LEVEL)
    # The extremes of the half-way points to the neighbours are half-way to the neighbours' extremes.
    lower, upper = (np.asarray((values + extreme) / 2, np.float32) for extreme in least_and_most_around(values))
    open_where_clipped(lower, upper, clipped)
    return Descriptor(*(one.reshape(3, -1) for one in (values, lower, upper)))


def distances(one: Descriptor, others: Sequence[Descriptor]) -> NDArray[np.float64]:
    """Compare one image with several.

    Args:
        one: An image's descriptor.
        others: Those of N others.

    Returns:
        N distances in 0..1, see `distance`.
    """
    if not others:
        return np.empty(0)
    return _distances_of(_cell_differences(one, others))


def _distances_of(differences: NDArray[np.float32]) -> NDArray[np.float64]:
    strongest = np.partition(differences, -_COMPARED_CELLS, axis=1)[:, -_COMPARED_CELLS:].mean(axis=1, dtype=np.float64)
    return np.asarray(-np.expm1(-strongest / _LOG_SCALE))


def distances_and_extents(
    one: Descriptor, others: Sequence[Descriptor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare one image with several, by how much differs and by how far it reaches.

    Args:
        one: An image's descriptor.
        others: Those of N others.

    Returns:
        N distances, see `distance`, and N shares of the image that is not the same: small for a thing that came,
        large for another place.
    """
    if not others:
        return np.empty(0), np.empty(0)
    differences = _cell_differences(one, others)
    return _distances_of(differences), np.asarray((differences > _CHANGED_FROM).mean(axis=1, dtype=np.float64))


def _cell_differences(one: Descriptor, others: Sequence[Descriptor]) -> NDArray[np.float32]:
    """Log differences that neither gain nor half a cell of shake explains, shape (N, CELLS * CELLS)."""
    values = np.stack([other.values for other in others])
    lower = np.stack([other.lower for other in others])
    upper = np.stack([other.upper for other in others])
    steps = one.values - values
    gain = np.partition(steps[..., _SOME], _MIDDLE, axis=2)[..., _MIDDLE, None]
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
    """Compare two images.

    Args:
        a: One image's descriptor.
        b: The other's.

    Returns:
        0 for the same view up to exposure, noise and small shake; about 0.6 when a thing of clear contrast covers 2–3 %
        more of the image; towards 1 for another scene. Symmetric.
    """
    return float(distances(a, [b])[0])


def is_cut(a: Descriptor, b: Descriptor) -> bool:
    """Tell a cut to another scene from something that moved: they differ in extent, hardly in distance.

    Args:
        a: One image's descriptor.
        b: The other's.

    Returns:
        Whether a large part of the image is not the same.
    """
    return bool((_cell_differences(a, [b]) > _CHANGED_FROM).mean() > _CUT_SHARE)
