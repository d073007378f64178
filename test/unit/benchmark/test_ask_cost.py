"""The benchmark of questions: its statistics, its parts, and its models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.benchmark.ask_cost import NATIVE_SETUPS, RATIOS, BenchmarkSetup, measure_round, ratios
from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model
from delayed_vlm_ros.cli.bench import random_model_setup
from delayed_vlm_ros.errors import ConfigurationError


@pytest.mark.parametrize(("device", "message"), [("gpu", "must be auto, cpu or"), ("cuda:99", "is not available")])
def test_unavailable_device_is_refused(device, message):
    with pytest.raises(ConfigurationError, match=message):
        random_model_setup("tiny", 4, 1, 0, canonical=True, device=device)


def test_ratios_are_paired_within_their_round():
    # given a machine that slows down uniformly
    rounds = [
        {"native_stock": 9.0 * slow, "native_later_stock": 9.0 * slow, "native_batched": 4.0 * slow}
        | {"native_later_batched": 8.0 * slow, "first_ask": 4.4 * slow, "second_ask": 0.1 * slow}
        | {"after_1_pair": 0.4 * slow, "precomputed": 0.2 * slow, "bare_forward": 0.08 * slow}
        for slow in (1.0, 2.0, 5.0)
    ]
    # when
    found = ratios(rounds)
    # then
    assert found.keys() == RATIOS.keys()
    assert found["ttft_first_ask"] == {"median": 1.1, "low": 1.1, "high": 1.1}
    assert found["ttft_after_1_pair"] == {"median": 0.05, "low": 0.05, "high": 0.05}
    assert found["ttft_over_bare_forward"]["median"] == 1.25


@pytest.mark.parametrize("canonical", [False, True])
def test_round_times_every_part(tmp_path, canonical):
    # given
    save_random_checkpoint(tmp_path, seed=1)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    model.generation_config.min_new_tokens = 1
    setup = BenchmarkSetup(model, AutoProcessor.from_pretrained(tmp_path), (56, 56), 3, canonical)
    # when
    times = measure_round(setup, np.random.default_rng(0))
    # then
    parts = {name for pair in RATIOS.values() for name in pair} - {"native", "native_later"}
    assert (
        parts | {f"{name}_{native}" for name in ("native", "native_later") for native in NATIVE_SETUPS} == times.keys()
    )
    assert all(seconds > 0 for seconds in times.values())


def test_3b_shape_matches_the_published_config():
    # Qwen/Qwen2.5-VL-3B-Instruct: 36 layers, hidden size 2048, full vision attention in four layers
    shape = SHAPES["qwen2.5-vl-3b"]
    assert (shape.text["num_hidden_layers"], shape.text["hidden_size"]) == (36, 2048)
    assert shape.vision["fullatt_block_indexes"] == [7, 15, 23, 31]


@pytest.mark.parametrize("name", ["small", "small-qwen3-vl", "small-qwen3.5"])
def test_small_shape_has_a_hundred_million_parameters(tmp_path, name):
    model, _ = make_random_model(SHAPES[name], tmp_path, 224 * 224, 3, torch.float32, "meta")
    assert 100_000_000 <= model.num_parameters() <= 135_000_000
    vision = model.config.vision_config
    assert SHAPES[name].factor == vision.patch_size * vision.spatial_merge_size  # the benchmark's images fit the model


def test_limit_of_whole_videos_is_no_limit_of_a_frame(tmp_path):
    limits = {}
    for name in ("small", "small-qwen3-vl"):
        (tmp_path / name).mkdir()
        _, processor = make_random_model(SHAPES[name], tmp_path / name, 256 * 256, 3, torch.float32, "meta")
        limits[name] = processor.video_processor.size["longest_edge"]
    assert limits["small"] == 256 * 256
    assert limits["small-qwen3-vl"] > 40 * 256 * 256
