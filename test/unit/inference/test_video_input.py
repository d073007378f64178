"""Kept pairs as the model's video input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delayed_vlm_ros.inference.local.video_input import lay_out, pixel_values, snapshot_pixel_values
from delayed_vlm_ros.replay.native import native_inputs


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
@pytest.mark.parametrize("size", [(84, 112), (140, 56), (56, 196)], ids=str)
def test_pixels_and_grid_equal_the_library(load_tiny, make_engine, frames, size):
    # given
    engine = make_engine(load_tiny(), stamps=[0.5 * number for number in range(frames)], size=size)
    snapshot = engine.snapshot()

    # when
    pixels = snapshot_pixel_values(engine.processor, snapshot)
    layout = lay_out(engine.model.config, engine.processor, snapshot)

    # then
    expected = native_inputs(engine.processor, snapshot, "Who?")
    assert torch.equal(pixels, expected["pixel_values_videos"])
    assert list(layout.grid_thw) == expected["video_grid_thw"][0].tolist()
    assert layout.grid_thw == ((frames + 1) // 2, size[0] // 14, size[1] // 14)
    assert layout.visual_tokens == int((expected["input_ids"] == engine.model.config.video_token_id).sum())


def test_provisional_pair_repeats_its_frame(load_tiny, make_engine, image):
    # given
    engine = make_engine(stamps=[0.0])

    # when
    pixels = snapshot_pixel_values(engine.processor, engine.snapshot())

    # then
    (kept,) = engine.snapshot()
    assert torch.equal(pixels, pixel_values(engine.processor, [kept.frames[0], kept.frames[0]]))


def test_pairs_are_independent_patches(load_tiny, image):
    # given
    frames = [image(number) for number in range(4)]
    processor = load_tiny().processor

    # when
    together = pixel_values(processor, frames)

    # then a pair alone has the same patches
    apart = [pixel_values(processor, frames[:2]), pixel_values(processor, frames[2:])]
    assert torch.equal(together, torch.cat(apart))
    assert not torch.equal(*apart)


def test_frames_are_not_modified(load_tiny, image):
    # given read-only frames, as the memory keeps them
    frames = [image(0), image(1)]
    before = [frame.copy() for frame in frames]
    for frame in frames:
        frame.setflags(write=False)

    # when
    pixel_values(load_tiny().processor, frames)

    # then
    assert all(np.array_equal(*both) for both in zip(frames, before, strict=True))


def test_compressed_time_leaves_positions_for_text(load_tiny, make_engine):
    # given a key frame every hundred hours
    engine = make_engine(stamps=[360_000.0 * number for number in range(24)])
    trained = engine.model.config.text_config.max_position_embeddings

    # when
    layout = lay_out(engine.model.config, engine.processor, engine.snapshot())

    # then
    assert layout.time_compressed
    assert layout.time_rebased
    assert trained * 5 // 8 <= layout.temporal_ids[-1] <= trained * 7 // 8
