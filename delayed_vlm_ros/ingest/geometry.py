"""The image sizes that a model accepts."""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.memory.config import MemoryConfig
from delayed_vlm_ros.memory.grid import Grid, fit_grid


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """Image sizes that a checkpoint accepts.

    Attributes:
        factor: Divisor of both sides (patch size × merge size), in pixels.
        min_pixels: Smallest height × width.
        max_pixels: Largest height × width.
        only_size: Single size of a checkpoint that was trained on one; None allows any size within the limits.
    """

    factor: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = MemoryConfig.max_pixels
    only_size: Grid | None = None

    def grid_for(self, height: int, width: int) -> Grid:
        """Return the frame size for camera images of ``height`` × ``width`` pixels.

        Raises:
            ImageError: The image is too small or too elongated.
        """
        return self.only_size or fit_grid(
            height, width, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )
