"""Mosaics of a memory for people: a contact sheet with age, score and reason of each kept pair."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

import cv2
import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import KeptPair, RgbArray

MAX_TILES = 60
"""Largest number of tiles in a mosaic; of more pairs, evenly spread ones are shown."""

_Color: TypeAlias = tuple[int, int, int]

_TILE_WIDTH = 232
_TILE_HEIGHTS = (100, 320)  # very wide and very high images are shown smaller
_DEFAULT_ASPECT = 4 / 3
_GAP = 10
_TITLE_HEIGHT = 44
_CAPTION_HEIGHT = 48
_FIRST_LINE, _LINE_HEIGHT = 16, 20
_LABEL_HEIGHT = 26
_BORDER = 3
_SHEET_ASPECT = 16 / 9
_EMPTY_SLOTS_COST = 2.0  # prefers another aspect ratio to slots that never fill

_TITLE_SIZE, _TEXT_SIZE = 20, 17
_BACKGROUND = (24, 26, 30)
_SLOT = (36, 39, 45)
_BRIGHT = (240, 240, 240)
_DIM = (160, 166, 176)
_MARK = (255, 190, 60)
_ON_MARK = (30, 24, 8)
_SCORE = (96, 165, 250)

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_MIN_UNITS = 2.0  # of a unit before it is used: "1 min" could mean almost two


@dataclass(frozen=True)
class Tile:
    """One kept pair in a mosaic.

    Attributes:
        id: Id of the pair, which clients use to mark it.
        image: RGB uint8 array of shape (H, W, 3).
        age_sec: Age in seconds.
        importance: Score, 0 to 1.
        reason: Why the pair is important; may be empty.
        marked: Whether the pair is marked.
        label: Label of the mark; may be empty.
    """

    id: int
    image: RgbArray
    age_sec: float
    importance: float
    reason: str
    marked: bool
    label: str


def make_tile(kept: KeptPair, age_sec: float) -> Tile:
    """Return the tile of a kept pair; it shows the pair's more important frame, which is ``age_sec`` old."""
    image = kept.pair.important_frame.image
    return Tile(kept.id, image, age_sec, kept.importance, kept.reason, kept.marked, kept.label)


