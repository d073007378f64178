import numpy as np
import pytest

from delayed_vlm_ros.ros.output import mosaic
from delayed_vlm_ros.ros.output.mosaic import MAX_TILES, Tile, age_text, draw_mosaic

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


def tile(number=0, *, shape=(84, 112), **fields):
    image = np.full((*shape, 3), COLOURS[number % 3], np.uint8)
    known = {"age_sec": 5.0, "importance": 0.5, "reason": "", "marked": False, "label": ""}
    return Tile(number, image, **{**known, **fields})


def amount(drawn, colour):
    """Return the number of pixels of this colour."""
    return int(np.all(drawn == colour, axis=2).sum())


def test_mosaic_shows_every_pair_and_keeps_its_size_while_the_memory_fills():
    # when
    half, full = (draw_mosaic("Star", "front", [tile(number) for number in range(count)], 10) for count in (3, 10))

    # then
    assert half.shape == full.shape
    assert half.dtype == np.uint8
    areas = [amount(half, colour) for colour in COLOURS]
    assert areas[0] == areas[1] == areas[2] > 10_000
    assert [amount(full, colour) // areas[0] for colour in COLOURS] == [4, 3, 3]


def test_mark_is_visible():
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
def test_every_field_of_a_tile_changes_the_mosaic(fields):
    known = draw_mosaic("Star", "", [tile()], 1)
    assert not np.array_equal(draw_mosaic("Star", "", [tile(**fields)], 1), known)


def test_bar_length_is_proportional_to_the_score():
    lengths = [amount(draw_mosaic("", "", [tile(importance=score)], 1), mosaic._SCORE) for score in (0.25, 0.5, 1.0)]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=0.05)
    assert lengths[2] == pytest.approx(4 * lengths[0], rel=0.05)


@pytest.mark.parametrize("shape", [(56, 560), (560, 56), (84, 112), (1, 1)])
def test_images_of_any_shape_are_shown_whole(shape):
    drawn = draw_mosaic("Star", "", [tile(shape=shape)], 4)
    assert amount(drawn, COLOURS[0]) > 100
    assert max(drawn.shape) < 1500


def test_empty_memory_is_a_mosaic_of_empty_slots():
    for slots in (0, 10):
        drawn = draw_mosaic("Star", "empty", [], slots)
        assert amount(drawn, mosaic._SLOT) > 10_000


def test_more_pairs_than_tiles_are_spread_evenly():
    few, many = (draw_mosaic("", "", [tile(3 * number) for number in range(count)], count) for count in (60, 1000))
    assert few.shape == many.shape
    assert mosaic._spread(list(range(1000)), MAX_TILES)[:: MAX_TILES - 1] == [0, 999]


def test_texts_of_any_script_and_length_are_drawn():
    for text in ("ä" * 64, "鍵" * 64, "\u202eabc", "…", "." * 300, "W" * 300, " ", "\U0001f511"):
        draw_mosaic(text, text, [tile(reason=text, marked=True, label=text)], 1)


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
def test_age_text_has_the_largest_unit_of_at_least_two(seconds, text):
    assert age_text(seconds) == text
