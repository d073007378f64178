"""Loading a checkpoint, and its errors."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from dataclasses import replace
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import torch
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from delayed_vlm_ros.errors import ConfigurationError, DeviceMemoryError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.inference.local.models import answering, loading
from delayed_vlm_ros.inference.local.models import checkpoint as checkpoint_module
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.device import choose_attention, choose_device
from delayed_vlm_ros.inference.local.models.loading import load_model


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """A copy of a checkpoint that a test may damage."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_folder(), copy)
    return copy


def resolve(folder):
    return resolve_checkpoint(str(folder))


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_saved_checkpoint_is_loaded(checkpoint_folder, family):
    # when
    loaded = load_model(resolve(checkpoint_folder(family)), device="cpu")

    # then
    assert loaded.device == "cpu"
    assert loaded.model.config.model_type == family
    assert not loaded.model.training
    assert loaded.processor.video_token == "<|video_pad|>"
    assert loaded.model.generation_config.repetition_penalty == 1.05


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "auto", torch.float32),
        ("cpu:0", "auto", torch.float32),
        ("cpu", "float32", torch.float32),
        ("cpu", "bfloat16", torch.bfloat16),
        ("cpu", "float16", torch.float16),
    ],
)
def test_dtype_is_applied(checkpoint_folder, device, dtype, expected):
    assert load_model(resolve(checkpoint_folder()), device=device, dtype=dtype).model.dtype == expected


def test_automatic_device_is_cuda_if_available(monkeypatch):
    assert choose_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda:0"


@pytest.mark.parametrize(("device", "expected"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_available_cuda_device_is_used(monkeypatch, device, expected):
    # given
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    # then
    assert choose_device(device) == expected


@pytest.mark.parametrize(("device", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2)])
def test_unavailable_cuda_device_is_refused(checkpoint_folder, monkeypatch, device, count):
    # given
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    # then
    with pytest.raises(ConfigurationError, match=f"'{device}' .* {count} CUDA"):
        load_model(resolve(checkpoint_folder()), device=device)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:-1", "CPU 0"])
def test_unknown_device_is_refused(checkpoint_folder, device):
    with pytest.raises(ConfigurationError, match=f"'device' .*'{device}'"):
        load_model(resolve(checkpoint_folder()), device=device)


@pytest.mark.parametrize("dtype", ["", "int8", "fp16", "float64", "__name__"])
def test_unknown_dtype_is_refused(checkpoint_folder, dtype):
    with pytest.raises(ConfigurationError, match=f"'dtype' .*bfloat16.*'{dtype}'"):
        load_model(resolve(checkpoint_folder()), device="cpu", dtype=dtype)


@pytest.mark.parametrize("attention", ["", "flash", "flash_attention_3"])
def test_unknown_attention_is_refused(checkpoint_folder, attention):
    with pytest.raises(ConfigurationError, match=f"'attention' .*sdpa.*'{attention}'"):
        load_model(resolve(checkpoint_folder()), device="cpu", attention=attention)


def test_flash_attention_is_refused_if_not_installed(checkpoint_folder, monkeypatch):
    # given
    monkeypatch.setattr("transformers.utils.import_utils.is_flash_attn_2_available", lambda: False)

    # then
    with pytest.raises(ConfigurationError, match="flash_attention_2"):
        load_model(resolve(checkpoint_folder()), device="cpu", dtype="bfloat16", attention="flash_attention_2")


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "expected"),
    [
        (True, "cuda:0", "auto", "flash_attention_2"),
        (True, "cuda:0", "bfloat16", "flash_attention_2"),
        (True, "cuda:0", "float32", "sdpa"),
        (True, "cpu", "bfloat16", "sdpa"),
        (True, "cpu:0", "bfloat16", "sdpa"),
        (False, "cuda:0", "auto", "sdpa"),
    ],
)
def test_automatic_attention_is_flash_attention_if_it_fits(monkeypatch, installed, device, dtype, expected):
    # given
    monkeypatch.setattr("transformers.utils.import_utils.is_flash_attn_2_available", lambda: installed)

    # then
    assert choose_attention("auto", dtype, device) == expected


def test_eager_attention_is_used_if_requested(checkpoint_folder):
    assert load_model(resolve(checkpoint_folder()), attention="eager").model.config._attn_implementation == "eager"


@pytest.mark.parametrize("size", [0, 7, 5000])
def test_truncated_weights_name_the_model(folder, size):
    # given a download that was cut short
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])

    # then
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        load_model(resolve(folder), device="cpu")


def test_incomplete_weights_are_refused(folder):
    # given a checkpoint that lacks a shard
    weights = load_file(folder / "model.safetensors")
    complete = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    assert len(complete) < len(weights)
    save_file(complete, folder / "model.safetensors", metadata={"format": "pt"})

    # then
    with pytest.raises(UnsupportedModelError, match=r"lacks 3 .*layers\.1\.mlp"):
        load_model(resolve(folder), device="cpu")


def test_weights_of_another_shape_are_refused(folder):
    # given
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))

    # then
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        load_model(resolve(folder), device="cpu")


@pytest.mark.parametrize("pattern", ["tokenizer*", "tokenizer.json"])
def test_missing_tokenizer_is_refused(folder, pattern):
    # given
    for file in folder.glob(pattern):
        file.unlink()

    # then
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        load_model(resolve(folder), device="cpu")


