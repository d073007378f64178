"""The contact sheet of a memory."""

import numpy as np
import pytest

from delayed_vlm_ros.ros.output import mosaic
from delayed_vlm_ros.ros.output.mosaic import MAX_TILES, Tile, age_text, draw_mosaic

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def tile(number=0, *, shape=(84, 112), **fields):
    image = np.full((*shape, 3), COLOURS[number % 3], np.uint8)
    known = {"age_sec": 5.0, "importance": 0.5, "reason": "", "marked": False, "label": ""}
    return Tile(number, image, **{**known, **fields})


def amount(sheet, colour):
    """How many pixels have this colour."""
    return int(np.all(sheet == colour, axis=2).sum())


def test_every_moment_is_shown_and_the_sheet_keeps_its_size_as_the_memory_fills():
    # when
    half, full = (draw_mosaic("Star", "front", [tile(number) for number in range(count)], 10) for count in (3, 10))

    # then
    assert half.shape == full.shape
    assert half.dtype == np.uint8
    areas = [amount(half, colour) for colour in COLOURS]
    assert areas[0] == areas[1] == areas[2] > 10_000
    assert [amount(full, colour) // areas[0] for colour in COLOURS] == [4, 3, 3]


def test_a_mark_is_seen():
    plain = draw_mosaic("Star", "", [tile()], 1)
    marked = draw_mosaic("Star", "", [tile(marked=True)], 1)
    labelled = draw_mosaic("Star", "", [tile(marked=True, label="keys")], 1)
    assert amount(plain, mosaic._MARK) == 0
    assert amount(marked, mosaic._MARK) > 3000
    assert not np.array_equal(marked, labelled)


@pytest.mark.parametrize(
    "fields",
    [{"age_sec": 9.0}, {"importance": 0.75}, {"reason": "scene change"}, {"marked": True}, {"number": 3}],
)
def test_each_thing_told_of_a_moment_changes_the_sheet(fields):
    known = draw_mosaic("Star", "", [tile()], 1)
    assert not np.array_equal(draw_mosaic("Star", "", [tile(**fields)], 1), known)


def test_a_bar_is_as_long_as_the_score():
    lengths = [amount(draw_mosaic("", "", [tile(importance=score)], 1), mosaic._SCORE) for score in (0.25, 0.5, 1.0)]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=0.05)
    assert lengths[2] == pytest.approx(4 * lengths[0], rel=0.05)


@pytest.mark.parametrize("shape", [(56, 560), (560, 56), (84, 112), (1, 1)])
def test_images_of_any_shape_are_shown_whole(shape):
    sheet = draw_mosaic("Star", "", [tile(shape=shape)], 4)
    assert amount(sheet, COLOURS[0]) > 100
    assert max(sheet.shape) < 1500


def test_an_empty_memory_is_a_sheet_of_empty_places():
    for places in (0, 10):
        sheet = draw_mosaic("Star", "nothing yet", [], places)
        assert amount(sheet, mosaic._PLACE) > 10_000


def test_of_more_moments_than_a_sheet_holds_evenly_spread_ones_are_shown():
    few, many = (draw_mosaic("", "", [tile(3 * number) for number in range(count)], count) for count in (60, 1000))
    assert few.shape == many.shape
    assert mosaic._spread(list(range(1000)), MAX_TILES)[:: MAX_TILES - 1] == [0, 999]


def test_words_of_any_kind_and_length_do_no_harm():
    for words in ("ä" * 64, "鍵" * 64, "\u202eabc", "…", "." * 300, "W" * 300, " ", "\U0001f511"):
        draw_mosaic(words, words, [tile(reason=words, marked=True, label=words)], 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s ago"),
        (119.9, "119 s ago"),
        (120.0, "2 min ago"),
        (7199.0, "119 min ago"),
        (7200.0, "2 h ago"),
        (172_800.0, "2 d ago"),
        (1.8e9, "20833 d ago"),
    ],
)
def test_ages(seconds, text):
    assert age_text(seconds) == text
