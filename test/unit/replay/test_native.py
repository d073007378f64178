"""Native inference, the reference: Hugging Face's path from images to text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.native import native_answer, native_generate, native_inputs, native_prompt_length

FAMILIES = SUPPORTED_MODEL_TYPES
QUESTIONS = ["What is on the table?", "Who?", "Is the door open?"]


@pytest.fixture(scope="session")
def loaded(tmp_path_factory):
    torch.set_num_threads(1)
    models = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        save_random_checkpoint(folder, model_type=family, seed=5)
        models[family] = load_model(resolve_checkpoint(str(folder)), device="cpu")
    return models


@pytest.fixture
def make_engine(loaded):
    def make(family, frames, *, period=0.5):
        engine = DelayedBatchInferenceEngine(loaded[family].model, loaded[family].processor)
        for number in range(frames):
            shades = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
            engine.add_frame(shades.repeat(28, axis=0).repeat(28, axis=1), period * number)
        return engine

    return make


@pytest.mark.parametrize("frames", [1, 6, 17])
@pytest.mark.parametrize("family", FAMILIES)
def test_native_answer_equals_the_engines_answer(make_engine, family, frames):
    # given
    engine = make_engine(family, frames, period=0.7)

    for question in QUESTIONS:
        # when
        native = native_answer(
            engine.model, engine.processor, engine.snapshot(), AskRequest(question, max_new_tokens=16)
        )

        # then
        text, metrics = engine.ask(question, max_new_tokens=16)
        assert native.text == text
        assert native.visual_tokens == metrics.visual_tokens
        assert 0 <= native.kv_cache_length - metrics.kv_cache_length <= 1  # the last token needs no KV
        assert 0 < native.first_token_sec <= native.seconds


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_stock_times_change_the_text_before_a_pair(make_engine, family):
    # given one frame in two seconds; stock times assume two frames in one
    engine = make_engine(family, 6, period=2.0)

    # when
    ids = [
        native_inputs(engine.processor, engine.snapshot(), "Who?", stock_times=stock)["input_ids"]
        for stock in (False, True)
    ]

    # then
    texts = [engine.processor.tokenizer.decode(one[0]) for one in ids]
    assert "<9.0 seconds>" in texts[0]
    assert "<2.2 seconds>" in texts[1]


@pytest.mark.parametrize("period", [0.1, 3.0])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_answer_with_stock_times_begins_after_the_stock_prompt(make_engine, family, period):
    # given stock times whose text is longer, or shorter, than that of the true times
    engine = make_engine(family, 20, period=period)
    frames, model = engine.snapshot(), engine.model

    # when
    answer = native_answer(model, engine.processor, frames, AskRequest("Who?", max_new_tokens=16), stock_positions=True)

    # then
    prompt = native_inputs(engine.processor, frames, "Who?", stock_times=True)["input_ids"].shape[1]
    output = native_generate(model, engine.processor, frames, "Who?", max_new_tokens=16, stock_positions=True)
    assert answer.text == engine.processor.tokenizer.decode(output[0, prompt:], skip_special_tokens=True).strip()
    assert answer.answer_tokens == len(output[0]) - prompt


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_stock_positions_change_answers_when_temporal_ids_exceed_spatial_ids(make_engine, family):
    # given
    engine = make_engine(family, 18)

    # when
    answers = {
        stock: [
            native_answer(
                engine.model,
                engine.processor,
                engine.snapshot(),
                AskRequest(question, max_new_tokens=16),
                stock_positions=stock,
            ).text
            for question in QUESTIONS
        ]
        for stock in (False, True)
    }

    # then
    assert answers[False] != answers[True]


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_positions_keep_the_answer_on_a_short_video(make_engine, family):
    # given two pairs, whose spatial ids exceed the temporal ids
    engine = make_engine(family, 4)
    common = (engine.model, engine.processor, engine.snapshot(), AskRequest("Who?", max_new_tokens=16))

    # then
    assert native_answer(*common).text == native_answer(*common, stock_positions=True).text


@pytest.mark.parametrize("family", FAMILIES)
def test_native_run_between_questions_does_not_change_the_engine(make_engine, family):
    # given
    engine = make_engine(family, 18)
    before, _ = engine.ask("Who?", max_new_tokens=16)

    # when
    native_generate(
        engine.model, engine.processor, engine.snapshot()[:2], "x" * 50, max_new_tokens=8, stock_positions=True
    )

    # then
    assert engine.ask("Who?", max_new_tokens=16)[0] == before


def test_odd_last_frame_is_repeated_in_the_native_input(make_engine):
    # given
    engine = make_engine("qwen2_5_vl", 5)

    # when
    inputs = native_inputs(engine.processor, engine.snapshot(), "Who?")

    # then
    assert inputs["video_grid_thw"].tolist() == [[3, 6, 8]]
    assert inputs["input_ids"].shape[1] == native_prompt_length(
        engine.processor, engine.model, engine.snapshot(), "Who?"
    )
    assert "position_ids" not in inputs
    patches = inputs["pixel_values_videos"].reshape(3, 48, 3, 2, 14 * 14)  # pairs, patches, channels, frames, pixels
    assert torch.equal(patches[2, :, :, 0], patches[2, :, :, 1])
    assert not torch.equal(patches[1, :, :, 0], patches[1, :, :, 1])


def test_options_are_passed_to_generate(make_engine):
    # given
    engine = make_engine("qwen2_5_vl", 4)

    # when
    output = native_generate(
        engine.model,
        engine.processor,
        engine.snapshot(),
        "Who?",
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_logits=True,
    )

    # then
    assert len(output.logits) == 8


def test_missing_frames_and_invalid_questions_raise_their_errors(make_engine):
    # given
    engine = make_engine("qwen2_5_vl", 2)

    # then
    with pytest.raises(NoFramesError):
        native_answer(engine.model, engine.processor, (), AskRequest("Who?"))
    for question in ("", "<|video_pad|>"):
        with pytest.raises(BadRequestError):
            native_answer(engine.model, engine.processor, engine.snapshot(), AskRequest(question))
