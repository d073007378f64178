"""What stands out in a picture from the moments before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from delayed_vlm_ros.memory.sketch import COLUMNS, ROWS, Sketch, Surroundings, middle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Log difference from which a cell stands out.
_STANDS_OUT_FROM = 0.12
# Cells of the smallest thing: 0.2 % of the picture.
_LEAST_CELLS = 6
_MOST_BLOBS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """A thing in a picture that is not there before and after.

    Attributes:
        x: Its middle, in cells from the left.
        y: Its middle, in cells from the top.
        area: The share of the picture that it covers.
        contrast: How far its cells lie outside of what was there, mean log difference.
        colour: Mean of its cells' values, shape (3,), float32, without the picture's median.
    """

    x: float
    y: float
    area: float
    contrast: float
    colour: NDArray[np.float32]

    @property
    def weight(self) -> float:
        """How much it counts: √contrast × area^¼, so that small and large things are not worlds apart."""
        return float(np.sqrt(self.contrast) * self.area**0.25)


@dataclass(frozen=True, slots=True, eq=False)
class Standouts:
    """What stands out in one picture.

    Attributes:
        blobs: The heaviest first, a few at most.
        sides: On how many sides in time, 0 to 2, pictures of the same place are known.
        sharpness: The picture's ÷ that of the sharpest picture of the same place around it.
    """

    blobs: tuple[Blob, ...]
    sides: int
    sharpness: float


def standouts(one: Sketch, before: Sequence[Sketch], after: Sequence[Sketch]) -> Standouts:
    """Find what stands out in a picture.

    Most pictures have nothing, which the nearest picture on either side, as it lies, is enough to tell.

    Args:
        one: The picture's sketch.
        before: Those of earlier pictures, the nearest first.
        after: Those of later ones, likewise.
    """
    around = Surroundings(one, lies_still=True)
    same = [[other for other in side[:1] if around.add(other)] for side in (before, after)]
    if any(same) and np.count_nonzero(around.excess() > _STANDS_OUT_FROM) < _LEAST_CELLS:
        return _standouts(one, same, ())
    around = Surroundings(one)
    same = [[other for other in side if around.add(other)] for side in (before, after)]
    return _standouts(one, same, _blobs(one, around.excess()) if any(same) else ())


def _standouts(one: Sketch, same_place: Sequence[Sequence[Sketch]], blobs: tuple[Blob, ...]) -> Standouts:
    sharpest = max((other.sharpness for side in same_place for other in side), default=one.sharpness)
    return Standouts(blobs, sum(bool(side) for side in same_place), one.sharpness / max(sharpest, 1e-6))


def _blobs(one: Sketch, excess: NDArray[np.float32]) -> tuple[Blob, ...]:
    outside = np.asarray(excess > _STANDS_OUT_FROM, np.uint8)
    count, labels, boxes, middles = cv2.connectedComponentsWithStats(outside)
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
        found.append(Blob(float(x), float(y), cells / (ROWS * COLUMNS), float(excess[inside].mean()), colour))
    return tuple(sorted(found, key=lambda blob: -blob.weight)[:_MOST_BLOBS])
