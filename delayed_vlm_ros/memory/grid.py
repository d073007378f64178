"""Bringing images of any size onto the memory's grid.

Vision-language models cut an image into square patches and merge neighbouring ones, so both sides have to be
multiples of patch size times merge size. Images are resized once, when they enter the memory, so that the model's
processor has nothing left to resize.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from delayed_vlm_ros.errors import ConfigurationError, ImageError

if TYPE_CHECKING:
    from delayed_vlm_ros.memory.frame import RgbArray

MAX_ASPECT_RATIO = 200
"""Longest side over shortest; the limit of the Qwen processors."""

# Fitting to multiples of 28 or 32 pixels moves a side by less than this. Up to here, and up to an eighth of the side
# (what that is on a small grid is no rounding any more), an image is stretched rather than given thin bars.
_ROUNDING_PIXELS = 32
_ROUNDING_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Grid:
    """The size all frames of one memory have, in pixels."""

    height: int
    width: int


def fit_grid(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> Grid:
    """Choose the grid for images of a given size: the "smart resize" rule of the Qwen vision-language models.

    Both sides become multiples of `factor`, the aspect ratio is kept as far as that allows, and the number of pixels
    lies between the limits. Where both limits cannot hold at once, the upper one does.

    Args:
        height: Height of the images, pixels.
        width: Width of the images, pixels.
        factor: Patch size times merge size of the model, pixels (28 for Qwen2.5-VL, 32 for Qwen3-VL).
        min_pixels: Fewest pixels of the grid.
        max_pixels: Most pixels of the grid.

    Returns:
        The grid.

    Raises:
        ImageError: A side is below one pixel, or one side is more than 200 times the other.
        ConfigurationError: `factor` is below 1, `max_pixels` does not hold one cell of factor × factor pixels, or
            `min_pixels` is above `max_pixels`.
    """
    if factor < 1:
        raise ConfigurationError(f"factor must be at least 1 pixel, got {factor}")
    if max_pixels < factor * factor:
        raise ConfigurationError(
            f"max_pixels is {max_pixels}, but the smallest image of this model has {factor} × {factor} = "
            f"{factor * factor} pixels: raise max_pixels"
        )
    if min_pixels > max_pixels:
        raise ConfigurationError(f"min_pixels ({min_pixels}) is above max_pixels ({max_pixels}): swap or change them")
    if height < 1 or width < 1:
        raise ImageError(f"an image of height {height} and width {width} has no pixels: check the camera's settings")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ImageError(
            f"height {height} and width {width} differ by more than a factor of {MAX_ASPECT_RATIO}, the most the model "
            "takes: crop the image"
        )
    rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
    if rows * columns * factor**2 < min_pixels:
        rows, columns = (
            _ceil_sqrt(min_pixels * height, width * factor**2),
            _ceil_sqrt(min_pixels * width, height * factor**2),
        )
    if rows * columns * factor**2 > max_pixels:
        rows = max(1, math.isqrt(max_pixels * height // (width * factor**2)))
        columns = max(1, math.isqrt(max_pixels * width // (height * factor**2)))
        # A thin image's short side was just lifted to one cell: its long side pays for that.
        cells = max_pixels // factor**2
        rows = min(rows, cells)
        columns = min(columns, cells // rows)
    return Grid(rows * factor, columns * factor)


def _ceil_sqrt(numerator: int, denominator: int) -> int:
    """The square root of a positive fraction, rounded up; whole numbers all the way, so never off by a rounding."""
    return math.isqrt(-(-numerator // denominator) - 1) + 1


def letterbox(image: RgbArray, grid: Grid) -> RgbArray:
    """Resize an image to exactly the grid.

    The aspect ratio is kept, with black bars at both ends of one side, unless the image's aspect differs from the
    grid's by no more than the rounding of the grid to whole cells: then the image fills the grid.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        grid: The size to give it.

    Returns:
        A new C-contiguous RGB uint8 array of shape (grid.height, grid.width, 3) that shares no storage with `image`.

    Raises:
        ImageError: `image` is not such an array.
    """
    image = as_rgb_array(image)
    height, width = image.shape[:2]
    if (height, width) == (grid.height, grid.width):
        return np.array(image, order="C")
    fitted_height = min(grid.height, max(1, round(height * grid.width / width)))
    fitted_width = min(grid.width, max(1, round(width * grid.height / height)))
    if _is_rounding_only(height, width, grid):
        return _resize(image, grid.height, grid.width)
    boxed = np.zeros((grid.height, grid.width, 3), np.uint8)
    top, left = (grid.height - fitted_height) // 2, (grid.width - fitted_width) // 2
    boxed[top : top + fitted_height, left : left + fitted_width] = _resize(image, fitted_height, fitted_width)
    return boxed


def _is_rounding_only(height: int, width: int, grid: Grid) -> bool:
    """Whether the image would fit but for a few pixels on one side, be they missing or too many."""
    height_off = abs(height * grid.width / width - grid.height)
    width_off = abs(width * grid.height / height - grid.width)
    return height_off < min(_ROUNDING_PIXELS, grid.height * _ROUNDING_SHARE) or width_off < min(
        _ROUNDING_PIXELS, grid.width * _ROUNDING_SHARE
    )


def _resize(image: RgbArray, height: int, width: int) -> RgbArray:
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=interpolation)
    return np.asarray(resized, np.uint8)


def as_rgb_array(image: Any) -> RgbArray:
    """Take an image as it comes and give it as an RGB array.

    Args:
        image: A uint8 RGB array of shape (H, W, 3), or a PIL image of any mode (an alpha channel is dropped).

    Returns:
        RGB pixels, shape (H, W, 3), uint8; a given array is not copied.

    Raises:
        ImageError: It is anything else, or has no pixels. The message says what to do.
    """
    # By its looks, so that PIL need not be there for those who only have arrays.
    if not isinstance(image, np.ndarray) and hasattr(image, "convert") and hasattr(image, "getbands"):
        try:
            image = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise ImageError(f"the PIL image cannot be decoded ({error}): open or capture it again") from error
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"expected a uint8 RGB array of shape (H, W, 3) or a PIL image, got {type(image).__name__}: "
            "convert it to a NumPy array of that kind first"
        )
    problem = _problem_of(image)
    if problem:
        raise ImageError(
            f"expected a uint8 RGB array of shape (H, W, 3), got {image.dtype} of shape {image.shape}: {problem}"
        )
    return np.asarray(image)


def _problem_of(image: np.ndarray[Any, Any]) -> str:
    """Say what to do about an array that is no RGB image; empty if it is one."""
    shape, channels_last = image.shape, 3
    if image.size == 0:
        return "it has no pixels; check that the camera delivers images"
    if len(shape) != channels_last:
        return {
            2: "it is a grey image; repeat it into three channels with np.stack([image] * 3, axis=-1)",
        }.get(len(shape), "give one image at a time, as height × width × 3")
    if shape[-1] != channels_last:
        return {
            1: "it is a grey image; repeat it into three channels with np.repeat(image, 3, axis=-1)",
            4: "it has a fourth channel; drop it with image[..., :3]",
        }.get(shape[-1], "put the three colour channels last, for example with image.transpose(1, 2, 0)")
    if np.issubdtype(image.dtype, np.floating):
        return "if its values lie in 0..1, multiply by 255 and convert with .astype(np.uint8)"
    if image.dtype != np.uint8:
        return "scale its values to 0..255 and convert with .astype(np.uint8)"
    return ""
