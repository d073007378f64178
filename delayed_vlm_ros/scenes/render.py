"""Images of the synthetic room: background, objects, and the camera's exposure and noise."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.scenes.room import room
from delayed_vlm_ros.scenes.scene import FULL_PAN, Scene, VisibleObject, placed_objects
from delayed_vlm_ros.scenes.sprites import PERSON, STRIDES, person, shadow, sprite

_NOISE_SIGMA = 2.5  # sensor noise, in grey levels of 255
_NOISE_MARGIN = 61  # excess of the noise tile over the image, so that the crop can move
_SPRITE_SIZES = (32, 64, 128, 256, 512)
_SHADOW_SIZE = 96
_EXPOSURE_HOLD_SEC = 21.0
_STEPS_ACROSS = 5  # a person's double steps across the image

_Image = NDArray[np.uint8]
_Plane = NDArray[np.floating[Any]]


def render(scene: Scene, time_sec: float, height: int, width: int) -> _Image:
    """Return the camera image; it is a pure function of scene, time and size.

    Args:
        scene: The room.
        time_sec: Time since the start of the scene, in seconds; not negative.
        height: Image height, in pixels.
        width: Image width, in pixels.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ValueError: The time is negative or not finite, or the size is not positive.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the image size must be at least 1x1, got {height}x{width}")
    objects = placed_objects(scene, time_sec)
    image = _background(scene, time_sec, height, width)
    for item in objects:
        _draw(image, item)
    exposed = cv2.convertScaleAbs(image, alpha=_exposure(scene.seed, time_sec))
    return np.asarray(cv2.add(exposed, _noise(scene.seed, time_sec, height, width), dtype=cv2.CV_8U), np.uint8)


def _background(scene: Scene, time_sec: float, height: int, width: int) -> _Image:
    """Return the empty room in the camera's current view, as a copy."""
    margin_x, margin_y = math.ceil(FULL_PAN * width), math.ceil(FULL_PAN * height)
    wide = room(scene.seed, height, width, margin_y, margin_x)
    right, down = scene.camera.offset(scene.seed, time_sec)
    left, top = margin_x + round(right * width), margin_y + round(down * height)
    view: _Image = wide[top : top + height, left : left + width].copy()
    return view


def _draw(image: _Image, item: VisibleObject) -> None:
    height, width = image.shape[:2]
    size, wide = item.size * height, item.width * height
    left, top = item.x * width - wide / 2, item.y * height - size / 2
    # The light comes from the upper left, so the shadow falls to the right of the object.
    patch, region = _placed(
        image,
        shadow(_SHADOW_SIZE),
        (left + 0.10 * wide, top + size - 0.20 * wide, 1.15 * wide, 0.36 * wide),
    )
    region[...] = region * (1.0 - patch[..., None])
    drawn = next((s for s in _SPRITE_SIZES if s >= size), _SPRITE_SIZES[-1])
    if item.shape == PERSON:
        cut_out = person(item.colour, drawn, int(item.x * _STEPS_ACROSS * STRIDES) % STRIDES)
    else:
        cut_out = sprite(item.shape, item.colour, drawn)
    patch, region = _placed(image, cut_out, (left, top, wide, size))
    region[...] = region * (1.0 - patch[..., 3:]) + patch[..., :3] + 0.5


def _placed(image: _Image, source: _Plane, box: tuple[float, float, float, float]) -> tuple[_Plane, _Image]:
    """Scale ``source`` to ``box`` (left, top, width, height in fractional pixels).

    Returns:
        The part inside the image, and a view of the image pixels below it. Both may be empty.
    """
    left, top, wide, high = box
    first_x, last_x = _overlap(left, wide, image.shape[1])
    first_y, last_y = _overlap(top, high, image.shape[0])
    region = image[first_y:last_y, first_x:last_x]
    if region.size == 0:
        return np.zeros((*region.shape[:2], *source.shape[2:]), dtype=np.float32), region
    step_x, step_y = source.shape[1] / wide, source.shape[0] / high
    image_to_source = np.array(
        [
            [step_x, 0.0, (first_x + 0.5 - left) * step_x - 0.5],
            [0.0, step_y, (first_y + 0.5 - top) * step_y - 0.5],
        ]
    )
    size = (last_x - first_x, last_y - first_y)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(source, image_to_source, size, flags=flags), np.float32), region


def _overlap(begin: float, length: float, pixels: int) -> tuple[int, int]:
    """Return the pixel range (end exclusive) of an interval, clipped to the image."""
    return min(max(math.floor(begin), 0), pixels), min(max(math.ceil(begin + length), 0), pixels)


def _exposure(seed: int, time_sec: float) -> float:
    """Return the camera's gain. It drifts by a few percent; in every second room it also jumps."""
    drift = 0.035 * math.sin(time_sec / 7.3 + seed) + 0.015 * math.sin(time_sec / 2.1 + 2.0 * seed)
    if seed % 2 == 0:
        return 1.0 + drift
    jumps = np.random.default_rng([seed, 8, int(time_sec // _EXPOSURE_HOLD_SEC)])
    return float(jumps.uniform(0.82, 1.16)) + drift


def _noise(seed: int, time_sec: float, height: int, width: int) -> NDArray[np.int16]:
    tile = _noise_tile(height + _NOISE_MARGIN, width + _NOISE_MARGIN)
    random = np.random.default_rng([seed, round(time_sec * 1e6)])
    top, left = random.integers(_NOISE_MARGIN + 1, size=2)
    return tile[top : top + height, left : left + width]


@lru_cache(maxsize=4)
def _noise_tile(height: int, width: int) -> NDArray[np.int16]:
    random = np.random.default_rng([height, width])
    return np.rint(random.normal(0.0, _NOISE_SIGMA, (height, width, 3))).astype(np.int16)
