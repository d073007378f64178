"""The grid rule, letterboxing and conversion of images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from delayed_vlm_ros.errors import ConfigurationError, ImageError
from delayed_vlm_ros.memory import Grid, as_rgb_array, fit_grid, letterbox

LIMITS = {"factor": 28, "min_pixels": 4 * 28 * 28, "max_pixels": 4 * 224 * 224}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((448, 448), (448, 448)),
        ((1000, 1000), (448, 448)),
        ((480, 640), (364, 504)),
        ((1080, 1920), (336, 588)),
        ((720, 1280), (336, 588)),
        ((144, 176), (140, 168)),
        ((20, 20), (56, 56)),
        ((100, 20000), (28, 6328)),
    ],
)
def test_fit_grid_matches_the_qwen_rule(size, expected):
    # when
    grid = fit_grid(*size, **LIMITS)

    # then
    assert (grid.height, grid.width) == expected


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    factor=st.sampled_from([8, 28, 32]),
    limits=st.tuples(st.integers(1, 2000), st.integers(1, 2000)).map(sorted),
)
def test_fit_grid_is_within_limits_for_any_size(height, width, factor, limits):
    # given
    fewest, most = limits[0] * factor**2, limits[1] * factor**2
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ImageError, match=str(height)):
            fit_grid(height, width, factor=factor, min_pixels=fewest, max_pixels=most)
        return

    # when
    grid = fit_grid(height, width, factor=factor, min_pixels=fewest, max_pixels=most)

    # then
    assert grid.height % factor == 0
    assert grid.width % factor == 0
    assert factor <= grid.height
    assert factor <= grid.width
    assert grid.height * grid.width <= most
    if 4 * fewest <= most:
        unclipped = min(height, width) / max(height, width) * fewest >= factor**2
        assert grid.height * grid.width >= fewest or not unclipped


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"max_pixels": 27 * 28}, ConfigurationError, "max_pixels"),
        ({"min_pixels": 10**9}, ConfigurationError, "min_pixels"),
        ({"factor": 0}, ConfigurationError, "factor"),
        ({"height": 0}, ImageError, "height 0"),
        ({"height": 10, "width": 2001}, ImageError, "200"),
    ],
)
def test_fit_grid_rejects_invalid_arguments(changes, error, named):
    with pytest.raises(error, match=named):
        fit_grid(**{"height": 480, "width": 640, **LIMITS, **changes})


def test_letterbox_never_returns_or_shares_its_input():
    # given
    image = np.zeros((56, 84, 3), np.uint8)

    for size in ((56, 84), (28, 56), (112, 112)):
        # when
        boxed = letterbox(image, Grid(*size))

        # then
        assert boxed.shape == (*size, 3)
        assert boxed.dtype == np.uint8
        assert boxed.flags.c_contiguous
        assert not np.shares_memory(boxed, image)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (720, 1280), (1944, 2592), (640, 480), (400, 1600)])
@pytest.mark.parametrize("factor", [28, 32])
def test_letterbox_adds_no_bars_to_images_that_the_grid_was_fitted_to(size, factor):
    # given
    grid = fit_grid(*size, factor=factor, min_pixels=4 * factor**2, max_pixels=4 * 224 * 224)
    white = np.full((*size, 3), 255, np.uint8)

    # then
    assert (letterbox(white, grid) == 255).all()


def test_letterbox_adds_black_bars_to_an_image_of_another_shape():
    # given
    white = np.full((480, 640, 3), 255, np.uint8)

    # when
    on_square, on_tower = letterbox(white, Grid(224, 224)), letterbox(white, Grid(448, 224))

    # then
    assert (on_square[:28] == 0).all()
    assert (on_square[28:196] == 255).all()
    assert (on_square[196:] == 0).all()
    assert (on_tower[140:308] == 255).all()
    assert on_tower[:140].max() == on_tower[308:].max() == 0


def test_letterbox_averages_when_reducing():
    # given noise, which averages out over 64 pixels but not over the nearest 4
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)

    # when
    small = letterbox(noise, Grid(56, 56))

    # then
    assert small.std() == pytest.approx(noise.std() / 8, rel=0.1)


def test_letterbox_accepts_views_with_any_strides():
    # given
    image = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)

    # then
    for view in (image[..., ::-1], image[::-1, ::2], image.transpose(1, 0, 2)):
        np.testing.assert_array_equal(letterbox(view, Grid(28, 28)), letterbox(view.copy(), Grid(28, 28)))


def test_as_rgb_array_does_not_copy_arrays():
    # given
    image = np.zeros((2, 3, 3), np.uint8)

    # then
    assert np.shares_memory(as_rgb_array(image), image)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "CMYK", "HSV", "LA"])
def test_as_rgb_array_converts_pil_images_of_any_mode(mode):
    # given
    image = Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode)

    # when
    array = as_rgb_array(image)

    # then
    assert array.shape == (4, 5, 3)
    assert array.dtype == np.uint8
    assert (array == 255).all()


@pytest.mark.parametrize("mode", ["I", "I;16", "F"])
def test_as_rgb_array_refuses_pil_modes_without_a_known_largest_value(mode):
    with pytest.raises(ImageError, match=f"mode {mode},.*0..255"):
        as_rgb_array(Image.new(mode, (5, 4), 200))


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((4, 5, 3), np.uint16), r"uint16 .*0\.\.255"),
        (np.zeros((4, 5, 3), np.float32), r"float32 .*\(4, 5, 3\).*255"),
        (np.zeros((4, 5, 3), np.int64), r"int64 .*astype"),
        (np.zeros((4, 5), np.uint8), r"\(4, 5\).*np\.stack"),
        (np.zeros((4, 5, 1), np.uint8), r"\(4, 5, 1\).*np\.repeat"),
        (np.zeros((4, 5, 4), np.uint8), r"image\[\.\.\., :3\]"),
        (np.zeros((3, 4, 5), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"\(2, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (Image.new("RGB", (0, 0)), r"\(0, 0, 3\)"),
        ("image.png", r"\bstr\b"),
        (None, r"NoneType"),
    ],
)
def test_as_rgb_array_names_the_input_and_the_remedy(image, named):
    with pytest.raises(ImageError, match=named):
        as_rgb_array(image)


def test_as_rgb_array_reports_a_pil_image_that_does_not_decode():
    # given
    image = Image.new("RGB", (4, 4))
    image.close()

    # then
    with pytest.raises(ImageError, match="PIL"):
        as_rgb_array(image)
