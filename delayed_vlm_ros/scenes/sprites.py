"""Shaded sprites of objects and people, with transparency.

A sprite covers -1..1 in both directions, v downwards, lit from the upper left. It is a pure function of shape, colour
and size, and is cached.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPES = ("box", "ball", "cylinder", "cone", "ring")
PERSON = "person"
PERSON_WIDTH = 0.42  # in a person's heights
STRIDES = 4  # sprites per step of a person
COLOURS = {  # RGB, 0..255
    "red": (205, 28, 32),
    "green": (30, 145, 55),
    "blue": (32, 75, 205),
    "yellow": (238, 208, 36),
    "orange": (240, 122, 20),
    "purple": (128, 50, 168),
    "white": (236, 236, 232),
    "black": (34, 34, 38),
}
CLOTHES = {"grey": (104, 110, 120), "brown": (112, 80, 58), "teal": (58, 112, 116)}
_SKIN = (222, 178, 148)
_HAIR = (64, 44, 32)
_TROUSERS = (58, 62, 80)

_LIGHT = np.array((-0.45, -0.72, 0.53), dtype=np.float32)  # direction of the light: from the left, above and in front
_AMBIENT = 0.42
_SUPERSAMPLING = 2

_Plane = NDArray[np.floating[Any]]


@lru_cache(maxsize=256)
def sprite(shape: str, colour: str, size: int) -> _Plane:
    """Return the sprite of an object.

    Args:
        shape: Shape, one of ``SHAPES``.
        colour: Colour, a key of ``COLOURS``.
        size: Height and width of the sprite, in pixels.

    Returns:
        ``(size, size, 4)`` float32: red, green and blue (0..255) premultiplied by coverage, and coverage (0..1).
        Shared and read-only.
    """
    fine = size * _SUPERSAMPLING
    axis = (np.arange(fine, dtype=np.float32) + 0.5) / fine * 2.0 - 1.0
    u, v = np.meshgrid(axis, axis)
    inside, light, gloss = _SHADERS[shape](u, v)
    rgb = light[..., None] * np.array(COLOURS[colour], dtype=np.float32) + gloss[..., None] * 255.0
    rgba = np.dstack([np.clip(rgb, 0.0, 255.0), np.ones_like(u)]) * inside[..., None]
    image = np.asarray(cv2.resize(rgba.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA), np.float32)
    image.setflags(write=False)
    return image


@lru_cache(maxsize=8)
def shadow(size: int) -> _Plane:
    """Return a soft round shadow, ``(size, size)`` float32: the absorbed share of light. Shared and read-only."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2.0 - 1.0
    u, v = np.meshgrid(axis, axis)
    soft = np.clip(1.0 - np.hypot(u, v), 0.0, 1.0)
    dark = (0.75 * soft * soft * (3.0 - 2.0 * soft)).astype(np.float32)
    dark.setflags(write=False)
    return dark


@lru_cache(maxsize=64)
def person(clothes: str, height: int, stride: int) -> _Plane:
    """Return the sprite of a walking person.

    Args:
        clothes: Colour of the clothes, a key of ``CLOTHES``.
        height: Height of the sprite, in pixels; its width is ``PERSON_WIDTH`` times that.
        stride: Phase of the step, 0 to ``STRIDES`` - 1.

    Returns:
        ``(height, width, 4)`` float32 as from ``sprite``. Shared and read-only.
    """
    rows = height * _SUPERSAMPLING
    columns = max(1, round(rows * PERSON_WIDTH))
    v, u = np.mgrid[0:rows, 0:columns].astype(np.float32)
    u, v = (u + 0.5) / rows - PERSON_WIDTH / 2, (v + 0.5) / rows  # in sprite heights: u from the centre, v from the top
    swing = 0.075 * math.sin(2.0 * math.pi * (stride + 0.5) / STRIDES)
    rgba = np.zeros((rows, columns, 4), dtype=np.float32)
    for side in (-1.0, 1.0):
        _limb(rgba, u, v, (0.035 * side, 0.52), (0.035 * side + swing * side, 0.97), 0.042, _TROUSERS)
    _limb(rgba, u, v, (-0.085, 0.24), (-0.105 - swing, 0.50), 0.030, CLOTHES[clothes])
    _limb(rgba, u, v, (0.0, 0.25), (0.0, 0.50), 0.088, CLOTHES[clothes])
    _limb(rgba, u, v, (0.085, 0.24), (0.105 + swing, 0.50), 0.030, CLOTHES[clothes])
    _limb(rgba, u, v, (0.0, 0.075), (0.0, 0.09), 0.070, _SKIN)
    _limb(rgba, u, v, (-0.008, 0.048), (0.008, 0.045), 0.052, _HAIR)
    size = max(1, columns // _SUPERSAMPLING), height
    image = np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.float32)
    image.setflags(write=False)
    return image


