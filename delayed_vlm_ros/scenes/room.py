"""The empty synthetic room: a papered wall with a window and a painting, a skirting board, a wooden floor."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.scenes.scene import HORIZON

_WALLS = (
    (178, 186, 180),
    (190, 180, 160),
    (168, 182, 196),
    (196, 178, 172),
    (150, 160, 150),
    (206, 204, 196),
)  # RGB; each room uses one
_FLOORS = ((142, 104, 70), (120, 112, 102), (164, 134, 98), (104, 84, 66))
_PLANKS = 9.0  # planks across the nearest edge of the floor

_Plane = NDArray[np.floating[Any]]


@lru_cache(maxsize=4)
def room(seed: int, height: int, width: int, margin_y: int = 0, margin_x: int = 0) -> NDArray[np.uint8]:
    """Return the room without objects.

    Args:
        seed: The scene's seed.
        height: Image height, in pixels.
        width: Image width, in pixels.
        margin_y: Extra rows above and below the image, for a moving camera.
        margin_x: Extra columns on both sides of the image, for a moving camera.

    Returns:
        ``(height + 2 margin_y, width + 2 margin_x, 3)`` uint8, RGB. Shared and read-only.
    """
    random = np.random.default_rng([seed, 0])
    rows = (np.arange(-margin_y, height + margin_y, dtype=np.float32) + 0.5) / height
    columns = (np.arange(-margin_x, width + margin_x, dtype=np.float32) + 0.5) / width
    x, y = np.meshgrid(columns, rows)
    window_left = float(random.uniform(0.06, 0.24))
    image = np.where((y < HORIZON)[..., None], _wall(random, x, y), _floor(random, x, y))
    _fill(image, x, y, (-1.0, HORIZON - 0.035, 2.0, HORIZON), (222, 216, 204))
    _fill(image, x, y, (-1.0, HORIZON - 0.004, 2.0, HORIZON + 0.004), (82, 66, 52))
    _window(image, x, y, window_left)
    _painting(image, x, y, float(random.uniform(0.60, 0.78)))
    light = 0.72 + 0.42 * np.exp(-(((x - window_left - 0.1) / 0.55) ** 2) - ((y - 0.45) / 0.60) ** 2)
    lit = np.clip(image * light[..., None], 0.0, 255.0).astype(np.uint8)
    lit.setflags(write=False)
    return lit


def _wall(random: np.random.Generator, x: _Plane, y: _Plane) -> _Plane:
    colour = np.array(_WALLS[random.integers(len(_WALLS))], dtype=np.float32)
    stripes = 1.0 + 0.02 * np.sign(np.sin(x * 2.0 * np.pi * 22.0))
    plaster = 1.0 + 0.025 * _rough(random, x.shape, (max(2, x.shape[0] // 4), max(2, x.shape[1] // 4)))
    wall: _Plane = colour * (stripes * plaster * (1.0 - 0.06 * y))[..., None]
    return wall


def _floor(random: np.random.Generator, x: _Plane, y: _Plane) -> _Plane:
    nearness = np.clip((y - HORIZON + 0.14) / (1.14 - HORIZON), 0.05, 1.0)
    across = (x - 0.5) / nearness * _PLANKS + 100.0
    plank, within = np.divmod(across, 1.0)
    tones = random.uniform(0.86, 1.10, 256).astype(np.float32)
    grain = 1.0 + 0.05 * _rough(random, x.shape, (max(2, x.shape[0] // 24), max(2, x.shape[1] // 2)))
    seam_width = np.clip(0.05 + 3.0 / (x.shape[1] * nearness), 0.0, 0.3)
    seam = np.where(within < seam_width, 0.72, 1.0)
    tone = tones[plank.astype(np.int64) % tones.size] * grain * seam
    floor = _FLOORS[random.integers(len(_FLOORS))]
    tinted: _Plane = np.array(floor, dtype=np.float32) * tone[..., None]
    return tinted


def _window(image: _Plane, x: _Plane, y: _Plane, left: float) -> None:
    right, top, bottom, frame = left + 0.19, 0.05, 0.29, 0.012
    _fill(image, x, y, (left - frame, top - 1.3 * frame, right + frame, bottom + 1.3 * frame), (240, 238, 230))
    _fill(image, x, y, (left, top, right, bottom), (196, 222, 244))
    _fill(image, x, y, (left, bottom - 0.07, right, bottom), (150, 178, 150))
    middle = (left + right) / 2
    _fill(image, x, y, (middle - frame / 3, top, middle + frame / 3, bottom), (240, 238, 230))
    _fill(image, x, y, (left, 0.165, right, 0.175), (240, 238, 230))


def _painting(image: _Plane, x: _Plane, y: _Plane, left: float) -> None:
    _fill(image, x, y, (left, 0.08, left + 0.15, 0.27), (92, 70, 50))
    _fill(image, x, y, (left + 0.012, 0.096, left + 0.138, 0.254), (206, 196, 170))
    _fill(image, x, y, (left + 0.012, 0.19, left + 0.138, 0.254), (138, 142, 118))


def _fill(
    image: _Plane, x: _Plane, y: _Plane, box: tuple[float, float, float, float], colour: tuple[int, int, int]
) -> None:
    """Fill the box (left, top, right, bottom, in image widths and heights) with one RGB colour."""
    left, top, right, bottom = box
    image[(x >= left) & (x < right) & (y >= top) & (y < bottom)] = colour


def _rough(random: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int]) -> _Plane:
    """Return smooth noise of about unit variance, interpolated from a grid of ``cells`` (rows, columns)."""
    coarse = random.normal(0.0, 1.0, cells).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
