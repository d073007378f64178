"""The number of bits that a camera uses of its 16-bit images.

Many cameras deliver 10 or 12 bits in 16-bit values. Scaled as 16 bits, their images are almost black.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of cameras, ascending."""

FROM_IMAGES = BIT_DEPTHS[0]
"""The stated depth of a camera whose depth is found from its images."""

_MAX_OUTLIERS = 0.001  # share of an image's values; hot pixels and reflections are fewer
_RECENT_IMAGES = 8
_CONFIRMING_IMAGES = 3  # of the recent ones; fewer may be damaged
_LEFT_ALIGNED_ZEROS = (2, 4, 6)  # low bits that are 0 where 14, 12 or 10 bits are stored in the high bits
_MIN_LEFT_ALIGNED_BITS = 3  # fewer may be coincidence, as in an image of one brightness


class BitDepth:
    """Scales the 16-bit images of one camera to 8 bits, all by the same depth.

    A stated depth is fixed, and larger values are clipped. Otherwise the depth comes from the images. An image needs
    the smallest of ``BIT_DEPTHS`` that holds all but 0.1 % of its values; the others are clipped. The camera's depth is
    the largest one that 3 of 8 images in succession needed; until 8 images were seen, at least that of the first one.
    It does not fall afterwards, so a dark image after bright ones stays dark. An image that needs more than the
    camera's depth is scaled by its own. Dark images whose 2, 4 or 6 low bits are 0 are taken for values in the high
    bits, and scaled as 16 bits, until larger values show the depth.

    Args:
        stated: Depth of the camera, 9 to 16 bits; ``FROM_IMAGES`` (8): found from the images.
    """

    def __init__(self, stated: int = FROM_IMAGES) -> None:
        self.stated = stated
        self.reset()

    def reset(self) -> None:
        """Forget the images seen so far; the next one is the first."""
        self._bits = 0
        self._first = 0  # depth that the first image needs
        self._confirmed = 0
        self._seen = 0  # every bit that was set in any value, outliers left out
        self._recent: deque[int] = deque(maxlen=_RECENT_IMAGES)
        self._clips = False

    @property
    def bits(self) -> int:
        """Depth in use, in bits; 0 before the first 16-bit image."""
        return self._bits

    @property
    def is_stated(self) -> bool:
        """Whether the depth is stated, not found from the images."""
        return self.stated != FROM_IMAGES

    @property
    def clips(self) -> bool:
        """Whether more than 0.1 % of the newest image's values are larger than the stated depth holds."""
        return self._clips

    def to_8_bits(self, values: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the values scaled to 8 bits, after taking them into account for the depth.

        Args:
            values: Colour or grey values of a whole image, of any shape.
        """
        if self.is_stated:
            self._bits = self.stated
            self._clips = _share_above(values, self.stated) > _MAX_OUTLIERS
            return _scaled(values, self.stated)
        needed = _needed_depth(values)
        self._observe(values, needed)
        return _scaled(values, max(self._bits, needed))

    def _observe(self, values: NDArray[np.uint16], needed: int) -> None:
        """Take an image into account for the camera's depth."""
        self._first = self._first or needed
        self._recent.append(needed)
        if len(self._recent) >= _CONFIRMING_IMAGES:
            self._confirmed = max(self._confirmed, sorted(self._recent)[-_CONFIRMING_IMAGES])
        depth = self._confirmed if len(self._recent) == _RECENT_IMAGES else max(self._confirmed, self._first)
        if needed <= depth:
            self._seen |= int(np.bitwise_or.reduce(values[values <= _largest(needed)], axis=None))
        self._bits = BIT_DEPTHS[-1] if _is_left_aligned(self._seen) else depth


def _largest(bits: int) -> int:
    return (1 << bits) - 1


def _share_above(values: NDArray[np.uint16], bits: int) -> float:
    return float(np.count_nonzero(values > _largest(bits)) / values.size)


def _needed_depth(values: NDArray[np.uint16]) -> int:
    """Return the smallest depth that holds an image's values, outliers left out."""
    return next(depth for depth in BIT_DEPTHS if _share_above(values, depth) <= _MAX_OUTLIERS)


def _scaled(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    scaled = np.minimum(values, _largest(bits))
    scaled >>= bits - 8  # in place: such images are large
    return scaled.astype(np.uint8)


def _is_left_aligned(seen: int) -> bool:
    """Return whether values in which these bits occur are dark ones of fewer than 16 bits, stored in the high bits."""
    low_zeros = (seen & -seen).bit_length() - 1
    significant = seen.bit_length() - low_zeros
    is_block = seen != 0 and seen >> low_zeros == _largest(significant)
    return low_zeros in _LEFT_ALIGNED_ZEROS and is_block and _MIN_LEFT_ALIGNED_BITS <= significant < BIT_DEPTHS[0]