def _limb(
    rgba: _Plane,
    u: _Plane,
    v: _Plane,
    start: tuple[float, float],
    end: tuple[float, float],
    radius: float,
    colour: tuple[int, int, int],
) -> None:
    """Draw a rounded bar between two points, shaded like a cylinder lit from the left."""
    along_u, along_v = end[0] - start[0], end[1] - start[1]
    length = along_u * along_u + along_v * along_v
    share = np.clip(((u - start[0]) * along_u + (v - start[1]) * along_v) / length, 0.0, 1.0)
    off_u, off_v = u - (start[0] + share * along_u), v - (start[1] + share * along_v)
    inside = off_u * off_u + off_v * off_v <= radius * radius
    light = np.clip(0.86 - 0.38 * off_u / radius - 0.12 * off_v / radius, 0.0, 1.25)
    shaded = np.clip(light[..., None] * np.array(colour, dtype=np.float32), 0.0, 255.0)
    rgba[inside] = np.dstack([shaded, np.ones_like(u)])[inside]


def _lit(nx: _Plane, ny: _Plane, nz: _Plane) -> tuple[_Plane, _Plane]:
    """Return brightness (Lambert) and gloss (Blinn-Phong) of surfaces with these normals."""
    facing = np.clip(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0.0, 1.0)
    half = _LIGHT + np.array((0.0, 0.0, 1.0), dtype=np.float32)
    half /= np.linalg.norm(half)
    shine = np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0.0, 1.0) ** 40
    return _AMBIENT + 0.72 * facing, 0.45 * shine


def _ball(u: _Plane, v: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    radius = 0.97
    x, y = u / radius, v / radius
    distance = x * x + y * y
    light, gloss = _lit(x, y, np.sqrt(np.clip(1.0 - distance, 0.0, 1.0)))
    return (distance <= 1.0).astype(np.float32), light, gloss


def _cylinder(u: _Plane, v: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    radius, flat, top, bottom = 0.66, 0.20, -0.77, 0.77
    x = np.clip(u / radius, -1.0, 1.0)
    bulge = flat * np.sqrt(1.0 - x * x)
    wide = np.abs(u) <= radius
    side = wide & (v >= top) & (v <= bottom + bulge)
    lid = wide & (np.abs(v - top) <= bulge)
    light, gloss = _lit(x, np.zeros_like(x), np.sqrt(1.0 - x * x))
    light = np.where(lid, 1.12, light)
    return (side | lid).astype(np.float32), light, np.where(lid, 0.06, gloss)


def _cone(u: _Plane, v: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    radius, flat, apex, base = 0.82, 0.20, -0.97, 0.76
    reach = np.clip(radius * (v - apex) / (base - apex), 1e-3, radius)
    x = np.clip(u / reach, -1.0, 1.0)
    rim = flat * np.sqrt(np.clip(1.0 - (u / radius) ** 2, 0.0, 1.0))
    inside = (np.abs(u) <= reach) & (v >= apex) & (v <= base + rim)
    slope = 0.42  # the surface of a cone also faces upwards
    level = np.sqrt(1.0 - slope * slope)
    light, gloss = _lit(x * level, np.full_like(x, -slope), np.sqrt(1.0 - x * x) * level)
    return inside.astype(np.float32), light, gloss


def _box(u: _Plane, v: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    left, edge, top_edge, bottom = -0.92, 0.44, -0.46, 0.95  # the front face
    back = 0.46  # length of the receding edges, to the right and upwards
    front = (u >= left) & (u <= edge) & (v >= top_edge) & (v <= bottom)
    up = np.clip((top_edge - v) / back, 0.0, 1.0)
    top = (v < top_edge) & (v >= top_edge - back) & (u >= left + back * up) & (u <= edge + back * up)
    across = np.clip((u - edge) / back, 0.0, 1.0)
    right = (u > edge) & (u <= edge + back) & (v >= top_edge - back * across) & (v <= bottom - back * across)
    light = np.where(front, 0.90 - 0.10 * v, np.where(top, 1.16, 0.56))
    inside = (front | top | right).astype(np.float32)
    return inside, light.astype(np.float32), np.where(top, 0.05, 0.0).astype(np.float32)


def _ring(u: _Plane, v: _Plane) -> tuple[_Plane, _Plane, _Plane]:
    outer, inner = 0.96, 0.46  # an upright ring, seen from the front
    middle, tube = (outer + inner) / 2, (outer - inner) / 2
    distance = np.maximum(np.hypot(u, v), 1e-3)
    across = np.clip((distance - middle) / tube, -1.0, 1.0)  # -1 at the hole's edge, 1 at the outer edge
    light, gloss = _lit(across * u / distance, across * v / distance, np.sqrt(1.0 - across * across))
    return (np.abs(distance - middle) <= tube).astype(np.float32), light, gloss


_SHADERS = {"ball": _ball, "box": _box, "cone": _cone, "cylinder": _cylinder, "ring": _ring}
