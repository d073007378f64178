"""Find objects that one image shows and the images before and after it do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.scoring.background import COLUMNS, ROWS, BackgroundModel, Thumbnail, upper_median

_FOREGROUND_FROM = 0.12  # log difference from which a cell is foreground
_MIN_CELLS = 6  # of the smallest object: 0.2 % of the image
_MAX_BLOBS = 3
_MAX_LASTING_SHARE = 0.12  # of the image that came to stay; more is another view


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """An object in an image that the images before or after it do not show.

    Attributes:
        x: Horizontal centre, in cells from the left.
        y: Vertical centre, in cells from the top.
        area: Share of the image that it covers, 0..1.
        contrast: Mean log difference of its cells from the background.
        colour: Mean values of its cells without the median of the image, shape (3,), float32.
        came_and_went: Whether the object is known to be absent before and after. Otherwise only one side is known: it
            came to stay, or the camera arrived or left.
    """

    x: float
    y: float
    area: float
    contrast: float
    colour: NDArray[np.float32]
    came_and_went: bool

    @property
    def weight(self) -> float:
        """Weight: √contrast × area^¼, which keeps small and large objects comparable."""
        return float(np.sqrt(self.contrast) * self.area**0.25)


@dataclass(frozen=True, slots=True, eq=False)
class Foreground:
    """The foreground of one image.

    Attributes:
        blobs: Objects that came and went, then objects that came to stay; few of each, heaviest first.
        is_place_known: Whether images of the same place exist before or after it.
        sharpness: Sharpness of the image relative to the sharpest of these.
    """

    blobs: tuple[Blob, ...]
    is_place_known: bool
    sharpness: float


def foreground(one: Thumbnail, before: Sequence[Thumbnail], after: Sequence[Thumbnail]) -> Foreground:
    """Return the objects in an image that came and went, and those that came to stay.

    Most images have none, and the nearest earlier images are enough to decide that.

    Args:
        one: Thumbnail of the image.
        before: Thumbnails of earlier images, nearest first.
        after: Thumbnails of later images, nearest first.
    """
    still = _Side(BackgroundModel(one, is_still=True), [])
    if before and still.explains(before[:1]):
        return _foreground(one, [still], ())
    earlier, later = sides = [_Side(BackgroundModel(one), []) for _ in range(2)]
    if earlier.explains(before):
        return _foreground(one, sides, ())
    later.explains(after)
    if not (earlier.same_place or later.same_place):
        return _foreground(one, sides, ())
    is_between = bool(earlier.same_place and later.same_place)
    excess = earlier.background.merged_with(later.background).excess()
    blobs = _blobs(one, excess, excess > _FOREGROUND_FROM, came_and_went=is_between)
    if is_between:
        excess = earlier.background.excess()
        lasting = (excess > _FOREGROUND_FROM) & (later.background.excess() <= _FOREGROUND_FROM)
        if lasting.mean() <= _MAX_LASTING_SHARE:
            blobs += _blobs(one, excess, lasting, came_and_went=False)
    return _foreground(one, sides, blobs)


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The images before, or those after, the image.

    Attributes:
        background: Background model from these images.
        same_place: Those of them that show the same place and were compared.
    """

    background: BackgroundModel
    same_place: list[Thumbnail]

    def explains(self, others: Sequence[Thumbnail]) -> bool:
        """Compare with images until they show everything in the image; return whether they do."""
        for other in others:
            if self.background.add(other):
                self.same_place.append(other)
                if np.count_nonzero(self.background.excess() > _FOREGROUND_FROM) < _MIN_CELLS:
                    return True
        return False


def _foreground(one: Thumbnail, sides: Sequence[_Side], blobs: tuple[Blob, ...]) -> Foreground:
    sharpest = max((other.sharpness for side in sides for other in side.same_place), default=one.sharpness)
    return Foreground(blobs, any(side.same_place for side in sides), one.sharpness / max(sharpest, 1e-6))


def _blobs(
    one: Thumbnail, excess: NDArray[np.float32], mask: NDArray[np.bool_], *, came_and_went: bool
) -> tuple[Blob, ...]:
    """Return the largest connected areas of the mask, heaviest first."""
    count, labels, boxes, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    order = sorted(range(1, count), key=lambda label: -boxes[label, cv2.CC_STAT_AREA])[: 2 * _MAX_BLOBS]
    median = upper_median(one.values)[:, 0, 0]
    found = []
    for label in order:
        cells = int(boxes[label, cv2.CC_STAT_AREA])
        if cells < _MIN_CELLS:
            break
        inside = labels == label
        colour = np.asarray(one.values[:, inside].mean(axis=1) - median, np.float32)
        x, y = centres[label]
        contrast = float(excess[inside].mean())
        found.append(Blob(float(x), float(y), cells / (ROWS * COLUMNS), contrast, colour, came_and_went))
    return tuple(sorted(found, key=lambda blob: -blob.weight)[:_MAX_BLOBS])
