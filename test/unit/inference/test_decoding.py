"""Faults of a checkpoint are found at load: chat template, end tokens, and settings that change or break answers."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models import decoding
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.decoding import decoding_settings, generate_arguments
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.native import native_answer

HALF_SECONDS = [0.5 * number for number in range(4)]
TOKENS = 12
SAMPLING = {"do_sample": True, "temperature": 1.5, "top_k": 0}


@pytest.fixture
def checkpoint(checkpoint_folder, tmp_path):
    """Return a function that returns a copy of a tiny checkpoint with other generation settings."""

    def make(**settings):
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoint_folder(), folder)
        edit(folder / "generation_config.json", **settings)
        return folder

    return make


def edit(file, **changes):
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({key: value for key, value in (content | changes).items() if value is not None}))


@pytest.fixture
def ask(image):
    """Return a function that loads a checkpoint and returns its answer to one question."""

    def answer(folder, **arguments):
        engine = DelayedBatchInferenceEngine.from_pretrained(str(folder), device="cpu", **arguments)
        for number, stamp in enumerate(HALF_SECONDS):
            engine.add_frame(image(number), stamp)
        return engine.ask("Who?", max_new_tokens=TOKENS)

    return answer


# --- settings that would change or break answers ---------------------------------------------------------------------

REPORTED = {
    "num_beams": 4,
    "num_return_sequences": 2,
    "penalty_alpha": 0.6,
    "prompt_lookup_num_tokens": 5,
    "dola_layers": "low",
    "guidance_scale": 1.5,
    "watermarking_config": {"bias": 2.5, "context_width": 1, "greenlist_ratio": 0.25, "seeding_scheme": "lefthash"},
    "stop_strings": ["a", "e"],
    "max_time": 1e-9,
    "token_healing": True,
    "forced_eos_token_id": 5,
    "constraints": [1],
    "force_words_ids": [[3]],
    "use_mtp": True,
    "assistant_early_exit": 2,
    "repetion_penalty": 1.5,  # a typing mistake
    "do_sample": True,
}
SILENT = {
    "max_length": 5,
    "max_new_tokens": 1,
    "cache_implementation": "static",
    "use_cache": False,
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_attentions": True,
    "remove_invalid_values": True,
    "renormalize_logits": True,
    "early_stopping": "sometimes",
    "temperature": 0.01,
    "num_assistant_tokens": 3,
}


@pytest.mark.parametrize("name", [*REPORTED, *SILENT])
def test_harmful_setting_is_left_out_and_reported_once(checkpoint, ask, caplog, name):
    # given
    expected = ask(checkpoint())[0]
    settings = {"top_k": 4} if name == "penalty_alpha" else {}
    folder = checkpoint(**{name: (REPORTED | SILENT)[name]}, **settings)

    # when
    with caplog.at_level(logging.WARNING):
        answer, metrics = ask(folder)

    # then
    notes = [record.getMessage() for record in caplog.records if "generation_config.json" in record.getMessage()]
    assert answer == expected
    assert metrics.exact
    assert not any(f"{name} {REPORTED.get(name)}" in warning for warning in metrics.warnings)
    assert len(notes) == (name in REPORTED)
    assert all(f"{name} " in note and str(folder) in note for note in notes)


@pytest.mark.parametrize(
    "name", ["num_beams", "do_sample", "stop_strings", "max_time", "return_dict_in_generate", "use_cache"]
)
def test_engine_of_a_loaded_model_leaves_the_setting_out_as_native_does(load_tiny, make_engine, name):
    # given a model that was not loaded by this package
    tiny = load_tiny()
    expected = make_engine(tiny, stamps=HALF_SECONDS).ask("Who?", max_new_tokens=TOKENS)[0]
    own = SimpleNamespace(model=copy.copy(tiny.model), processor=tiny.processor)
    own.model.generation_config = copy.deepcopy(tiny.model.generation_config)
    setattr(own.model.generation_config, name, (REPORTED | SILENT)[name])
    engine = make_engine(own, stamps=HALF_SECONDS)

    # then
    assert engine.ask("Who?", max_new_tokens=TOKENS)[0] == expected
    request = AskRequest("Who?", max_new_tokens=TOKENS)
    assert native_answer(own.model, own.processor, engine.snapshot(), request).text == expected


@pytest.mark.parametrize(
    "setting", [{"repetition_penalty": 1.8}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": [*range(40)]}]
)
def test_penalties_are_kept(checkpoint, ask, load_tiny, setting):
    # given
    plain = ask(checkpoint())[0]
    folder = checkpoint(**setting)

    # when
    answer = ask(folder)[0]

    # then
    loaded = load_model(resolve_checkpoint(str(folder)), device="cpu")
    (name, value), *_ = setting.items()
    assert getattr(loaded.model.generation_config, name) == value
    assert loaded.notes == ()
    assert answer != plain


def test_penalty_for_short_answers_is_bounded_by_the_length_limit(checkpoint, ask, recwarn):
    # when
    _, metrics = ask(checkpoint(min_new_tokens=200))

    # then transformers has nothing to warn about at each question
    assert (metrics.answer_tokens, metrics.finish_reason) == (TOKENS, "length")
    assert not [warning for warning in recwarn if "Unfeasible" in str(warning.message)]


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": "high"},
        {"repetition_penalty": -1.0},
        {"no_repeat_ngram_size": "3"},
        {"bad_words_ids": [[10**9]]},
        {"bad_words_ids": "never"},
        {"eos_token_id": 10**9},
        {"eos_token_id": [1, -1]},
        {"eos_token_id": "end"},
        {"eos_token_id": True},
    ],
    ids=str,
)
def test_invalid_setting_fails_the_load(checkpoint, settings):
    folder = checkpoint(**settings)
    with pytest.raises(UnsupportedModelError) as caught:
        load_model(resolve_checkpoint(str(folder)), device="cpu")
    assert str(folder) in str(caught.value)
    assert "generation_config.json" in str(caught.value) or "bad_words_ids" in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_broken_settings_fail_before_the_load(checkpoint, content):
    # given settings that transformers would replace with its defaults, without end tokens
    folder = checkpoint()
    (folder / "generation_config.json").write_text(content)

    # then
    with pytest.raises(UnsupportedModelError, match=r"generation_config\.json"):
        resolve_checkpoint(str(folder))


def test_missing_end_tokens_are_the_tokenizers(checkpoint):
    # given
    folder = checkpoint(eos_token_id=None)

    # when
    loaded = load_model(resolve_checkpoint(str(folder)), device="cpu")

    # then
    assert loaded.model.generation_config.eos_token_id == loaded.processor.tokenizer.eos_token_id is not None
    assert "ends an answer" in loaded.notes[0]


def test_every_setting_in_the_tables_is_one_of_transformers():
    known = set(GenerationConfig().to_dict()) | set(GenerationConfig().__dict__)
    tables = decoding._TOKENS | decoding._PENALTIES | decoding._SAMPLING | decoding._WITHOUT_EFFECT
    assert tables - known <= {"low_memory", "prefill_chunk_size", "transformers_version"}


def test_unknown_settings_are_reported_and_replaced():
    # given
    settings = {"eos_token_id": 7, "new_in_a_later_release": 3, "num_beams": 1, "guidance_scale": 1.0, "max_time": None}

    # then
    assert decoding_settings(settings, sampling=False).ignored == {"new_in_a_later_release": 3}
    assert generate_arguments(settings, 9, sampling=False) == {
        "max_new_tokens": 9,
        "new_in_a_later_release": None,
        "num_beams": 1,
        "guidance_scale": None,
    }


# --- sampling --------------------------------------------------------------------------------------------------------


def test_sampling_is_followed_only_on_request(checkpoint, image):
    # given
    folder = checkpoint(**SAMPLING)
    answers = {}

    # when
    for sampling in (False, True):
        engine = DelayedBatchInferenceEngine.from_pretrained(str(folder), device="cpu", sampling=sampling)
        engine.add_frame(image(1), 0.0)
        answers[sampling] = [engine.ask("Who?", max_new_tokens=TOKENS) for _ in range(6)]

    # then
    texts = {sampling: {text for text, _ in results} for sampling, results in answers.items()}
    assert (len(texts[False]), len(texts[True]) > 1) == (1, True)
    assert all(metrics.exact and not any("sampl" in one for one in metrics.warnings) for _, metrics in answers[False])
    assert all(
        not metrics.exact and any("model.sampling" in one for one in metrics.warnings) for _, metrics in answers[True]
    )


def test_sampling_on_request_without_such_settings_is_greedy(checkpoint, ask):
    answer, metrics = ask(checkpoint(), sampling=True)
    assert (answer, metrics.exact) == (ask(checkpoint())[0], True)


@pytest.mark.parametrize("temperature", [0.0, -1.0, "warm"])
def test_invalid_temperature_fails_the_load_only_if_it_is_followed(checkpoint, temperature):
    resolved = resolve_checkpoint(str(checkpoint(do_sample=True, temperature=temperature)))
    load_model(resolved, device="cpu")
    with pytest.raises(UnsupportedModelError):
        load_model(resolved, device="cpu", sampling=True)


def test_ties_in_bfloat16_have_one_answer(load_tiny, make_engine):
    # given a head whose tokens all tie in bfloat16, and the sampling settings of a real checkpoint
    tiny = load_tiny(dtype=torch.bfloat16)
    own = SimpleNamespace(model=copy.deepcopy(tiny.model), processor=tiny.processor)
    with torch.no_grad():
        own.model.lm_head.weight[:] = own.model.lm_head.weight[40]
    own.model.generation_config.update(do_sample=True, temperature=1e-6, repetition_penalty=None)

    # when
    texts = {}
    for sampling in (False, True):
        engine = make_engine(own, stamps=HALF_SECONDS, sampling=sampling)
        texts[sampling] = {engine.ask("Who?", max_new_tokens=TOKENS)[0] for _ in range(8)}

    # then
    assert len(texts[False]) == 1
    assert len(texts[True]) > 1


# --- chat templates --------------------------------------------------------------------------------------------------

QUESTION = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        (QUESTION, "0 videos"),
        (VIDEO + VIDEO + QUESTION, "2 videos"),
        (VIDEO + "Describe the video.", "leaves out the question"),
        ("{% if %}", "cannot be used"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be used"),
        ("{{ raise_exception('no videos, please') }}", "no videos, please"),
    ],
)
def test_unusable_chat_template_fails_the_load(checkpoint, template, message):
    # given
    folder = checkpoint()
    for file in folder.glob("chat_template*"):
        file.unlink()
    for file in ("tokenizer_config.json", "processor_config.json"):
        edit(folder / file, chat_template=None)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)

    # then
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        load_model(resolve_checkpoint(str(folder)), device="cpu")
    assert "download" in str(caught.value).lower()
