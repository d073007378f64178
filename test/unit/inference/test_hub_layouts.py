"""Checkpoints as they lie on the hub: each loads with all weights, settings and its template, or is refused."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from hub_layouts import LAYOUTS, edit, quantise, read, save_reference
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.doctor.model import ModelSettings, model_findings
from delayed_vlm_ros.errors import ConfigurationError, UnsupportedModelError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models import quantization
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.replay.native import native_generate, native_inputs

QUESTION = "What is on the left?"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return a function that returns a model, as the library itself saves and loads it, and its folder."""
    made = {}

    def make(family, *, tied):
        if (family, tied) not in made:
            folder = tmp_path_factory.mktemp("reference")
            save_reference(folder, family, tied=tied)
            model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
            made[family, tied] = SimpleNamespace(
                folder=folder, model=model, processor=AutoProcessor.from_pretrained(folder)
            )
        return made[family, tied]

    return make


@torch.inference_mode()
def logits(model, processor, snapshot):
    """Return the logits that the library computes for a question, with its own positions."""
    return model(**native_inputs(processor, snapshot, QUESTION)).logits


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_of_the_hub_loads_as_the_model_that_it_was_made_from(reference, tmp_path, image, name):
    # given
    layout = LAYOUTS[name]
    expected = reference(layout.family, tied=layout.tied)
    folder = tmp_path / "checkpoint"
    shutil.copytree(expected.folder, folder)
    layout.rewrite(folder)

    # when
    checkpoint = resolve_checkpoint(str(folder))
    engine = DelayedBatchInferenceEngine.from_pretrained(str(folder), device="cpu")
    for number, stamp in enumerate((0.0, 0.7, 3.1, 3.6)):
        engine.add_frame(image(number), stamp)

    # then every weight is the same
    weights, expected_weights = engine.model.state_dict(), expected.model.state_dict()
    assert weights.keys() == expected_weights.keys()
    assert [key for key in weights if not torch.equal(weights[key], expected_weights[key])] == []
    # and every setting of the processor
    video, expected_video = engine.processor.video_processor, expected.processor.video_processor
    assert type(video) is type(expected_video)
    for field in ("size", "patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std"):
        assert getattr(video, field) == getattr(expected_video, field), field
    assert engine.processor.chat_template == expected.processor.chat_template
    assert checkpoint.factor == video.patch_size * video.merge_size
    assert checkpoint.max_pixels == video.size["longest_edge"]
    # and what it computes, rotary frequencies and times included
    snapshot = engine.snapshot()
    expected_logits = logits(expected.model, expected.processor, snapshot)
    assert torch.equal(logits(engine.model, engine.processor, snapshot), expected_logits)
    answer, metrics = engine.ask(QUESTION, max_new_tokens=12)
    native = native_generate(expected.model, expected.processor, snapshot, QUESTION, max_new_tokens=12)
    assert (
        answer == expected.processor.tokenizer.decode(native[0], skip_special_tokens=True).rpartition("assistant\n")[2]
    )
    assert (metrics.exact, engine.warnings) == (True, ())


# --- refused when they are found ------------------------------------------------------------------------------------


@pytest.fixture
def folder(reference, tmp_path):
    """Return a function that returns a copy of a checkpoint that a test may change."""

    def copy(family="qwen3_vl", *, tied=True):
        target = tmp_path / family
        shutil.copytree(reference(family, tied=tied).folder, target)
        return target

    return copy


