"""Bytes kept between questions stay within the budget, and features leave with their pair."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3_5TextConfig

from delayed_vlm_ros.errors import ConfigurationError, UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import (
    SAVED_STATES,
    CacheBytes,
    cache_bytes,
    plan_budget,
    retention_order,
)
from delayed_vlm_ros.inference.local.cache.vision import VisionFeatureCache
from delayed_vlm_ros.inference.local.models.layer_types import layer_types
from delayed_vlm_ros.inference.local.models.validation import check_size
from delayed_vlm_ros.ingest.geometry import FrameGeometry

HALF_SECONDS = [0.5 * number for number in range(8)]


def test_cache_bytes_of_qwen2_5_vl_3b():
    # given the shape of the 3B model in bfloat16
    text = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "num_hidden_layers": 36}
    # then
    assert cache_bytes(text, 2) == CacheBytes(features=4096, kv=36864)


RECURRENT = {"linear_num_value_heads": 4}
THREE_OF_FOUR = (*["linear_attention"] * 3, "full_attention")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["full_attention"] * 6),
        (RECURRENT, [*THREE_OF_FOUR, "linear_attention", "linear_attention"]),
        ({"full_attention_interval": 2}, ["linear_attention", "full_attention"] * 3),
        (RECURRENT | {"full_attention_interval": 3}, [*["linear_attention"] * 2, "full_attention"] * 2),
        (RECURRENT | {"layer_types": ["full_attention"] * 6}, ["full_attention"] * 6),
    ],
    ids=str,
)
def test_layer_types_equal_those_of_the_library(fields, expected):
    assert list(layer_types({"num_hidden_layers": 6} | fields)) == expected
    if fields:  # otherwise another family
        assert Qwen3_5TextConfig(num_hidden_layers=6, **fields).layer_types == expected


@pytest.mark.parametrize("layers", [{}, {"full_attention_interval": 4}, {"layer_types": [*THREE_OF_FOUR] * 2}], ids=str)
def test_budget_and_size_check_have_the_same_recurrent_layers(layers):
    # given a config whose recurrent layers are its only large ones
    text = {"hidden_size": 64, "num_attention_heads": 1, "num_hidden_layers": 8, "head_dim": 1} | layers
    text |= {"linear_num_value_heads": 32, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4}
    config = {"text_config": text | {"linear_num_key_heads": 16, "linear_key_head_dim": 128}, "vision_config": {}}
    # then
    bytes_per_layer = 8192 * 4 * 2 + 32 * 128 * 128 * 4
    assert cache_bytes(config, 2).state == 6 * bytes_per_layer
    weights = 6 * 8192 * (64 + 4) + 2 * 2 * 64  # and two layers with attention
    check_size("x", config, weights // 8)
    with pytest.raises(UnsupportedModelError, match=f"more than {weights} weights"):
        check_size("x", config, weights // 8 - 1)


def test_cache_bytes_of_qwen3_vl_4b_count_all_levels_of_features():
    # given the shape of the 4B model in bfloat16
    text = {
        "hidden_size": 2560,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_hidden_layers": 36,
        "head_dim": 128,
    }
    vision = {"deepstack_visual_indexes": [5, 11, 17]}
    # then
    assert cache_bytes({"text_config": text, "vision_config": vision}, 2) == CacheBytes(features=20480, kv=147456)


def test_state_bytes_of_a_recurrent_model_equal_those_of_a_saved_state(load_tiny, make_engine):
    # given
    tiny = load_tiny("qwen3_5")
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    # when
    engine.ask("Who?", max_new_tokens=2)
    # then
    saved = engine._cache._prefix._states[5]
    expected = cache_bytes(tiny.model.config.to_dict(), 4)
    assert sum(layer.storage_bytes for layer in saved) == expected.state > 0
    assert expected.kv == 2 * 1 * 2 * 32 * 4  # one of four layers has keys and values


def test_saved_states_of_a_prefix_do_not_grow(load_tiny, make_engine, image):
    # given
    engine = make_engine(load_tiny("qwen3_5"), stamps=HALF_SECONDS, star_memory_size=8, stream_window_size=16)
    # when
    for number in range(40):
        engine.add_frame(image(number), 10.0 + number / 2)
        engine.ask("Who?", max_new_tokens=1)
        # then
        assert len(engine._cache._prefix._states) - 1 <= SAVED_STATES


def test_config_without_model_sizes_is_refused():
    with pytest.raises(UnsupportedModelError, match="'num_hidden_layers'"):
        cache_bytes({"hidden_size": 2048, "num_attention_heads": 16}, 2)


def test_budget_reserves_pixels_first():
    budget = plan_budget(100, 40, FrameGeometry(), CacheBytes(4096, 36864))
    assert budget.pixels == 40 * 4 * 224 * 224 * 3
    assert budget.caches == 100_000_000 - budget.pixels


@pytest.mark.parametrize("megabytes", [0, 1, 24, 34])
def test_budget_too_small_for_a_pair_is_refused(megabytes):
    with pytest.raises(ConfigurationError, match=r"memory_budget_mb .* 34\.6: .*max_pixels"):
        plan_budget(megabytes, 40, FrameGeometry(), CacheBytes(4096, 36864))


def test_budget_is_divided_and_its_error_has_the_total_of_all_cameras():
    # given
    whole = plan_budget(100, 40, FrameGeometry(), CacheBytes(4096, 36864))
    # when
    share = plan_budget(200, 40, FrameGeometry(), CacheBytes(4096, 36864), shares=2)
    # then
    assert share == whole
    with pytest.raises(ConfigurationError, match=r"memory_budget_mb is 60 .*2 cameras.* 69\.1:"):
        plan_budget(60, 40, FrameGeometry(), CacheBytes(4096, 36864), shares=2)


def test_engine_refuses_a_budget_that_is_too_small(make_engine):
    with pytest.raises(ConfigurationError, match=r"memory_budget_mb is 0\.01"):
        make_engine(memory_budget_mb=0.01)


@pytest.mark.parametrize("spare", [0, 20_000, 60_000, 10_000_000])
def test_cached_bytes_stay_within_the_budget(make_engine, image, spare):
    # given the smallest valid budget, and a surplus
    with pytest.raises(ConfigurationError) as caught:
        make_engine(memory_budget_mb=0.001, star_memory_size=4, stream_window_size=8)
    least = float(str(caught.value).split("need ")[1].split(":")[0]) + 0.1
    engine = make_engine(
        memory_budget_mb=least + spare / 1e6, stamps=HALF_SECONDS, star_memory_size=4, stream_window_size=8
    )
    limit = engine._cache._budget.caches
    free = make_engine(frame_manager=engine.frame_manager)

    # when
    for number in range(6):
        answer, _ = engine.ask("Who?", max_new_tokens=8)
        kept = engine.cached_bytes()

        # then
        assert kept.features + kept.kv <= limit
        assert answer == free.ask("Who?", max_new_tokens=8)[0]
        engine.add_frame(image(20 + number), 10.0 + number)
    assert len(engine.snapshot()) == len(free.snapshot())


def test_features_are_dropped_with_their_pair(make_engine, image):
    # given
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=0, stream_window_size=8)
    engine.ask("Who?", max_new_tokens=4)
    full = engine.cached_bytes().features

    # when every pair has been replaced
    for number in range(12):
        engine.add_frame(image(30 + number), 20.0 + number)
    engine.ask("Who?", max_new_tokens=4)

    # then
    assert engine.cached_bytes().features == full


def test_shrink_drops_the_least_useful_features_first():
    # given
    cache = VisionFeatureCache()
    for key in (b"a", b"b", b"c", b"unknown"):
        cache.put(key, torch.zeros(4, 8))

    # when
    dropped = cache.shrink(2 * 4 * 8 * 4, [b"c", b"a", b"b"])

    # then
    assert dropped
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c", b"unknown")] == [True, False, True, False]
    assert cache.storage_bytes == 2 * 4 * 8 * 4


def test_cached_features_share_no_storage():
    cache = VisionFeatureCache()
    batch = torch.zeros(5, 4, 8)
    cache.put(b"a", batch[2])
    assert cache.storage_bytes == batch[2].nbytes


def test_retention_order_puts_star_before_stream(make_engine, image):
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=4, stream_window_size=4)
    snapshot = engine.snapshot()
    order = retention_order(snapshot)
    in_star = [kept.content_key for kept in snapshot if kept.in_star]
    assert set(order[: len(in_star)]) == set(in_star)
    assert sorted(order) == sorted(kept.content_key for kept in snapshot)
