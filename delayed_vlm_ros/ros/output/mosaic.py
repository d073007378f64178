"""A memory as one image for people: a contact sheet with the age, the score and the reason of each moment."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageFont

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory import KeptPair, RgbArray

MAX_TILES = 60
"""Most moments on one sheet; of more, evenly spread ones are shown."""

_TILE_WIDTH = 232
_TILE_HEIGHTS = (100, 320)  # images much wider or higher than usual are shown smaller
_USUAL_ASPECT = 4 / 3
_GAP = 10
_TITLE_HEIGHT = 44
_CAPTION_HEIGHT = 48
_FIRST_LINE, _LINE_HEIGHT = 16, 20
_LABEL_HEIGHT = 26
_BORDER = 3
_SHEET_ASPECT = 16 / 9
_EMPTY_PLACES_COST = 2.0  # rather a sheet of another shape than one that never fills

_TITLE_SIZE, _TEXT_SIZE = 20, 17
_GROUND = (24, 26, 30)
_PLACE = (36, 39, 45)
_BRIGHT = (240, 240, 240)
_DIM = (160, 166, 176)
_MARK = (255, 190, 60)
_ON_MARK = (30, 24, 8)
_SCORE = (96, 165, 250)

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
# Up to here numbers of a unit are told, lest "1 min" stand for nearly two.
_MOST_OF_A_UNIT = 2.0


@dataclass(frozen=True)
class Tile:
    """One moment of the sheet.

    Attributes:
        id: The pair's, to mark it by.
        image: RGB uint8, shape (H, W, 3).
        age_sec: How long ago it was, in seconds.
        importance: Its score, 0..1.
        reason: Why it is notable; may be empty.
        marked: Whether it is protected.
        label: Its mark's label; may be empty.
    """

    id: int
    image: RgbArray
    age_sec: float
    importance: float
    reason: str
    marked: bool
    label: str


def tile_of(kept: KeptPair, age_sec: float) -> Tile:
    """A kept pair by its more important frame, which is so many seconds old."""
    image = kept.pair.important_frame.image
    return Tile(kept.id, image, age_sec, kept.importance, kept.reason, kept.marked, kept.label)


def draw_mosaic(title: str, detail: str, tiles: Sequence[Tile], places: int) -> RgbArray:
    """Draw the sheet.

    Args:
        title: What it shows.
        detail: What else is to be said of it, in a few words.
        tiles: The moments, oldest first.
        places: How many moments there is room for; as the memory fills, the sheet keeps its size.

    Returns:
        RGB uint8, shape (H, W, 3); its size depends on the number of places and the shape of the images alone.

    Raises:
        ConfigurationError: The installed Pillow is too old.
        ImportError: It lacks its font renderer.
    """
    shown = _spread(tiles, MAX_TILES)
    height = _tile_height(shown)
    places = min(max(places, len(shown), 1), MAX_TILES)
    columns, rows = _arrangement(places, height)
    width = columns * (_TILE_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, _TITLE_HEIGHT + rows * (height + _CAPTION_HEIGHT + _GAP)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    if len(shown) < len(tiles):
        detail = f"{detail}, {len(shown)} moments shown"
    left = _GAP + _text(draw, (_GAP, _TITLE_HEIGHT // 2), title, _TITLE_SIZE, _BRIGHT, width) + 2 * _GAP
    _text(draw, (left, _TITLE_HEIGHT // 2), detail, _TEXT_SIZE, _DIM, width - left)
    for number in range(places):
        row, column = divmod(number, columns)
        corner = _GAP + column * (_TILE_WIDTH + _GAP), _TITLE_HEIGHT + row * (height + _CAPTION_HEIGHT + _GAP)
        if number < len(shown):
            _draw_tile(sheet, draw, corner, shown[number], height)
        else:
            draw.rectangle((*corner, corner[0] + _TILE_WIDTH - 1, corner[1] + height - 1), fill=_PLACE)
    return np.array(sheet)


def age_text(seconds: float) -> str:
    """An age for people: 12 s ago, 3 min ago, 5 h ago, 4 d ago."""
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= _MOST_OF_A_UNIT * unit:
            return f"{int(seconds / unit)} {name} ago"
    return f"{int(seconds)} s ago"


def _spread(tiles: Sequence[Tile], most: int) -> list[Tile]:
    if len(tiles) <= most:
        return list(tiles)
    return [tiles[round(index)] for index in np.linspace(0, len(tiles) - 1, most)]


def _tile_height(tiles: Sequence[Tile]) -> int:
    aspect = tiles[0].image.shape[1] / tiles[0].image.shape[0] if tiles else _USUAL_ASPECT
    return int(np.clip(round(_TILE_WIDTH / aspect), *_TILE_HEIGHTS))


def _arrangement(places: int, tile_height: int) -> tuple[int, int]:
    """Columns and rows of a sheet that is about as wide and high as a screen."""

    def off(columns: int) -> float:
        rows = math.ceil(places / columns)
        aspect = columns * (_TILE_WIDTH + _GAP) / (rows * (tile_height + _CAPTION_HEIGHT + _GAP))
        return abs(math.log(aspect / _SHEET_ASPECT)) + _EMPTY_PLACES_COST * (columns * rows - places) / places

    columns = min(range(1, places + 1), key=off)
    return columns, math.ceil(places / columns)


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], tile: Tile, height: int) -> None:
    left, top = corner
    right, bottom = left + _TILE_WIDTH - 1, top + height - 1
    draw.rectangle((left, top, right, bottom), fill=_PLACE)
    image = _fitted(tile.image, _TILE_WIDTH, height)
    sheet.paste(
        Image.fromarray(image), (left + (_TILE_WIDTH - image.shape[1]) // 2, top + (height - image.shape[0]) // 2)
    )
    if tile.marked:
        draw.rectangle((left, top, right, bottom), outline=_MARK, width=_BORDER)
        draw.rectangle((left, bottom - _LABEL_HEIGHT + 1, right, bottom), fill=_MARK)
        middle = (left + _GAP, bottom - _LABEL_HEIGHT // 2)
        _text(draw, middle, tile.label or "marked", _TEXT_SIZE, _ON_MARK, _TILE_WIDTH - 2 * _GAP)
    draw.rectangle((left, bottom + 1, right, bottom + 4), fill=_PLACE)
    draw.rectangle((left, bottom + 1, left + round(tile.importance * (_TILE_WIDTH - 1)), bottom + 4), fill=_SCORE)
    line = bottom + _FIRST_LINE
    _two_texts(draw, (left, line), (age_text(tile.age_sec), _BRIGHT), (f"{tile.importance:.2f}", _DIM))
    _two_texts(draw, (left, line + _LINE_HEIGHT), (tile.reason, _DIM), (f"#{tile.id}", _DIM))


def _two_texts(
    draw: ImageDraw.ImageDraw,
    left_middle: tuple[int, int],
    at_left: tuple[str, tuple[int, ...]],
    at_right: tuple[str, tuple[int, ...]],
) -> None:
    """Write a line under an image, with words on either side."""
    left, middle = left_middle
    words, colour = at_right
    width = int(_font(_TEXT_SIZE).getlength(words))
    _text(draw, (left + _TILE_WIDTH - width, middle), words, _TEXT_SIZE, colour, width)
    _text(draw, left_middle, at_left[0], _TEXT_SIZE, at_left[1], _TILE_WIDTH - width - _GAP)


def _fitted(image: RgbArray, width: int, height: int) -> RgbArray:
    """The whole image, as large as fits."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _text(
    draw: ImageDraw.ImageDraw, left_middle: tuple[int, int], words: str, size: int, colour: tuple[int, ...], room: int
) -> int:
    """Write a line, cut where there is no more room; gives its width."""
    font, words = _font(size), _plain(words)
    while int(font.getlength(words)) > room and words.strip("."):
        words = words.rstrip(".")[:-1].rstrip() + "..."
    draw.text(left_middle, words, font=font, fill=colour, anchor="lm")
    return int(font.getlength(words))


def _plain(words: str) -> str:
    """The words in what signs the font has: letters without their accents, and a ? for what is no Latin letter."""
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", words) if not unicodedata.combining(sign))
    return bare.encode("ascii", "replace").decode("ascii")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # The one that comes with the library, so that the sheet looks the same on every machine.
    try:
        return ImageFont.load_default(size)
    except TypeError:
        raise ConfigurationError(f"Pillow {PIL.__version__} has no font of a given size") from None
