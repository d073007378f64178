"""Draw images of docs/images from the code; run it after the synthetic scenes or the mosaics have changed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.output.mosaic import draw_mosaic, make_tile
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, Scene, render
from delayed_vlm_ros.scenes.sprites import COLOURS, SHAPES, sprite
from delayed_vlm_ros.scenes.story import story_scene

IMAGES = Path(__file__).parents[1] / "images"
_HEIGHT, _WIDTH = 180, 240
_QUALITY = 88
_GAP = 6
_STORY_FRAMES, _FRAMES_PER_SECOND = 80, 2
_GRID_HEIGHT, _GRID_WIDTH = 336, 448
_MARKED_AT_SEC = 13.5


def sheet(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return images of equal size in rows, with white gaps."""
    height, width = rows[0][0].shape[:2]
    page = np.full((len(rows) * (height + _GAP) + _GAP, len(rows[0]) * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
            page[top : top + height, left : left + width] = image
    return page


def scenes() -> NDArray[np.uint8]:
    """Return held-out rooms, each at four times."""
    seeds = HELD_OUT_SEEDS[:60:10]
    return sheet([[render(Scene.from_seed(seed), time, _HEIGHT, _WIDTH) for time in (3, 14, 31, 58)] for seed in seeds])


def objects() -> NDArray[np.uint8]:
    """Return every object on a plain background."""
    ground = np.full((96, 96, 3), (150, 140, 126), np.float32)
    rows = []
    for shape in SHAPES:
        cut_outs = [sprite(shape, colour, 96) for colour in COLOURS]
        rows.append([(ground * (1.0 - one[..., 3:]) + one[..., :3]).astype(np.uint8) for one in cut_outs])
    return sheet(rows)


def story() -> NDArray[np.uint8]:
    """Return the demo's story at eight times."""
    times = ((0.0, 6.9, 11.6, 14.0), (16.0, 21.0, 22.3, 31.0))
    return sheet([[render(story_scene(), time, _HEIGHT, _WIDTH) for time in row] for row in times])


def star_mosaic() -> NDArray[np.uint8]:
    """Return the mosaic of Star memory after the demo's story, with a mark, as on ``~/star_mosaic``."""
    memory = SmartFrameManager()
    for number in range(_STORY_FRAMES):
        stamp = number / _FRAMES_PER_SECOND
        added = memory.add(render(story_scene(), stamp, _GRID_HEIGHT, _GRID_WIDTH), stamp)
        if stamp == _MARKED_AT_SEC:
            memory.mark(added.pair_id, "the blue ball")
    star = [kept for kept in memory.snapshot() if kept.in_star]
    tiles = [make_tile(kept, stamp - kept.stamps[0]) for kept in star]
    capacity = memory.star_capacity // 2
    return draw_mosaic("Star memory", f"camera, {len(star)} of {capacity} pairs", tiles, capacity)


def main() -> None:
    """Write all images."""
    IMAGES.mkdir(exist_ok=True)
    images = {"scenes": scenes(), "objects": objects(), "story": story(), "star_mosaic": star_mosaic()}
    for name, image in images.items():
        cv2.imwrite(str(IMAGES / f"{name}.jpg"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


if __name__ == "__main__":
    main()
