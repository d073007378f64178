"""What stands out in an image from the moments before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from delayed_vlm_ros.memory.scoring.background import COLUMNS, ROWS, BackgroundModel, Thumbnail, middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Log difference from which a cell stands out.
_STANDS_OUT_FROM = 0.12
# Cells of the smallest thing: 0.2 % of the image.
_LEAST_CELLS = 6
_MOST_BLOBS = 3
# The largest share of an image that came to stay at one time: more is another view.
_MOST_LASTING = 0.12


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A thing in an image that is not there before and after.

    Attributes:
        x: Its middle, in cells from the left.
        y: Its middle, in cells from the top.
        area: The share of the image that it covers.
        contrast: How far its cells lie outside of what was there, mean log difference.
        colour: Mean of its cells' values, shape (3,), float32, without the image's median.
        came_and_went: Whether it is known not to have been there before, and to be gone after; else only one of them
            is known: it came to stay, or nobody can say since the camera did.
    """

    x: float
    y: float
    area: float
    contrast: float
    colour: NDArray[np.float32]
    came_and_went: bool

    @property
    def weight(self) -> float:
        """How much it counts: √contrast × area^¼, so that small and large things are not worlds apart."""
        return float(np.sqrt(self.contrast) * self.area**0.25)


@dataclass(frozen=True, slots=True, eq=False)
class Foreground:
    """What stands out in one image.

    Attributes:
        blobs: What came and went, then what came to stay; of either a few at most, the heaviest first.
        is_place_known: Whether images of the same place were found around it.
        sharpness: The image's ÷ that of the sharpest of them.
    """

    blobs: tuple[Blob, ...]
    is_place_known: bool
    sharpness: float


def foreground(one: Thumbnail, before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> Foreground:
    """Find what stands out in an image: what came and went, and what came to stay.

    Most images have nothing, which the nearest earlier ones are enough to tell.

    Args:
        one: The image's sketch.
        before: Those of earlier images, the nearest first.
        after: Those of later ones, likewise.
    """
    as_it_lies = _Side(BackgroundModel(one, lies_still=True), [])
    if before and as_it_lies.explains(before[:1]):
        return _standouts(one, [as_it_lies], ())
    earlier, later = sides = [_Side(BackgroundModel(one), []) for _ in range(2)]
    if earlier.explains(before):
        return _standouts(one, sides, ())
    later.explains(after)
    if not (earlier.same_place or later.same_place):
        return _standouts(one, sides, ())
    is_between = bool(earlier.same_place and later.same_place)
    excess = earlier.around.with_all_of(later.around).excess()
    blobs = _blobs(one, excess, excess > _STANDS_OUT_FROM, came_and_went=is_between)
    if is_between:
        excess = earlier.around.excess()
        lasting = (excess > _STANDS_OUT_FROM) & (later.around.excess() <= _STANDS_OUT_FROM)
        if lasting.mean() <= _MOST_LASTING:
            blobs += _blobs(one, excess, lasting, came_and_went=False)
    return _standouts(one, sides, blobs)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One side in time: what it shows around the image, and the sketches of the same place that were looked at."""

    around: BackgroundModel
    same_place: list[Thumbnail]

    def explains(self, others: Sequence[Thumbnail]) -> bool:
        """Look at other images until they show all that the image does; whether they do."""
        for other in others:
            if self.around.add(other):
                self.same_place.append(other)
                if np.count_nonzero(self.around.excess() > _STANDS_OUT_FROM) < _LEAST_CELLS:
                    return True
        return False


def _standouts(one: Thumbnail, sides: Sequence[_Side], blobs: tuple[Blob, ...]) -> Foreground:
    sharpest = max((other.sharpness for side in sides for other in side.same_place), default=one.sharpness)
    return Foreground(blobs, any(side.same_place for side in sides), one.sharpness / max(sharpest, 1e-6))


def _blobs(
    one: Thumbnail, excess: NDArray[np.float32], outside: NDArray[np.bool_], *, came_and_went: bool
) -> tuple[Blob, ...]:
    """The largest connected patches of the cells that are outside, the heaviest first."""
    count, labels, boxes, middles = cv2.connectedComponentsWithStats(outside.astype(np.uint8))
    order = sorted(range(1, count), key=lambda label: -boxes[label, cv2.CC_STAT_AREA])[: 2 * _MOST_BLOBS]
    median = middle(one.values)[:, 0, 0]
    found = []
    for label in order:
        cells = int(boxes[label, cv2.CC_STAT_AREA])
        if cells < _LEAST_CELLS:
            break
        inside = labels == label
        colour = np.asarray(one.values[:, inside].mean(axis=1) - median, np.float32)
        x, y = middles[label]
        contrast = float(excess[inside].mean())
        found.append(Blob(float(x), float(y), cells / (ROWS * COLUMNS), contrast, colour, came_and_went))
    return tuple(sorted(found, key=lambda blob: -blob.weight)[:_MOST_BLOBS])
