"""The memory's grid equals that of the models' own tools."""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from delayed_vlm_ros.memory import Grid, fit_grid

smart_resize = pytest.importorskip("qwen_vl_utils.vision_process").smart_resize


def is_square(value: Fraction) -> bool:
    return value.denominator == 1 and math.isqrt(value.numerator) ** 2 == value.numerator


@given(
    height=st.integers(28, 2200),
    width=st.integers(28, 4000),
    factor=st.sampled_from([28, 32]),
    largest=st.integers(16, 1200),
)
def test_grid_equals_that_of_qwen_vl_utils(height, width, factor, largest):
    # given limits that both rules can meet: for thin images, theirs returns an empty side or exceeds the limit
    limits = {"min_pixels": 4 * factor**2, "max_pixels": largest * factor**2}
    theirs = smart_resize(height, width, factor, **limits)
    assume(0 < theirs[0] * theirs[1] <= limits["max_pixels"])
    # if a side is an exact number of cells, their floating point may fall just below it; ours is exact
    assume(not any(is_square(Fraction(one * largest, other)) for one, other in ((height, width), (width, height))))
    # then
    assert fit_grid(height, width, factor=factor, **limits) == Grid(*theirs)