def refusal(folder):
    with pytest.raises(UnsupportedModelError) as caught:
        resolve_checkpoint(str(folder))
    return str(caught.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_without_its_chat_template_is_refused_when_it_is_found(reference, tmp_path, name):
    layout, checkpoint = LAYOUTS[name], tmp_path / "checkpoint"
    shutil.copytree(reference(layout.family, tied=layout.tied).folder, checkpoint)
    layout.rewrite(checkpoint)
    for file in checkpoint.glob("chat_template.*"):
        file.unlink()
    edit(checkpoint, "tokenizer_config.json", chat_template=None)
    assert "has no chat template (chat_template.jinja)" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("family", "file", "field", "value", "needed"),
    [
        ("qwen2_5_vl", "tokenizer_config.json", "processor_class", "LlavaProcessor", "Qwen2_5_VLProcessor"),
        ("qwen3_vl", "processor_config.json", "processor_class", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"),
        ("qwen2_5_vl", "processor_config.json", "processor_class", "Qwen3VLProcessor", "Qwen2_5_VLProcessor"),
        ("qwen3_5", "preprocessor_config.json", "image_processor_type", "CLIPImageProcessor", "Qwen2VLImageProcessor"),
        ("qwen3_vl", "video_preprocessor_config.json", "video_processor_type", "Qwen2VLVideoProcessor", "Qwen3VL"),
        ("qwen2_vl", "preprocessor_config.json", "processor_class", ["LlavaProcessor"], "Qwen2VLProcessor"),
    ],
)
def test_processor_of_another_model_is_refused_when_it_is_found(folder, family, file, field, value, needed):
    checkpoint = folder(family)
    edit(checkpoint, file, **{field: value})
    message = refusal(checkpoint)
    assert f"{file} has the {field} {value!r}, but a {family} model needs {needed}" in message


@pytest.mark.parametrize("part", ["image_processor", "video_processor"])
def test_nested_processor_of_another_model_is_refused(folder, part):
    checkpoint = folder()
    settings = read(checkpoint, "processor_config.json")[part]
    edit(checkpoint, "processor_config.json", **{part: settings | {f"{part}_type": "SmolVLMProcessor"}})
    assert f"has the {part}_type 'SmolVLMProcessor'" in refusal(checkpoint)


PACKAGES = {
    "awq": "pip install gptqmodel",
    "gptq": "pip install gptqmodel optimum",
    "compressed-tensors": "pip install compressed-tensors",
    "bitsandbytes": "pip install bitsandbytes",
    "torchao": "pip install torchao",
    "auto-round": "pip install auto-round",
}


@pytest.mark.parametrize(("method", "command"), PACKAGES.items())
def test_quantised_checkpoint_without_its_package_is_refused_with_the_command(folder, monkeypatch, method, command):
    checkpoint = folder()
    edit(checkpoint, "config.json", quantization_config={"quant_method": method, "bits": 4})
    monkeypatch.setattr(quantization, "is_installed", lambda _package: False)
    assert f"quantised by {method}, which needs" in refusal(checkpoint)
    assert f"run '{command}'" in refusal(checkpoint)
    monkeypatch.setattr(quantization, "is_installed", lambda _package: True)
    assert resolve_checkpoint(str(checkpoint)).quantization == method


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {}}, ""),
        ({"quantization_config": None}, ""),
    ],
    ids=str,
)
def test_older_descriptions_of_a_quantisation_are_understood(folder, monkeypatch, config, method):
    checkpoint = folder()
    edit(checkpoint, "config.json", **config)
    monkeypatch.setattr(quantization, "is_installed", lambda _package: True)
    assert resolve_checkpoint(str(checkpoint)).quantization == method


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quant_method": "modelopt"}, "modelopt"),
        ({"quant_method": "exl3"}, "exl3"),
        ({"bits": 4}, "an unknown method"),
        ({"quant_method": ["fp8"]}, "['fp8']"),
        (["fp8"], "an unknown method"),
        (True, "an unknown method"),
    ],
    ids=str,
)
def test_quantisation_that_transformers_would_ignore_is_refused(folder, settings, named):
    checkpoint = folder()
    edit(checkpoint, "config.json", quantization_config=settings)
    assert f"quantised by {named}, which is not supported" in refusal(checkpoint)


@pytest.mark.parametrize("field", ["compression_config", "quantization", "quantization_config in text_config"])
def test_quantisation_in_a_field_that_the_loading_does_not_read_is_refused(folder, field):
    checkpoint = folder()
    name, _, parent = field.partition(" in ")
    settings = {name: {"quant_method": "fp8", "bits": 4}}
    if parent:
        settings = {parent: read(checkpoint, "config.json")[parent] | settings}
    edit(checkpoint, "config.json", **settings)
    assert f"in the field {field}, which is not supported" in refusal(checkpoint)


def test_weights_that_are_quantised_in_two_ways_are_refused(folder):
    checkpoint = folder()
    groups = {"group_0": {"weights": {"num_bits": 4}}, "group_1": {"weights": {"num_bits": 8}}}
    settings = {"quant_method": "compressed-tensors", "config_groups": groups}
    edit(checkpoint, "config.json", quantization_config=settings)
    assert "in more than one way (config_groups)" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("weight", "refused"),
    [
        ("model.layers.0.q_proj.weight_g_idx", True),
        ("model.layers.0.q_proj.weight_zero_point", True),
        ("model.layers.0.q_proj.qweight", True),
        ("model.layers.0.q_proj.input_scale", False),
        ("model.layers.0.q_proj.input_global_scale", False),
        ("model.layers.0.attn.k_scale", False),
        ("logit_scale", False),
    ],
)
def test_unused_tensor_is_refused_only_if_the_weights_need_it(weight, refused):
    if refused:
        with pytest.raises(UnsupportedModelError, match="garbled"):
            quantization.check_unused_weights("a/b", [weight])
    else:
        assert weight in quantization.check_unused_weights("a/b", [weight])[0]


@pytest.mark.parametrize("with_config", [True, False])
def test_folder_with_gguf_weights_only_is_refused(folder, with_config):
    checkpoint = folder()
    (checkpoint / "model.safetensors").rename(checkpoint / "model-Q4_K_M.gguf")
    if not with_config:
        (checkpoint / "config.json").unlink()
    assert "only weights for llama.cpp (model-Q4_K_M.gguf)" in refusal(checkpoint)


