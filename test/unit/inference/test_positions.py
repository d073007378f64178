"""Rotary positions: calculated by hand, compared with the library's, and as properties."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.inference.local.positions import prompt_positions, temporal_ids
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.replay.native import native_inputs

FAR = 10**6


def config(family, tokens_per_second=2):
    vision = SimpleNamespace(tokens_per_second=tokens_per_second) if family == "qwen2_5_vl" else SimpleNamespace()
    return SimpleNamespace(model_type=family, vision_config=vision)


def columns_of(positions):
    """Return (temporal, row, column) of every token."""
    return [tuple(token) for token in positions[:, 0].T.tolist()]


# --- temporal ids ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "stamps", "expected"),
    [
        ("qwen2_5_vl", [0.0, 1.0, 2.0, 3.0], (0, 2, 4, 6)),  # pairs of a 2 fps sample
        ("qwen2_5_vl", [7.25, 7.75, 9.0, 60.0], (0, 1, 3, 105)),  # 0, 1.0, 3.5, 105.5 ids; from the first pair's time
        ("qwen2_5_vl", [0.0, 0.2, 0.4], (0, 1, 2)),  # closer than one id: 0, 0.4, 0.8; the order is kept
        ("qwen2_5_vl", [0.0, 0.2, 0.4, 9.0], (0, 1, 2, 18)),  # then true time again
        ("qwen2_5_vl", [1.7e9, 1.7e9 + 1.0], (0, 2)),  # seconds since 1970
        ("qwen2_vl", [0.0, 1.0, 2.0, 60.0], (0, 1, 2, 3)),  # does not encode time
    ],
)
def test_temporal_ids_by_hand(family, stamps, expected):
    # when
    times = temporal_ids(config(family), stamps, FAR)

    # then
    assert times.ids == expected
    assert not times.compressed


def test_tokens_per_second_of_the_config_is_used():
    # given 4 ids per second, as in an older release of the library
    four = config("qwen2_5_vl", tokens_per_second=4)

    # then
    assert temporal_ids(four, [0.0, 1.0, 1.75], FAR).ids == (0, 4, 7)


@given(
    count=st.integers(1, 40),
    start=st.floats(0, 2e9),
    jitter=st.lists(st.floats(-0.02, 0.02), min_size=40, max_size=40),
)
def test_jitter_of_stamps_does_not_change_ids(count, start, jitter):
    # given the stamps of a 2 fps sample, each up to 20 ms early or late
    stamps = [start + number + jitter[number] for number in range(count)]

    # when
    times = temporal_ids(config("qwen2_5_vl"), stamps, FAR)

    # then
    assert times.ids == tuple(2 * number for number in range(count))


@pytest.mark.parametrize(("off", "expected"), [(-0.049, 2), (-0.051, 1), (0.0, 2), (0.449, 2), (0.451, 3)])
def test_rounding_margin_is_a_tenth_of_an_id(off, expected):
    assert temporal_ids(config("qwen2_5_vl"), [0.0, 1.0 + off], FAR).ids[1] == expected


LIMIT = 112_000  # of Qwen2.5-VL's published sizes
TRUE_SEC = LIMIT / 8 / 2  # longest gap that is not compressed
DAY = 86400.0
STEPS = st.lists(st.floats(0.001, 100.0) | st.floats(100.0, 1e5) | st.floats(1e5, 2e9), min_size=0, max_size=50)


def stamps_of(steps):
    return [12.5, *(12.5 + np.cumsum(steps)).tolist()] if steps else [12.5]


@given(family=st.sampled_from(["qwen2_vl", "qwen2_5_vl"]), steps=STEPS, limit=st.integers(60, 2000) | st.just(LIMIT))
def test_ids_start_at_zero_increase_and_stay_within_the_limit(family, steps, limit):
    # when
    times = temporal_ids(config(family), stamps_of(steps), limit)

    # then
    assert len(times.ids) == len(steps) + 1
    assert times.ids[0] == 0
    assert all(earlier < later for earlier, later in pairwise(times.ids))
    assert times.ids[-1] <= limit
    # and a video without long gaps that fits has its true times
    free = temporal_ids(config(family), stamps_of(steps), 10**12)
    assert not free.compressed
    if not times.compressed and not times.rebased:
        assert times.ids == free.ids


@given(steps=STEPS.filter(bool), limit=st.integers(60, 2000) | st.just(LIMIT))
def test_another_pair_changes_no_earlier_id(steps, limit):
    # given
    stamps = stamps_of(steps)

    # when
    before, after = (temporal_ids(config("qwen2_5_vl"), some, limit) for some in (stamps[:-1], stamps))

    # then, unless the limit is reached
    if not after.rebased:
        assert after.ids[:-1] == before.ids


@given(steps=STEPS.filter(lambda steps: len(steps) > 1))
def test_eviction_of_the_oldest_pair_only_shifts_ids(steps):
    # when
    before, after = (
        temporal_ids(config("qwen2_5_vl"), some, 10**6) for some in (stamps_of(steps), stamps_of(steps)[1:])
    )

    # then, up to rounding
    shifts = [earlier - later for earlier, later in zip(before.ids[1:], after.ids, strict=True)]
    if min(steps) >= 1.0 and not before.rebased:
        assert max(shifts) - min(shifts) <= 1


def test_gap_is_true_up_to_an_eighth_of_the_limit_and_grows_logarithmically():
    gaps = [TRUE_SEC, TRUE_SEC + 100, DAY, 3 * DAY, 30 * DAY, 300 * DAY]

    # when
    times = [temporal_ids(config("qwen2_5_vl"), [0.0, gap], LIMIT) for gap in gaps]

    # then the first two are true or nearly so, and each tenfold adds the same
    assert [one.compressed for one in times] == [False, *[True] * 5]
    ids = [one.ids[1] for one in times]
    assert ids == sorted(set(ids))
    assert ids[0] == LIMIT / 8
    assert ids[1] - ids[0] == pytest.approx(200, rel=0.06)
    assert ids[5] - ids[4] == pytest.approx(LIMIT / 64 * math.log(10), rel=0.01)


@pytest.mark.parametrize("span", [0.5 * DAY, DAY, 3 * DAY, 7 * DAY, 30 * DAY, 1.7e9])
def test_newest_pairs_keep_their_seconds_at_any_age_of_the_oldest(span):
    # given an old key frame, and ten pairs a second apart
    times = temporal_ids(config("qwen2_5_vl"), [0.0, *(span + number for number in range(10))], LIMIT)

    # then
    assert [later - earlier for earlier, later in pairwise(times.ids[1:])] == [2] * 9
    assert times.compressed


def test_ids_are_rebased_by_chunks_and_only_the_oldest_pairs_move_together():
    # given a key frame every day of a month, and then one more pair every second
    key_frames = [DAY * number for number in range(30)]
    stamps = [*key_frames, *(29 * DAY + 1 + number for number in range(200))]

    # when
    layouts = [temporal_ids(config("qwen2_5_vl"), stamps[:count], LIMIT) for count in range(31, len(stamps) + 1)]

    # then
    assert all(one.rebased and one.ids[-1] <= LIMIT for one in layouts)
    assert layouts[0].ids[:10] == tuple(range(10))
    # and with one more pair, the ids of all others stay
    changes = [before.ids != after.ids[:-1] for before, after in pairwise(layouts)]
    assert sum(changes) <= 1


def test_more_pairs_than_ids_stay_within_the_limit():
    times = temporal_ids(config("qwen2_vl"), [float(number) for number in range(10)], 5)
    assert times.ids == (0, 0, 0, 0, 0, 1, 2, 3, 4, 5)
    assert times.rebased


# --- positions of the prompt ----------------------------------------------------------------------------------------


def test_prompt_positions_by_hand():
    # when 2 text tokens, 2 pairs of 1 × 2 merged tokens at ids 0 and 5, 2 text tokens
    positions = prompt_positions(2, [0, 5], 1, 2, 2)

    # then text continues after the largest id of all axes
    assert positions.dtype == torch.int64
    assert positions.shape == (3, 1, 8)
    assert columns_of(positions) == [
        *[(0, 0, 0), (1, 1, 1)],
        *[(2, 2, 2), (2, 2, 3), (7, 2, 2), (7, 2, 3)],
        *[(8, 8, 8), (9, 9, 9)],
    ]


@pytest.mark.parametrize(
    ("ids", "rows", "columns", "question_start"),
    [([0], 3, 2, 7), ([0], 2, 3, 7), ([0, 1], 3, 2, 7), ([0, 9], 3, 2, 14), ([0, 2, 2], 3, 2, 7), ([0, 3], 3, 2, 8)],
)
def test_question_starts_after_the_largest_of_three_axes(ids, rows, columns, question_start):
    # when
    positions = prompt_positions(4, ids, rows, columns, 1)

    # then
    assert columns_of(positions)[-1] == (question_start,) * 3


def test_prompt_may_start_with_the_video():
    assert columns_of(prompt_positions(0, [0], 1, 1, 1)) == [(0, 0, 0), (1, 1, 1)]


@given(
    before=st.integers(0, 30),
    steps=st.lists(st.integers(0, 9), min_size=0, max_size=12),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    after=st.integers(1, 30),
)
def test_prompt_positions_equal_a_count_token_by_token(native, before, steps, rows, columns, after):
    # given
    ids = [0, *np.cumsum(steps).tolist()]
    clock = SimpleNamespace(model_type="qwen2_5_vl", vision_config=SimpleNamespace(tokens_per_second=1))

    # then
    expected = native.positions(clock, [float(time) for time in ids], rows, columns, before, after)
    assert torch.equal(prompt_positions(before, ids, rows, columns, after), expected)


# --- the library's own ----------------------------------------------------------------------------------------------


def stock_and_ours(engine, question="Who?"):
    inputs = native_inputs(engine.processor, engine.snapshot(), question, stock_times=True)
    stock, _ = engine.model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs.get("second_per_grid_ts"),
        attention_mask=inputs["attention_mask"],
    )
    layout = lay_out(engine.model.config, engine.processor, engine.snapshot())
    return stock, layout.positions(build_prompt(engine.processor, question))


@pytest.mark.parametrize(
    ("family", "frames", "size"),
    [
        ("qwen2_vl", 2, (84, 112)),
        ("qwen2_vl", 7, (84, 112)),  # 4 pairs, 4 columns
        ("qwen2_vl", 8, (140, 56)),
        ("qwen2_5_vl", 2, (84, 112)),
        ("qwen2_5_vl", 4, (84, 112)),  # ids 0 and 2 below 4 columns
        ("qwen2_5_vl", 5, (140, 56)),  # ids 0, 2, 4 below 5 rows
    ],
)
def test_positions_equal_the_library_when_rows_and_columns_exceed_time(load_tiny, make_engine, family, frames, size):
    # given a short video of 2 frames per second, as the library assumes
    engine = make_engine(load_tiny(family), stamps=[0.5 * number for number in range(frames)], size=size)

    # when
    stock, ours = stock_and_ours(engine)

    # then
    assert torch.equal(stock, ours)


@pytest.mark.parametrize(("family", "frames"), [("qwen2_vl", 14), ("qwen2_5_vl", 6)])
def test_positions_differ_from_the_library_in_the_text_after_a_long_video(load_tiny, make_engine, family, frames):
    # given
    engine = make_engine(load_tiny(family), stamps=[0.5 * number for number in range(frames)])

    # when
    stock, ours = stock_and_ours(engine)

    # then they agree up to the end of the video
    text = len(build_prompt(engine.processor, "Who?").after)
    assert torch.equal(stock[..., :-text], ours[..., :-text])
    assert int(ours[..., -text:].min()) == int(ours[..., :-text].max()) + 1
    assert int(stock[..., -text:].min()) <= int(stock[..., :-text].max())
