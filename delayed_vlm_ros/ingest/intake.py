"""From any image to a kept frame: choose the grid once, bring every image onto it, hand it to the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.memory.config import MemoryConfig
from delayed_vlm_ros.memory.frame import KeptPair
from delayed_vlm_ros.memory.grid import Grid, as_rgb_array, fit_grid, letterbox
from delayed_vlm_ros.memory.manager import AddedFrame, SmartFrameManager


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """What image sizes a checkpoint can take.

    Attributes:
        factor: Both sides must be multiples of it (patch size × merge size), in pixels.
        min_pixels: Smallest height × width.
        max_pixels: Largest height × width.
        only_size: The one size of a checkpoint that was trained on one; None: any within the limits.
    """

    factor: int = 28
    min_pixels: int = 4 * 28 * 28
    max_pixels: int = MemoryConfig.max_pixels
    only_size: Grid | None = None

    def grid_for(self, height: int, width: int) -> Grid:
        """The size that kept frames have when the camera's images have this one.

        Raises:
            ImageError: Nothing can be made of such an image.
        """
        return self.only_size or fit_grid(
            height, width, factor=self.factor, min_pixels=self.min_pixels, max_pixels=self.max_pixels
        )


class FrameIntake:
    """Feeds one camera's images to one memory.

    The grid is chosen for the first image and holds until ``reset``, so that every kept frame has one shape and
    the model sees one video; an image of another shape is letterboxed onto it.
    """

    def __init__(self, geometry: FrameGeometry, frame_manager: SmartFrameManager) -> None:
        self._geometry = geometry
        self.frame_manager = frame_manager
        self._grid: Grid | None = None

    @property
    def grid(self) -> Grid | None:
        """Size of the kept frames; None before the first image."""
        return self._grid

    def add(self, image: Any, stamp: float, source: Any = None) -> AddedFrame:
        """Bring an image onto the grid and remember it.

        Args:
            image: RGB uint8 array of shape (H, W, 3), or a PIL image; of any size.
            stamp: Time it was taken, in seconds; newer than the newest kept one.
            source: Kept with the frame.

        Returns:
            What became of it.

        Raises:
            ImageError: The image cannot be used; nothing has changed.
            StampOrderError: The stamp is not newer than the newest kept one; nothing has changed.
        """
        image = as_rgb_array(image)
        grid = self._grid or self._geometry.grid_for(*image.shape[:2])
        added = self.frame_manager.add(letterbox(image, grid), stamp, source)
        self._grid = grid
        return added

    def restore(self, pairs: Sequence[KeptPair]) -> None:
        """Take in the key frames of an earlier memory; their size is the grid.

        Args:
            pairs: As for `SmartFrameManager.restore`; of a size that the geometry allows.

        Raises:
            ValueError: The memory is not empty.
        """
        self.frame_manager.restore(pairs)
        if pairs:
            height, width = pairs[0].pair.first.image.shape[:2]
            self._grid = Grid(height, width)

    def reset(self) -> None:
        """Forget every frame and the grid."""
        self.frame_manager.clear()
        self._grid = None
