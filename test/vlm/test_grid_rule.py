"""The memory's grid is the one that the models' own tools choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.memory import Grid, fit_grid

smart_resize = pytest.importorskip("qwen_vl_utils.vision_process").smart_resize


@given(
    height=st.integers(28, 2200),
    width=st.integers(28, 4000),
    factor=st.sampled_from([28, 32]),
    largest=st.integers(16, 1200),
)
def test_grids_are_those_of_qwen_vl_utils(height, width, factor, largest):
    # given limits that both rules can hold: on thin pictures theirs gives none of a side, or more than the limit
    limits = {"min_pixels": 4 * factor**2, "max_pixels": largest * factor**2}
    theirs = smart_resize(height, width, factor, **limits)
    if not 0 < theirs[0] * theirs[1] <= limits["max_pixels"]:
        return
    # then
    assert fit_grid(height, width, factor=factor, **limits) == Grid(*theirs)
