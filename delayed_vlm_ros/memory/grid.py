"""Resize images of any size to the memory's grid.

Vision-language models split an image into square patches and merge adjacent ones, so both sides must be multiples of
patch size × merge size. Images are resized once, when they enter the memory; the model's processor resizes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.memory.frame import RgbArray

MAX_ASPECT_RATIO = 200
"""Maximum ratio of the longer to the shorter side, as in the Qwen processors."""

# Rounding to multiples of 28 or 32 pixels changes a side by less than this. Up to this difference, and up to an eighth
# of the side (on a small grid a larger difference is more than rounding), an image is stretched instead of letterboxed.
_ROUNDING_PIXELS = 32
_ROUNDING_SHARE = 1 / 8

_WIDE_PIL_MODES = ("I", "F")  # PIL clips their values to 0..255


@dataclass(frozen=True, slots=True)
class Grid:
    """Size of all frames in one memory.

    Attributes:
        height: Height in pixels.
        width: Width in pixels.
    """

    height: int
    width: int


def fit_grid(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> Grid:
    """Return the grid for images of a given size, by the "smart resize" rule of the Qwen vision-language models.

    Both sides are multiples of ``factor``, the aspect ratio is kept as closely as that allows, and the number of pixels
    is within the limits. If both limits cannot be met, the upper one is.

    Args:
        height: Height of the images, in pixels.
        width: Width of the images, in pixels.
        factor: Patch size × merge size of the model, in pixels (28 for Qwen2.5-VL, 32 for Qwen3-VL).
        min_pixels: Minimum number of pixels of the grid.
        max_pixels: Maximum number of pixels of the grid.

    Raises:
        ImageError: A side is below one pixel, or one side is more than 200 times the other.
        ConfigurationError: ``factor`` is below 1, ``max_pixels`` is below one cell of factor × factor pixels, or
            ``min_pixels`` is above ``max_pixels``.
    """
    if factor < 1:
        raise ConfigurationError(f"factor must be at least 1 pixel, got {factor}")
    if max_pixels < factor * factor:
        raise ConfigurationError(
            f"max_pixels must be at least {factor * factor} ({factor} × {factor}, the smallest image of this model), "
            f"got {max_pixels}"
        )
    if min_pixels > max_pixels:
        raise ConfigurationError(f"min_pixels must be at most max_pixels={max_pixels}, got {min_pixels}")
    if height < 1 or width < 1:
        raise ImageError(f"image of height {height} and width {width} has no pixels: check the camera's settings")
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ImageError(
            f"image of height {height} and width {width} exceeds the maximum aspect ratio of the model, "
            f"{MAX_ASPECT_RATIO}: crop the image"
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
        # The short side of a thin image was raised to one cell: shorten its long side.
        cells = max_pixels // factor**2
        rows = min(rows, cells)
        columns = min(columns, cells // rows)
    return Grid(rows * factor, columns * factor)


def _ceil_sqrt(numerator: int, denominator: int) -> int:
    """Return the rounded-up square root of a positive fraction, exactly, in integers only."""
    return math.isqrt(-(-numerator // denominator) - 1) + 1


def letterbox(image: RgbArray, grid: Grid) -> RgbArray:
    """Resize an image to the exact size of the grid.

    The aspect ratio is kept, with black bars on two opposite sides. If the aspect ratios differ only by the rounding of
    the grid to whole cells, the image is stretched to fill the grid.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        grid: Size of the result.

    Returns:
        A new C-contiguous RGB uint8 array of shape (grid.height, grid.width, 3) that shares no storage with ``image``.

    Raises:
        ImageError: ``image`` is not an RGB array.
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
    """Return whether the image fits the grid except for a few pixels, missing or in excess, on one side."""
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
    """Convert an image to an RGB array.

    Args:
        image: uint8 RGB array of shape (H, W, 3), or PIL image of any mode with 8 bits or fewer per value (an alpha
            channel is dropped).

    Returns:
        RGB pixels, shape (H, W, 3), uint8; an array is not copied.

    Raises:
        ImageError: The image has another type, shape or dtype, or no pixels. The message names the remedy.
    """
    # Duck typing: PIL is not imported, and need not be installed.
    if not isinstance(image, np.ndarray) and hasattr(image, "convert") and hasattr(image, "getbands"):
        if str(image.mode).startswith(_WIDE_PIL_MODES):
            raise ImageError(
                f"PIL image has mode {image.mode}, whose largest value is not known: scale its values to 0..255 and "
                "convert it to a uint8 RGB array"
            )
        try:
            image = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot decode the PIL image: {error}; open or capture it again") from error
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"image must be a uint8 RGB array of shape (H, W, 3) or a PIL image, got {type(image).__name__}: convert "
            "it to a NumPy array"
        )
    remedy = _remedy_for(image)
    if remedy:
        raise ImageError(
            f"image must be a uint8 RGB array of shape (H, W, 3), got {image.dtype} of shape {image.shape}: {remedy}"
        )
    return np.asarray(image)


def _remedy_for(image: np.ndarray[Any, Any]) -> str:
    """Return how to convert an array to an RGB image; empty if it is one."""
    shape, channels_last = image.shape, 3
    if image.size == 0:
        return "check that the camera delivers images"
    if len(shape) != channels_last:
        return {
            2: "convert grey to RGB with np.stack([image] * 3, axis=-1)",
        }.get(len(shape), "pass one image at a time")
    if shape[-1] != channels_last:
        return {
            1: "convert grey to RGB with np.repeat(image, 3, axis=-1)",
            4: "drop the fourth channel with image[..., :3]",
        }.get(shape[-1], "move the colour channels last, for example with image.transpose(1, 2, 0)")
    if np.issubdtype(image.dtype, np.floating):
        return "if its values are in 0..1, multiply by 255 and convert with .astype(np.uint8)"
    if image.dtype != np.uint8:
        return "scale its values to 0..255 and convert with .astype(np.uint8)"
    return ""
