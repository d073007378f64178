"""Random checkpoints: Transformers loads them like any other, and their answers are readable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine

PROCESSORS = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
    "qwen3_5": "Qwen3VLProcessor",
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    created = {}
    for model_type in PROCESSORS:
        created[model_type] = tmp_path_factory.mktemp(model_type)
        save_random_checkpoint(created[model_type], model_type=model_type)
    return created


@pytest.mark.parametrize("model_type", PROCESSORS)
def test_transformers_loads_the_checkpoint(folders, model_type):
    # when
    model, report = AutoModelForImageTextToText.from_pretrained(folders[model_type], output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folders[model_type])

    # then
    assert model.config.model_type == model_type
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(processor).__name__ == PROCESSORS[model_type]
    for name in ("video", "image"):
        assert getattr(processor, f"{name}_token_id") == getattr(model.config, f"{name}_token_id")
    assert model.generation_config.eos_token_id[0] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.text_config.vocab_size == len(processor.tokenizer)


def test_tokenizer_round_trips_any_text(folders):
    # given
    tokenizer = AutoProcessor.from_pretrained(folders["qwen2_5_vl"]).tokenizer
    text = " ¿Qué hay?\n\t世界 👩🏽‍🚀 \x00\x7f "

    # then
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_seed_determines_the_weights_without_changing_the_global_generator(tmp_path, folders):
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


@pytest.mark.parametrize("model_type", PROCESSORS)
def test_answers_are_printable_and_depend_on_the_frames(folders, model_type):
    # given
    model = AutoModelForImageTextToText.from_pretrained(folders[model_type]).eval()
    processor = AutoProcessor.from_pretrained(folders[model_type])
    answers = []

    # when
    for scene in range(4):
        engine = DelayedBatchInferenceEngine(model, processor)
        shades = np.random.default_rng(scene).integers(0, 256, (3, 4, 3), np.uint8)
        engine.add_frame(shades.repeat(28, axis=0).repeat(28, axis=1))
        answers += [engine.ask(question, max_new_tokens=32)[0] for question in ("What is there?", "¿Qué? 世界")]

    # then
    assert all(answer and answer.isascii() and answer.isprintable() for answer in answers)
    assert len(set(answers)) >= len(answers) // 2
