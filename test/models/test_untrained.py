"""The demo checkpoint: an ordinary one to the library, made once, and its noise is readable."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from delayed_vlm_ros.models import untrained
from delayed_vlm_ros.models.untrained import NOTICE, save_untrained, untrained_checkpoint
from delayed_vlm_ros.vlm.checkpoint import resolve_checkpoint
from delayed_vlm_ros.vlm.engine import DelayedBatchInferenceEngine

FAMILIES = ["qwen2_vl", "qwen2_5_vl"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "delayed_vlm_ros"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made = {}
    for family in FAMILIES:
        made[family] = tmp_path_factory.mktemp(family)
        save_untrained(made[family], model_type=family)
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
        save_untrained(folder, **arguments)

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


def test_made_once_in_the_users_cache(own_cache, monkeypatch):
    # when
    folder = untrained_checkpoint()

    # then
    assert folder.parent == own_cache
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert [path.name for path in own_cache.iterdir()] == [folder.name]
    monkeypatch.setattr(untrained, "save_untrained", None)
    assert untrained_checkpoint() == folder
    assert resolve_checkpoint("demo").degraded == (NOTICE,)


@pytest.mark.parametrize("blocked", ["a file", "read-only"])
def test_unusable_cache_is_no_obstacle(monkeypatch, tmp_path, blocked):
    # given
    place = tmp_path / "blocked"
    if blocked == "a file":
        place.write_text("")
    else:
        monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    # when
    folder = untrained_checkpoint()

    # then
    assert (folder / "config.json").is_file()
    assert tmp_path in folder.parents
    assert place not in folder.parents


def test_failed_making_leaves_nothing_behind(own_cache, monkeypatch):
    # given
    def fail(folder, **_):
        (folder / "config.json").write_text("{}")
        raise OSError("no space left on device")

    monkeypatch.setattr(untrained, "save_untrained", fail)

    # when
    with pytest.raises(OSError, match="no space left"):
        untrained_checkpoint()

    # then
    assert list(own_cache.iterdir()) == []


def test_two_processes_at_once_publish_one_whole_checkpoint(own_cache, folders):
    # given
    script = f"""
import shutil, sys
from delayed_vlm_ros.models import untrained
def save(folder):  # what takes long is done already
    shutil.copytree({str(folders["qwen2_5_vl"])!r}, folder, dirs_exist_ok=True)
    print("saved", flush=True)
    sys.stdin.readline()  # both have drafted before either publishes
untrained.save_untrained = save
print(untrained.untrained_checkpoint(), flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    # when
    processes = [subprocess.Popen([sys.executable, "-c", script], **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "saved\n"
    outputs = [process.communicate("\n", timeout=60)[0].strip() for process in processes]

    # then
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert [str(path) for path in own_cache.iterdir()] == outputs[:1]
    AutoModelForImageTextToText.from_pretrained(outputs[0])
    AutoProcessor.from_pretrained(outputs[0])
