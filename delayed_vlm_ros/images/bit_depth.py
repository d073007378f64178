"""The number of bits that a camera uses of its 16-bit images.

Many cameras deliver 10 or 12 bits in 16-bit values. Scaled as 16 bits, their images are almost black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bit depths of cameras, ascending."""

_LEFT_ALIGNED_ZEROS = (2, 4, 6)  # low bits that are 0 where 14, 12 or 10 bits are stored in the high bits
_MIN_LEFT_ALIGNED_BITS = 3  # fewer may be coincidence, as in an image of one brightness


class BitDepth:
    """Scales the 16-bit images of one camera to 8 bits, all by the same depth.

    The depth is the smallest of ``BIT_DEPTHS`` that holds every value seen so far. It does not fall, so a dark image
    after a bright one stays dark. It rises at the first image with larger values: a camera whose first images are dark
    is scaled too brightly until then, unless ``minimum`` states its depth. Dark images whose 2, 4 or 6 low bits are 0
    are taken for values in the high bits, and scaled as 16 bits, until larger values show the depth.

    Args:
        minimum: Smallest depth, 8 to 16 bits.
    """

    def __init__(self, minimum: int = BIT_DEPTHS[0]) -> None:
        self.minimum = minimum
        self._bits = 0
        self._seen = 0  # every bit that was set in any value

    @property
    def bits(self) -> int:
        """Depth in use, in bits; 0 before the first 16-bit image."""
        return self._bits

    @property
    def is_assumed(self) -> bool:
        """Whether the depth in use comes from the images: it is not 16 bits and not ``minimum``."""
        return self._bits not in (0, self.minimum, BIT_DEPTHS[-1])

    def to_8_bits(self, values: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return the values scaled to 8 bits, after taking them into account for the depth.

        Args:
            values: Colour or grey values of a whole image, of any shape.
        """
        self._seen |= int(np.bitwise_or.reduce(values, axis=None))
        self._bits = max(self.minimum, _depth(self._seen))
        return (values >> (self._bits - 8)).astype(np.uint8)


def _depth(seen: int) -> int:
    """Return the depth of values in which these bits occur."""
    used = seen.bit_length()
    low_zeros = (seen & -seen).bit_length() - 1
    significant = used - low_zeros
    is_block = seen >> low_zeros == (1 << significant) - 1 if seen else False
    if low_zeros in _LEFT_ALIGNED_ZEROS and is_block and _MIN_LEFT_ALIGNED_BITS <= significant < BIT_DEPTHS[0]:
        return BIT_DEPTHS[-1]
    return next(depth for depth in BIT_DEPTHS if depth >= used)
