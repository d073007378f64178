"""Make the pictures in docs/images from the code. Run it after changing the synthetic scenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.simulation import HELD_OUT_SEEDS, Scene, render
from delayed_vlm_ros.simulation.sprites import COLOURS, SHAPES, sprite
from delayed_vlm_ros.simulation.story import story_scene

IMAGES = Path(__file__).with_name("images")
_HEIGHT, _WIDTH = 180, 240
_QUALITY = 88
_GAP = 6


def sheet(rows: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Pictures of one size in rows, with white gaps."""
    height, width = rows[0][0].shape[:2]
    page = np.full((len(rows) * (height + _GAP) + _GAP, len(rows[0]) * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
            page[top : top + height, left : left + width] = picture
    return page


def scenes() -> NDArray[np.uint8]:
    """Rooms of the held-out worlds at four moments each."""
    seeds = HELD_OUT_SEEDS[:60:10]
    return sheet([[render(Scene.from_seed(seed), time, _HEIGHT, _WIDTH) for time in (3, 14, 31, 58)] for seed in seeds])


def objects() -> NDArray[np.uint8]:
    """Every object on a plain ground."""
    ground = np.full((96, 96, 3), (150, 140, 126), np.float32)
    rows = []
    for shape in SHAPES:
        cut_outs = [sprite(shape, colour, 96) for colour in COLOURS]
        rows.append([(ground * (1.0 - one[..., 3:]) + one[..., :3]).astype(np.uint8) for one in cut_outs])
    return sheet(rows)


def story() -> NDArray[np.uint8]:
    """The demo's story at eight moments."""
    moments = ((0.0, 6.9, 11.6, 14.0), (16.0, 21.0, 22.3, 31.0))
    return sheet([[render(story_scene(), time, _HEIGHT, _WIDTH) for time in row] for row in moments])


def main() -> None:
    """Write them all."""
    IMAGES.mkdir(exist_ok=True)
    for name, picture in (("scenes", scenes()), ("objects", objects()), ("story", story())):
        cv2.imwrite(str(IMAGES / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


if __name__ == "__main__":
    main()
