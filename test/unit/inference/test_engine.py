"""The engine's public API: answers, metrics and kept state."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from delayed_vlm_ros.errors import (
    BadRequestError,
    ConfigurationError,
    ImageError,
    NoFramesError,
    StampOrderError,
)
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.finish import finish_warnings
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager

HALF_SECONDS = [0.5 * number for number in range(6)]
METRICS = {
    "total_latency",
    "generation_latency",
    "encoding_latency",
    "time_to_first_token",
    "frames_encoded",
    "frames_reused",
    "visual_tokens",
    "kv_cache_length",
    "kv_tokens_reused",
    "video_grid_thw",
    "exact",
    "warnings",
}


# --- adding frames --------------------------------------------------------------------------------------------------


def test_add_frame_returns_a_status_line(make_engine, image):
    # given
    engine = make_engine()

    # when
    lines = [engine.add_frame(image(number // 4), 0.5 * number) for number in range(5)]

    # then
    assert lines == [
        "Frame #1 added to Stream Memory + Star Memory (first frame) | Star: 1, Stream: 1",
        "Frame #2 added to Stream Memory + Star Memory | Star: 2, Stream: 2",
        "Frame #3 added to Stream Memory | Star: 2, Stream: 3",
        "Frame #4 added to Stream Memory | Star: 2, Stream: 4",
        "Frame #5 added to Stream Memory + Star Memory (scene change) | Star: 3, Stream: 5",
    ]


def test_frame_without_stamp_follows_half_a_second_later(make_engine, image):
    # given
    engine = make_engine()

    # when
    for stamp in (None, None, 12.5, None):
        engine.add_frame(image(0), stamp)

    # then
    assert [stamp for kept in engine.snapshot() for stamp in kept.stamps] == [0.0, 0.5, 12.5, 13.0]


def test_array_and_pil_image_give_equal_frames(make_engine, image):
    # given
    engine = make_engine(stamps=[0.0])

    # when
    engine.add_frame(PIL.Image.fromarray(image(0)), timestamp=1.0)

    # then
    (kept,) = engine.snapshot()
    assert np.array_equal(*kept.frames)


@pytest.mark.parametrize(("max_pixels", "shape"), [(10**6, (84, 112, 3)), (8_000, (56, 84, 3)), (3136, (28, 56, 3))])
def test_frames_are_fitted_to_the_smaller_limit(make_engine, image, max_pixels, shape):
    # given a checkpoint with a limit of 12,544 pixels
    engine = make_engine(max_pixels=max_pixels)

    # when
    engine.add_frame(image(0, (360, 480)))
    engine.add_frame(image(1, (480, 360)))

    # then all frames have one shape
    assert {frame.shape for kept in engine.snapshot() for frame in kept.frames} == {shape}


def test_refused_image_leaves_the_memory_unchanged(make_engine, image):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    before = [kept.content_key for kept in engine.snapshot()]

    # when
    with pytest.raises(StampOrderError):
        engine.add_frame(image(7), 1.0)
    for nonsense in (np.zeros((0, 5, 3), np.uint8), np.zeros((9, 9), np.uint8), "image.png", None):
        with pytest.raises(ImageError):
            engine.add_frame(nonsense, 99.0)

    # then
    assert [kept.content_key for kept in engine.snapshot()] == before


@pytest.mark.parametrize("max_pixels", [-1, 0, 783, 3135])
def test_too_few_pixels_are_refused_by_the_constructor(load_tiny, max_pixels):
    # given
    tiny = load_tiny()

    # then
    with pytest.raises(ConfigurationError, match=rf"max_pixels.* {max_pixels}, .* 3136 "):
        DelayedBatchInferenceEngine(tiny.model, tiny.processor, max_pixels=max_pixels)


def test_given_frame_manager_is_used(make_engine, image):
    # given
    manager = SmartFrameManager(star_memory_size=0, stream_window_size=2)

    # when
    engine = make_engine(frame_manager=manager, stamps=HALF_SECONDS)

    # then
    assert engine.frame_manager is manager
    assert manager.get_statistics()["unique_frames"] == 2


def test_constructor_moves_the_model_to_the_device(load_tiny):
    # given
    tiny = load_tiny()

    # then
    engine = DelayedBatchInferenceEngine(tiny.model, tiny.processor, "cpu")
    assert engine.model.device == torch.device("cpu")


# --- questions ------------------------------------------------------------------------------------------------------


def test_metrics_of_first_and_second_question(make_engine):
    # given 5 frames: two pairs and a provisional one, of 3 × 4 merged tokens each
    engine = make_engine(stamps=HALF_SECONDS[:5])

    # when
    answer, first = engine.ask("What is on the table?", max_new_tokens=9)
    _, second = engine.ask("Who?", max_new_tokens=9)

    # then
    assert isinstance(answer, str)
    assert set(first) >= METRICS
    assert METRICS - set(second) == {"encoding_latency"}
    assert (first["frames_encoded"], first["frames_reused"], first["kv_tokens_reused"]) == (5, 0, 0)
    assert (second["frames_encoded"], second["frames_reused"]) == (0, 5)
    for metrics in (first, second):
        assert metrics["visual_tokens"] == 3 * 3 * 4
        assert metrics["video_grid_thw"] == (3, 6, 8)
        assert 1 <= metrics["answer_tokens"] <= 9
        assert metrics["exact"] is True
        assert metrics["warnings"] == finish_warnings(metrics["finish_reason"], metrics["answer_tokens"])
        assert 0 < metrics["time_to_first_token"] <= metrics["total_latency"]
    assert 0 < first["encoding_latency"] <= first["time_to_first_token"]
    assert first["encoding_latency"] + first["generation_latency"] == pytest.approx(first["total_latency"])
    assert 0 < second["generation_latency"] <= second["total_latency"]


def test_cache_lengths_and_bytes_equal_the_real_ones(make_engine, native):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    expected = native.trace(engine.model, engine.processor, engine.snapshot(), "Where?", 12)

    # when
    _, metrics = engine.ask("Where?", max_new_tokens=12)

    # then the last token of an answer is not in the cache
    assert metrics["answer_tokens"] == len(expected.tokens)
    assert metrics["kv_cache_length"] == expected.kv[0].shape[-2]
    assert metrics["kv_tokens_reused"] == engine._cache._prefix.length
    config = engine.model.config
    key_bytes = 2 * 16 * 4  # heads × head size × float32
    capacity = 256  # tokens: one step of the buffers
    features = metrics["visual_tokens"] * config.text_config.hidden_size * 4
    kv = config.text_config.num_hidden_layers * 2 * capacity * key_bytes
    assert engine.cached_bytes() == CachedBytes(features, kv)


def test_answer_lists_exactly_the_encoded_pairs(make_engine, image):
    # given
    engine = make_engine(stamps=HALF_SECONDS[:5], star_memory_size=2, stream_window_size=2)
    asked = engine.snapshot()

    # when
    result = engine.answer(AskRequest("Who?", max_new_tokens=8))
    engine.add_frame(image(9), 9.0)

    # then
    assert [(kept.id, kept.content_key) for kept in result.frames_used] == [
        (kept.id, kept.content_key) for kept in asked
    ]
    assert result.metrics.frames_encoded == sum(kept.frame_count for kept in asked)


def test_engine_warnings_are_in_every_answer(make_engine):
    # given
    engine = make_engine(stamps=[0.0, 0.5, 1e6], warnings=("untrained",))

    # when
    warnings = [engine.ask("Who?", max_new_tokens=8)[1].warnings for _ in range(2)]

    # then the untrained model does not end its answer within the limit either
    assert [len(each) for each in warnings] == [3, 3]
    assert warnings[0][0] == "untrained"
    assert "compressed time" in warnings[0][1]
    assert "answer cut at 8 tokens" in warnings[0][2]


def test_question_without_frames_is_refused(make_engine):
    # given
    engine = make_engine()

    # then
    with pytest.raises(NoFramesError, match=r"^no frames: "):
        engine.ask("Who?")


@pytest.mark.parametrize(
    ("question", "limits"),
    [("", {}), ("<|im_end|>", {}), ("Who?", {"since": 2.0, "until": 1.0}), ("Who?", {"max_new_tokens": 0})],
)
def test_bad_request_leaves_the_cache_unchanged(make_engine, question, limits):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    answer, _ = engine.ask("Who?", max_new_tokens=8)

    # when
    with pytest.raises(BadRequestError):
        engine.ask(question, **limits)

    # then
    again, metrics = engine.ask("Who?", max_new_tokens=8)
    assert (again, metrics.frames_encoded) == (answer, 0)


def test_limited_questions_do_not_evict_the_cached_prefix(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)

    # when
    asked = [
        engine.ask("Who?", max_new_tokens=8, **limits)[1]
        for limits in ({"last_sec": 0.5}, {"until": 1.5}, {}, {"since": 0.0}, {"last_sec": 60})
    ]

    # then a limited question about all pairs uses the prefix, and no pair is encoded twice
    assert [metrics.frames_encoded for metrics in asked] == [0, 0, 0, 0, 0]
    assert [metrics.kv_tokens_reused > 0 for metrics in asked] == [False, False, True, True, True]


def test_limited_question_caches_no_prefix(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)

    # when
    engine.ask("Who?", last_sec=0.5, max_new_tokens=8)

    # then
    assert engine.cached_bytes().kv == 0


def test_further_questions_about_the_same_frames_encode_nothing(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    asked = [engine.ask(question, max_new_tokens=8) for question in ("Who?", "Where?", "Who?")]

    # then
    assert asked[0][0] == asked[2][0]
    assert [metrics.frames_encoded for _, metrics in asked] == [6, 0, 0]
