"""Untrained checkpoints: ordinary ones to the library, and their noise is readable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine

FAMILIES = ["qwen2_vl", "qwen2_5_vl"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}
    for family in FAMILIES:
        made[family] = tmp_path_factory.mktemp(family)
        save_random_checkpoint(made[family], model_type=family)
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_the_library_loads_it_like_any_other(folders, family):
    # when
    model, report = AutoModelForImageTextToText.from_pretrained(folders[family], output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folders[family])

    # then
    assert model.config.model_type == family
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(processor).__name__ == {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor"}[family]
    for name in ("video", "image"):
        assert getattr(processor, f"{name}_token_id") == getattr(model.config, f"{name}_token_id")
    assert model.generation_config.eos_token_id[0] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.text_config.vocab_size == len(processor.tokenizer)


def test_tokenizer_brings_any_text_through_whole(folders):
    # given
    tokenizer = AutoProcessor.from_pretrained(folders["qwen2_5_vl"]).tokenizer
    text = " ¿Qué hay?\n\t世界 👩🏽‍🚀 \x00\x7f "

    # then
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_seed_decides_the_weights_and_nothing_else_is_disturbed(tmp_path, folders):
    # given
    def weights(folder):
        return torch.cat(
            [weight.flatten() for weight in AutoModelForImageTextToText.from_pretrained(folder).parameters()]
        )

    again, other = tmp_path / "again", tmp_path / "other"
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)

    # when
    for folder, arguments in ((again, {}), (other, {"seed": 1})):
        folder.mkdir()
        save_random_checkpoint(folder, **arguments)

    # then
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights(again), weights(folders["qwen2_5_vl"]))
    assert not torch.equal(weights(other), weights(again))


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_printable_and_depend_on_what_is_seen(folders, family):
    # given
    model = AutoModelForImageTextToText.from_pretrained(folders[family]).eval()
    processor = AutoProcessor.from_pretrained(folders[family])
    answers = []

    # when
    for scene in range(4):
        engine = DelayedBatchInferenceEngine(model, processor)
        shades = np.random.default_rng(scene).integers(0, 256, (3, 4, 3), np.uint8)
        engine.add_frame(shades.repeat(28, axis=0).repeat(28, axis=1))
        answers += [engine.ask(question, max_new_tokens=32)[0] for question in ("What is there?", "¿Qué? 世界")]

    # then
    assert all(answer and answer.isascii() and answer.isprintable() for answer in answers)
    assert len(set(answers)) > len(answers) // 2
