"""Images for agents."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from delayed_vlm_ros.agents.images import MAX_BYTES, MAX_SIDE, bounded_image
from delayed_vlm_ros.errors import ImageError


def message(width, height, kind="JPEG", *, noise=False):
    shape = (height, width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8) if noise else np.full(shape, 99, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=90)
    return SimpleNamespace(format=kind.lower(), data=file.getvalue())


def test_image_within_the_bounds_stays_as_it_is():
    given = message(140, 112)
    shown = bounded_image(given)
    assert (shown.jpeg, shown.width, shown.height, shown.original_size) == (given.data, 140, 112, None)


@pytest.mark.parametrize(("size", "expected"), [((2048, 512), (1024, 256)), ((30, 3000), (10, 1024))])
def test_large_image_is_scaled_down_and_says_so(size, expected):
    shown = bounded_image(message(*size))
    assert (shown.width, shown.height, shown.original_size) == (*expected, size)
    assert Image.open(io.BytesIO(shown.jpeg)).size == expected


def test_image_of_many_bytes_is_compressed_further():
    given = message(MAX_SIDE, MAX_SIDE, noise=True)
    assert len(given.data) > MAX_BYTES
    shown = bounded_image(given)
    assert len(shown.jpeg) <= MAX_BYTES
    assert shown.original_size is None


def test_png_becomes_a_jpeg():
    assert Image.open(io.BytesIO(bounded_image(message(20, 10, "PNG")).jpeg)).format == "JPEG"


@pytest.mark.parametrize("data", [b"", b"no image", message(3000, 3000).data[:700]])
def test_damaged_image_is_refused(data):
    with pytest.raises(ImageError):
        bounded_image(SimpleNamespace(format="jpeg", data=data))