def draw_mosaic(title: str, detail: str, tiles: Sequence[Tile], slots: int) -> RgbArray:
    """Draw a mosaic.

    Args:
        title: Title.
        detail: A few words after the title.
        tiles: Tiles, oldest first.
        slots: Number of slots for tiles, so that the mosaic keeps its size while the memory fills.

    Returns:
        RGB uint8 array of shape (H, W, 3). Its size depends only on the number of slots and the shape of the images.

    Raises:
        ConfigurationError: The installed Pillow is too old.
        ImportError: The installed Pillow has no font renderer.
    """
    shown = _spread(tiles, MAX_TILES)
    height = _tile_height(shown)
    slots = min(max(slots, len(shown), 1), MAX_TILES)
    columns, rows = _arrange(slots, height)
    width = columns * (_TILE_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TITLE_HEIGHT + rows * (height + _CAPTION_HEIGHT + _GAP)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if len(shown) < len(tiles):
        detail = f"{detail}, {len(shown)} pairs shown"
    left = _GAP + _text(draw, (_GAP, _TITLE_HEIGHT // 2), title, _TITLE_SIZE, _BRIGHT, width) + 2 * _GAP
    _text(draw, (left, _TITLE_HEIGHT // 2), detail, _TEXT_SIZE, _DIM, width - left)
    for number in range(slots):
        row, column = divmod(number, columns)
        corner = _GAP + column * (_TILE_WIDTH + _GAP), _TITLE_HEIGHT + row * (height + _CAPTION_HEIGHT + _GAP)
        if number < len(shown):
            _draw_tile(sheet, draw, corner, shown[number], height)
        else:
            draw.rectangle((*corner, corner[0] + _TILE_WIDTH - 1, corner[1] + height - 1), fill=_SLOT)
    return np.array(sheet)


def age_text(seconds: float) -> str:
    """Return an age as text: 12 s ago, 3 min ago, 5 h ago, 4 d ago."""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= _MIN_UNITS * unit:
            return f"{int(seconds / unit)} {name} ago"
    return f"{int(seconds)} s ago"


def _spread(tiles: Sequence[Tile], limit: int) -> list[Tile]:
    if len(tiles) <= limit:
        return list(tiles)
    return [tiles[round(index)] for index in np.linspace(0, len(tiles) - 1, limit)]


def _tile_height(tiles: Sequence[Tile]) -> int:
    aspect = tiles[0].image.shape[1] / tiles[0].image.shape[0] if tiles else _DEFAULT_ASPECT
    return int(np.clip(round(_TILE_WIDTH / aspect), *_TILE_HEIGHTS))


def _arrange(slots: int, tile_height: int) -> tuple[int, int]:
    """Return columns and rows of a mosaic with about the aspect ratio of a screen."""

    def cost(columns: int) -> float:
        rows = math.ceil(slots / columns)
        aspect = columns * (_TILE_WIDTH + _GAP) / (rows * (tile_height + _CAPTION_HEIGHT + _GAP))
        return abs(math.log(aspect / _SHEET_ASPECT)) + _EMPTY_SLOTS_COST * (columns * rows - slots) / slots

    columns = min(range(1, slots + 1), key=cost)
    return columns, math.ceil(slots / columns)


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: Tile, height: int) -> None:
    left, top = corner
    right, bottom = left + _TILE_WIDTH - 1, top + height - 1
    draw.rectangle((left, top, right, bottom), fill=_SLOT)
    image = _fitted(tile.image, _TILE_WIDTH, height)
    sheet.paste(
        Image.fromarray(image), (left + (_TILE_WIDTH - image.shape[1]) // 2, top + (height - image.shape[0]) // 2)
    )
    if tile.marked:
        draw.rectangle((left, top, right, bottom), outline=_MARK, width=_BORDER)
        draw.rectangle((left, bottom - _LABEL_HEIGHT + 1, right, bottom), fill=_MARK)
        middle = (left + _GAP, bottom - _LABEL_HEIGHT // 2)
        _text(draw, middle, tile.label or "marked", _TEXT_SIZE, _ON_MARK, _TILE_WIDTH - 2 * _GAP)
    draw.rectangle((left, bottom + 1, right, bottom + 4), fill=_SLOT)
    draw.rectangle((left, bottom + 1, left + round(tile.importance * (_TILE_WIDTH - 1)), bottom + 4), fill=_SCORE)
    line = bottom + _FIRST_LINE
    _two_texts(draw, (left, line), (age_text(tile.age_sec), _BRIGHT), (f"{tile.importance:.2f}", _DIM))
    _two_texts(draw, (left, line + _LINE_HEIGHT), (tile.reason, _DIM), (f"#{tile.id}", _DIM))


def _two_texts(
    draw: ImageDraw.ImageDraw,
    left_middle: tuple[int, int],
    left_text: tuple[str, _Color],
    right_text: tuple[str, _Color],
) -> None:
    """Write one caption line with a left-aligned and a right-aligned text."""
    left, middle = left_middle
    text, color = right_text
    width = int(_font(_TEXT_SIZE).getlength(text))
    _text(draw, (left + _TILE_WIDTH - width, middle), text, _TEXT_SIZE, color, width)
    _text(draw, left_middle, left_text[0], _TEXT_SIZE, left_text[1], _TILE_WIDTH - width - _GAP)


def _fitted(image: RgbArray, width: int, height: int) -> RgbArray:
    """Return the whole image, as large as it fits."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cast("RgbArray", cv2.resize(image, size, interpolation=interpolation))


def _text(
    draw: ImageDraw.ImageDraw, left_middle: tuple[int, int], text: str, size: int, color: _Color, max_width: int
) -> int:
    """Write a line, cut to the maximum width. Return its width."""
    font, text = _font(size), _to_ascii(text)
    while int(font.getlength(text)) > max_width and text.strip("."):
        text = text.rstrip(".")[:-1].rstrip() + "..."
    draw.text(left_middle, text, font=font, fill=color, anchor="lm")
    return int(font.getlength(text))


def _to_ascii(text: str) -> str:
    """Return the text in the characters of the font: letters without accents, and ? for other characters."""
    letters = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return letters.encode("ascii", "replace").decode("ascii")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font: mosaics look the same on every machine.
    try:
        font = ImageFont.load_default(size)
    except TypeError:
        raise ConfigurationError(f"Pillow {PIL.__version__} has no scalable default font") from None
    return cast("ImageFont.FreeTypeFont", font)