@pytest.mark.parametrize("with_config", [True, False])
def test_adapter_of_a_fine_tuning_is_refused(folder, with_config):
    checkpoint = folder()
    (checkpoint / "model.safetensors").rename(checkpoint / "adapter_model.safetensors")
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-4B-Instruct"}')
    if not with_config:
        (checkpoint / "config.json").unlink()
    assert "has an adapter (adapter_config.json), such as LoRA: merge it" in refusal(checkpoint)


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "qwen3_5_moe", "lfm3_vl"])
def test_relatives_without_an_adapter_are_refused_with_the_supported_types(folder, model_type):
    checkpoint = folder()
    edit(checkpoint, "config.json", model_type=model_type)
    assert f"its type {model_type} is not supported, use one of qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5" in refusal(
        checkpoint
    )


# --- quantised weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_weights_in_fp8_are_multiplied_with_their_scales(reference, folder, family):
    # given
    checkpoint = folder(family, tied=False)
    scaled = quantise(checkpoint, "fp8")

    # when
    loaded = load_model(resolve_checkpoint(str(checkpoint)), device="cpu")

    # then each is within the rounding of fp8, and the others are the same
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    weights, expected = loaded.model.state_dict(), reference(family, tied=False).model.state_dict()
    assert weights.keys() == expected.keys()
    differing = [key for key in weights if not torch.equal(weights[key].float(), expected[key])]
    assert len(differing) == scaled > 10
    for key in differing:
        assert (weights[key].float() - expected[key]).abs().max() < expected[key].abs().max() / 16
    assert loaded.notes == ()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_in_fp8_have_no_other_dtype_than_bfloat16(folder, dtype):
    checkpoint = folder()
    quantise(checkpoint, "fp8")
    with pytest.raises(ConfigurationError, match=f"'dtype' must be auto or bfloat16 .* fp8, got '{dtype}'"):
        load_model(resolve_checkpoint(str(checkpoint)), device="cpu", dtype=dtype)


def test_weights_in_fp8_whose_config_says_nothing_are_refused(folder):
    checkpoint = folder()
    quantise(checkpoint, "fp8")
    edit(checkpoint, "config.json", quantization_config=None)
    with pytest.raises(UnsupportedModelError, match=r"are quantised, but transformers does not use .*weight_scale_inv"):
        load_model(resolve_checkpoint(str(checkpoint)), device="cpu")


def test_other_weights_that_the_model_does_not_use_are_noted(folder):
    checkpoint = folder()
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | {"value_head.weight": torch.ones(1, 4)}, file, metadata={"format": "pt"})
    (note,) = load_model(resolve_checkpoint(str(checkpoint)), device="cpu").notes
    assert "1 weights that the model does not use, such as value_head.weight" in note


@pytest.mark.parametrize(
    ("method", "stored", "expected"),
    [
        ("", {"x.weight": torch.zeros(2000, 2000, dtype=torch.bfloat16)}, [5, 9]),
        ("fp8", {"x.weight": torch.zeros(2000, 2000, dtype=torch.uint8)}, [5, 9]),
        ("compressed-tensors", {"x.weight_packed": torch.zeros(2000, 250, dtype=torch.int32)}, [5, 9]),
        ("compressed-tensors", {"x.weight_packed": torch.zeros(2000, 1000, dtype=torch.uint8)}, [5, 9]),
        ("bitsandbytes", {"x.weight": torch.zeros(2_000_000, 1, dtype=torch.uint8)}, [3, 3]),
        ("gptq", {"x.qweight": torch.zeros(250, 2000, dtype=torch.int32)}, [1, 3]),
    ],
)
def test_memory_of_quantised_weights_is_planned_as_they_are_loaded(folder, monkeypatch, method, stored, expected):
    # given 4,000,000 weights beside half a million in bfloat16, stored by the method
    checkpoint = folder()
    file = checkpoint / "model.safetensors"
    save_file(load_file(file) | stored, file, metadata={"format": "pt"})
    if method:
        groups = {"group_0": {"weights": {"num_bits": 4}}}
        edit(checkpoint, "config.json", quantization_config={"quant_method": method, "config_groups": groups})
    monkeypatch.setattr(quantization, "is_installed", lambda _package: True)

    # when
    settings = ModelSettings(str(checkpoint), device="cpu", dtype="bfloat16")
    found = " ".join(finding.text for finding in model_findings(settings, None, is_loaded=False))

    # then
    parameters, megabytes = re.search(r"(\d+) million parameters.*weights (\d+) MB", found).groups()
    assert [int(parameters), int(megabytes)] == expected
    assert (f"quantised by {method}" in found) == bool(method)


@pytest.mark.parametrize("method", ["bitsandbytes", "compressed-tensors", "torchao"])
def test_weights_quantised_by_a_package_answer_as_in_the_library(folder, image, method):
    # given
    pytest.importorskip(method.replace("-", "_"))
    checkpoint = folder(tied=False)
    quantise(checkpoint, method)

    # when
    engine = DelayedBatchInferenceEngine.from_pretrained(str(checkpoint), device="cpu")
    for number in range(4):
        engine.add_frame(image(number), float(number))
    answer, metrics = engine.ask(QUESTION, max_new_tokens=12)

    # then
    native = native_generate(engine.model, engine.processor, engine.snapshot(), QUESTION, max_new_tokens=12)
    assert engine.processor.tokenizer.decode(native[0], skip_special_tokens=True).endswith(answer)
    assert (bool(answer), metrics.exact) == (True, True)