# --- no code of a checkpoint runs -----------------------------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_pickled_weights_are_not_opened(folder, tmp_path):
    # given
    torch.save(Bomb(tmp_path / "opened"), folder / "pytorch_model.bin")
    torch.save(Bomb(tmp_path / "opened"), folder / "training_args.bin")

    # when
    load_model(resolve(folder), device="cpu")
    # or without a complete set of safetensors
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        load_model(resolve(folder), device="cpu")

    # then
    assert not (tmp_path / "opened").exists()


def test_code_in_a_checkpoint_does_not_run(folder, tmp_path, monkeypatch):
    # given
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\nProcessor = Config = Model\n")
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text())
        if file.name in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
            names = (
                "AutoConfig",
                "AutoModelForImageTextToText",
                "AutoProcessor",
                "AutoTokenizer",
                "AutoVideoProcessor",
            )
            content["auto_map"] = dict.fromkeys(names, "code.Model")
            file.write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # answer every prompt with yes

    # when
    loaded = load_model(resolve(folder), device="cpu")

    # then
    assert type(loaded.model).__module__.startswith("transformers.models.")
    assert not ran.exists()


def test_only_data_files_are_downloaded(checkpoint_folder, monkeypatch):
    # given
    downloaded = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: downloaded.update(options) or name)
    checkpoint = replace(resolve(checkpoint_folder()), weights_missing=True)

    # when
    loading._download_weights(checkpoint)

    # then
    for file in ("model-00001-of-00002.safetensors", "tokenizer.json", "merges.txt", "chat_template.jinja"):
        assert any(fnmatch(file, pattern) for pattern in downloaded["allow_patterns"])
    for file in ("pytorch_model.bin", "modeling.py", "model.pt", "weights.pickle", "model.ckpt", "model.h5"):
        assert not any(fnmatch(file, pattern) for pattern in downloaded["allow_patterns"])


@pytest.mark.parametrize(
    ("is_terminal", "environment", "expected"),
    [
        (True, {}, True),
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (True, {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, False),
        (False, {}, False),
    ],
)
def test_progress_bars_are_shown_on_a_real_terminal_only(monkeypatch, is_terminal, environment, expected):
    for name in ("TERM", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: is_terminal))
    assert loading._shows_progress_bars() is expected


# --- tokenizers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def demo_folder(tmp_path):
    """A copy of the embedded checkpoint, whose tokenizer is not the one of its model type."""
    copy = tmp_path / "demo"
    shutil.copytree(resolve_checkpoint("demo").path, copy)
    return copy


def test_missing_tokenizer_config_that_garbles_answers_is_refused(demo_folder):
    load_model(resolve(demo_folder), device="cpu")
    (demo_folder / "tokenizer_config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"tokenizer_config\.json is missing: .*garbled"):
        load_model(resolve(demo_folder), device="cpu")


def test_tokenizer_of_another_class_is_refused(demo_folder):
    file = demo_folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "Qwen2Tokenizer"}))
    with pytest.raises(UnsupportedModelError, match=r"another way than its tokenizer\.json: answers"):
        load_model(resolve(demo_folder), device="cpu")


@pytest.mark.parametrize(
    "settings",
    [
        {
            "padding": {
                "strategy": {"Fixed": 256},
                "direction": "Right",
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "x",
            }
        },
        {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
    ],
    ids=str,
)
def test_padding_and_truncation_of_a_fine_tuning_are_ignored(demo_folder, settings):
    file = demo_folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    load_model(resolve(demo_folder), device="cpu")


# --- shortages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "file descriptors are short .* raise the limits"),
        (RuntimeError("can't start new thread"), "threads .* are short .* raise the limits"),
        (torch.OutOfMemoryError("CUDA out of memory"), "Free the device's memory"),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "function", ["transformers.AutoModelForImageTextToText.from_pretrained", f"{answering.__name__}._answer"]
)
def test_shortage_has_the_remedy_for_what_is_short(checkpoint_folder, monkeypatch, function, error, remedy):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(function, fail)
    with pytest.raises(DeviceMemoryError, match=remedy):
        load_model(resolve(checkpoint_folder()), device="cpu")


# --- downloads ------------------------------------------------------------------------------------------------------


def test_nothing_is_downloaded_without_permission(folder, monkeypatch):
    # given
    calls = []

    def record(function):
        def call(*arguments, **options):
            calls.append(options.get("local_files_only"))
            return function(*arguments, **options)

        return call

    def not_cached(*_, **__):
        raise LocalEntryNotFoundError("not cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", record(not_cached))
    for name in ("AutoProcessor", "AutoModelForImageTextToText"):
        library = getattr(transformers, name)
        monkeypatch.setattr(library, "from_pretrained", record(library.from_pretrained))
    # when
    for name in ("somebody/some-model", "a/b"):
        with pytest.raises(ModelNotFoundError):
            resolve_checkpoint(name)
    checkpoint_module._find_in_cache(checkpoint_module.ROBOT_MODEL)
    load_model(resolve(folder), device="cpu")
    # then
    assert calls == [True] * 5


def test_model_that_was_chosen_for_a_gpu_is_not_loaded_on_the_cpu(folder):
    chosen = replace(resolve(folder), why_chosen="this model was chosen automatically")
    with pytest.raises(ConfigurationError, match=r"chosen automatically, but torch finds no CUDA device"):
        load_model(chosen, device="cpu")
