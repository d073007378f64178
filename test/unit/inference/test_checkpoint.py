"""Finding a checkpoint, and early errors about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from transformers import AutoProcessor

from delayed_vlm_ros.errors import ConfigurationError, ModelNotFoundError, UnsupportedModelError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models import checkpoint as checkpoint_module
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.local.models.checkpoint import DEMO_MODEL, ROBOT_MODEL, resolve_checkpoint


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """A copy of a checkpoint that a test may damage."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_folder(), copy)
    return copy


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch, tmp_path):
    """An empty model cache, without network."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def put_in_cache(cache, name, source, pattern="*"):
    """Copy a checkpoint into the hub's cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in source.glob(pattern):
        shutil.copy(file, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return snapshot


def edit(file, **changes):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | changes))


# --- found checkpoints ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_folder_is_read(checkpoint_folder, family):
    # given
    folder = checkpoint_folder(family)

    # when
    checkpoint = resolve_checkpoint(str(folder))

    # then
    factor, smallest = (32, 1) if family in ("qwen3_vl", "qwen3_5") else (28, 4)  # 1: the limit is for whole videos
    assert (checkpoint.path, checkpoint.model_type, checkpoint.factor) == (folder, family, factor)
    assert (checkpoint.min_pixels, checkpoint.max_pixels) == (smallest * factor**2, 16 * factor**2)
    assert (checkpoint.warnings, checkpoint.weights_missing) == ((), False)


def test_home_is_expanded_and_blanks_are_stripped(folder, monkeypatch):
    # given
    monkeypatch.setenv("HOME", str(folder.parent))

    # then
    assert resolve_checkpoint("  ~/checkpoint ").path == folder


def test_hub_name_is_found_in_the_cache(folder, empty_hub_cache):
    # given
    snapshot = put_in_cache(empty_hub_cache, "somebody/some-model", folder)

    # when
    checkpoint = resolve_checkpoint("somebody/some-model")

    # then
    assert (checkpoint.name, checkpoint.path) == ("somebody/some-model", snapshot)


VIDEO_SETTINGS = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}


@pytest.mark.parametrize(
    ("file", "sizes"),
    [
        ("preprocessor_config.json", {"min_pixels": 3136, "max_pixels": 12845056}),  # as in the first releases
        ("preprocessor_config.json", {"size": {"shortest_edge": 3136, "longest_edge": 50176}}),
        ("video_preprocessor_config.json", {"size": {"shortest_edge": 6272, "longest_edge": 50176}}),
        ("preprocessor_config.json", {}),
    ],
)
def test_image_sizes_equal_those_of_the_library(folder, file, sizes):
    # given the files of an older release
    (folder / "processor_config.json").unlink()
    kind = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(kind | VIDEO_SETTINGS | sizes))
    if file != "preprocessor_config.json":
        kind = {"video_processor_type": "Qwen2VLVideoProcessor"}
        (folder / file).write_text(json.dumps(kind | VIDEO_SETTINGS | sizes))

    # when
    checkpoint = resolve_checkpoint(str(folder))

    # then
    video_processor = AutoProcessor.from_pretrained(folder).video_processor
    assert checkpoint.min_pixels == video_processor.size["shortest_edge"]
    assert checkpoint.max_pixels == video_processor.size["longest_edge"]
    assert checkpoint.factor == video_processor.patch_size * video_processor.merge_size


def test_geometry_equals_that_of_the_engine(checkpoint_folder, load_tiny):
    # given
    tiny = load_tiny()
    checkpoint = resolve_checkpoint(str(checkpoint_folder()))

    # then
    for max_pixels in (4 * 28 * 28, 10_000, 10**7):
        engine = DelayedBatchInferenceEngine(tiny.model, tiny.processor, max_pixels=max_pixels)
        assert engine._ingestor._geometry == checkpoint.geometry(max_pixels)


@pytest.mark.parametrize("max_pixels", [0, 100, 4 * 28 * 28 - 1])
def test_too_few_pixels_are_refused(checkpoint_folder, max_pixels):
    with pytest.raises(ConfigurationError, match=rf"max_pixels.* {max_pixels}, .* 3136 "):
        resolve_checkpoint(str(checkpoint_folder())).geometry(max_pixels)


# --- demo and auto --------------------------------------------------------------------------------------------------


def test_demo_model_has_a_warning_and_one_image_size():
    # when
    checkpoint = resolve_checkpoint("demo")

    # then
    assert checkpoint.name == DEMO_MODEL
    assert checkpoint.model_type in SUPPORTED_MODEL_TYPES
    assert checkpoint.warnings == ("demo model, synthetic scenes only",)
    assert checkpoint.geometry(10**6).grid_for(1080, 1920) == checkpoint.only_size
    with pytest.raises(ConfigurationError, match=r"max_pixels.* 15680 "):
        checkpoint.geometry(15_000)


def test_invalid_frame_size_is_refused(folder):
    edit(folder / "config.json", frame_size="large")
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("cuda", "cached", "device", "expected"),
    [
        (True, True, "auto", ROBOT_MODEL),
        (True, True, "cuda:0", ROBOT_MODEL),
        (True, True, "cpu", DEMO_MODEL),
        (True, False, "auto", DEMO_MODEL),
        (False, True, "auto", DEMO_MODEL),
        (False, True, "cuda", DEMO_MODEL),
    ],
)
def test_automatic_model_is_cached_one_on_cuda(folder, empty_hub_cache, monkeypatch, cuda, cached, device, expected):
    # given
    monkeypatch.setattr(checkpoint_module, "has_cuda_device", lambda: cuda)
    monkeypatch.setattr(checkpoint_module, "usable_gpu_memory", lambda _: 24 * 10**9)
    if cached:
        put_in_cache(empty_hub_cache, ROBOT_MODEL, folder)

    # then
    assert resolve_checkpoint("auto", device=device).name == expected


LARGE, MIDDLE, SMALL = "Qwen/Qwen3-VL-8B-Instruct", "Qwen/Qwen3.5-4B", "Qwen/Qwen3-VL-2B-Instruct"


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that gives this machine a GPU, with its memory in bytes, and models their need in GB."""

    def make(memory, needs):
        monkeypatch.setattr(checkpoint_module, "has_cuda_device", lambda: True)
        monkeypatch.setattr(checkpoint_module, "usable_gpu_memory", lambda _: memory)
        monkeypatch.setattr(checkpoint_module, "_needed_bytes", lambda found: int(needs[found.name] * 1e9))

    return make


@pytest.mark.parametrize(
    ("memory", "expected", "skipped"),
    [
        (24 * 10**9, LARGE, ()),
        (16 * 10**9, MIDDLE, (f"{LARGE} needs 21.4 GB of the GPU's 16.0 GB",)),
        (8 * 10**9, SMALL, (f"{LARGE} needs 21.4 GB of the GPU's 8.0 GB", f"{MIDDLE} needs 11.9 GB")),
        (None, SMALL, ()),
        (4 * 10**9, DEMO_MODEL, (f"{SMALL} needs 6.8 GB of the GPU's 4.0 GB",)),
    ],
)
def test_automatic_model_is_the_first_that_fits_the_gpu(folder, empty_hub_cache, gpu, memory, expected, skipped):
    # given
    gpu(memory, {LARGE: 21.4, MIDDLE: 11.9, SMALL: 6.8})
    for name in (SMALL, LARGE, MIDDLE):
        put_in_cache(empty_hub_cache, name, folder)
    # when
    chosen = resolve_checkpoint("auto")
    # then
    assert chosen.name == expected
    reason = chosen.warnings[-1] if expected == DEMO_MODEL else chosen.why_chosen
    assert all(text in reason for text in (*skipped, f"{'the demo model' if expected == DEMO_MODEL else expected} was"))


def test_automatic_model_without_known_memory_is_the_robots_model(folder, empty_hub_cache, gpu):
    gpu(None, {LARGE: 21.4, ROBOT_MODEL: 9.9, SMALL: 6.8})
    for name in (LARGE, ROBOT_MODEL, SMALL):
        put_in_cache(empty_hub_cache, name, folder)
    assert resolve_checkpoint("auto").name == ROBOT_MODEL


def test_automatic_model_is_not_one_that_was_downloaded_in_part(folder, empty_hub_cache, gpu):
    # given
    gpu(24 * 10**9, {MIDDLE: 11.9})
    put_in_cache(empty_hub_cache, MIDDLE, folder)
    broken = put_in_cache(empty_hub_cache, LARGE, folder)
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (broken / "model.safetensors").rename(broken / "model-00001-of-00002.safetensors")
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    # when
    chosen = resolve_checkpoint("auto")
    # then
    assert chosen.name == MIDDLE
    assert f"{LARGE} cannot be used" in chosen.why_chosen


def test_named_model_has_no_reason(folder):
    assert resolve_checkpoint(str(folder)).why_chosen == ""


def test_need_of_a_model_is_its_weights_and_a_full_memory(folder):
    found = resolve_checkpoint(str(folder))
    weights = (folder / "model.safetensors").stat().st_size
    needed = checkpoint_module._needed_bytes(found)
    assert weights + 10**9 < needed < weights + 2 * 10**9  # 1 GB of it for CUDA's libraries


# --- refused checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "~/nowhere", "~no-such-user/model", "a/b/c", "word"])
def test_missing_folder_error_has_the_choices(name):
    # then
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_checkpoint(name)
    assert all(word in str(caught.value) for word in (f"'{name}'", ROBOT_MODEL, "'demo'", "'auto'"))


@pytest.mark.parametrize("name", ["", "  "])
def test_empty_name_is_not_the_working_folder(folder, monkeypatch, name):
    # given a working folder that happens to be a checkpoint
    monkeypatch.chdir(folder)

    # then
    with pytest.raises(ModelNotFoundError, match="''"):
        resolve_checkpoint(name)


def test_uncached_hub_name_error_has_the_command():
    with pytest.raises(ModelNotFoundError, match=f"'hf download {ROBOT_MODEL}'"):
        resolve_checkpoint(ROBOT_MODEL)


@pytest.mark.parametrize("pattern", ["*.json", "*.safetensors"])
def test_incomplete_cached_model_is_not_found(folder, empty_hub_cache, pattern):
    # given
    put_in_cache(empty_hub_cache, "somebody/half", folder, pattern)

    # then
    with pytest.raises(ModelNotFoundError, match="hf download somebody/half"):
        resolve_checkpoint("somebody/half")


@pytest.mark.parametrize("name", ["with blanks/name", "a/..", "a/--b"])
def test_invalid_hub_name_is_refused(name):
    with pytest.raises(ModelNotFoundError, match=f"'{name}'"):
        resolve_checkpoint(name)


def test_download_without_network_fails():
    with pytest.raises(ModelNotFoundError, match="somebody/some-model"):
        resolve_checkpoint("somebody/some-model", allow_download=True)


def test_folder_without_config_is_refused(folder):
    # given
    (folder / "config.json").unlink()

    # then
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe\x00"])
@pytest.mark.parametrize("file", ["config.json", "processor_config.json"])
def test_broken_json_is_refused(folder, file, content):
    # given
    (folder / file).write_bytes(content)

    # then
    with pytest.raises(UnsupportedModelError, match=file):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("model_type", ["llama", "qwen2_5_vl_text", "", None])
def test_unsupported_model_type_error_has_the_supported_types(folder, model_type):
    # given
    edit(folder / "config.json", model_type=model_type)

    # then
    with pytest.raises(UnsupportedModelError, match=rf"type {model_type} .*qwen2_vl, qwen2_5_vl"):
        resolve_checkpoint(str(folder))


def test_folder_without_weights_is_refused(folder):
    # given
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    # then
    with pytest.raises(ModelNotFoundError, match=r"\*\.safetensors"):
        resolve_checkpoint(str(folder))


def test_folder_without_video_settings_is_refused(folder):
    # given
    (folder / "processor_config.json").unlink()

    # then
    with pytest.raises(UnsupportedModelError, match=r"processor_config\.json, "):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("settings", [{"patch_size": "large"}, {"size": 5}, {"size": {"shortest_edge": [1]}}, 7])
def test_invalid_video_settings_are_refused(folder, settings):
    # given
    edit(folder / "processor_config.json", video_processor=settings)

    # then
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("vision_changes", "processor_changes", "message"),
    [
        ({"patch_size": None}, {}, "vision_config lacks patch_size"),
        ({}, {"merge_size": None}, "video processor lacks merge_size"),
        ({}, {"patch_size": 16}, "patch_size 14, .* patch_size 16"),
        ({"spatial_merge_size": 1}, {}, "spatial_merge_size 1, .* merge_size 2"),
        (
            {"temporal_patch_size": 4},
            {"temporal_patch_size": 4},
            "temporal patch has 4 frames",
        ),
    ],
)
def test_incomplete_or_contradictory_files_are_refused(folder, vision_changes, processor_changes, message):
    # given
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", vision_config=config["vision_config"] | vision_changes)
    settings = json.loads((folder / "processor_config.json").read_text())["video_processor"]
    edit(folder / "processor_config.json", video_processor=settings | processor_changes)
    # then
    with pytest.raises(UnsupportedModelError, match=message):
        resolve_checkpoint(str(folder))


# --- hostile and absurd checkpoints ---------------------------------------------------------------------------------


def edit_part(folder, part, **changes):
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", **{part: config[part] | changes})


def family_copy(checkpoint_folder, tmp_path, family):
    copy = tmp_path / family
    shutil.copytree(checkpoint_folder(family), copy)
    return copy


SIZES = [
    *(
        (family, part, field)
        for family in SUPPORTED_MODEL_TYPES
        for part, field in (
            ("text_config", "num_hidden_layers"),
            ("text_config", "hidden_size"),
            ("text_config", "vocab_size"),
            ("text_config", "max_position_embeddings"),
            ("vision_config", "depth"),
            ("vision_config", "num_heads"),
        )
    ),
    *((family, "vision_config", "num_position_embeddings") for family in ("qwen3_vl", "qwen3_5")),
    ("qwen3_5", "text_config", "linear_num_value_heads"),
    ("qwen3_5", "text_config", "linear_num_key_heads"),
    ("qwen3_5", "text_config", "linear_key_head_dim"),
    ("qwen3_5", "text_config", "linear_value_head_dim"),
    ("qwen3_5", "text_config", "linear_conv_kernel_dim"),
    ("qwen3_5", "text_config", "full_attention_interval"),
]


@pytest.mark.parametrize(("family", "part", "field"), SIZES)
def test_absurd_size_is_refused(checkpoint_folder, tmp_path, family, part, field):
    folder = family_copy(checkpoint_folder, tmp_path, family)
    for value in (0, -1, 2.0, "2", True, [2], 10**10, 10**30):
        edit_part(folder, part, **{field: value})
        with pytest.raises(UnsupportedModelError, match=rf"^{field} of .* from 1 to \d+, got "):
            resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("family", "part", "field", "values"),
    [
        (
            "qwen3_vl",
            "vision_config",
            "deepstack_visual_indexes",
            ([-1], [1] * 1000, list(range(2000)), 5, ["1"], [2.0]),
        ),
        ("qwen2_5_vl", "vision_config", "fullatt_block_indexes", ([-1], list(range(2000)), "0")),
        ("qwen3_5", "text_config", "layer_types", (["linear_attention"] * 2000, "linear_attention", [1])),
        ("qwen2_vl", "vision_config", "mlp_ratio", (-4, 0, 10**6, "4", True)),
    ],
)
def test_absurd_list_of_layers_or_ratio_is_refused(checkpoint_folder, tmp_path, family, part, field, values):
    folder = family_copy(checkpoint_folder, tmp_path, family)
    for value in values:
        edit_part(folder, part, **{field: value})
        with pytest.raises(UnsupportedModelError, match=f"^{field} of "):
            resolve_checkpoint(str(folder))


@pytest.mark.parametrize("value", [0, -2, "2", float("nan"), float("inf")])
def test_absurd_rate_of_temporal_ids_is_refused(folder, value):
    edit_part(folder, "vision_config", tokens_per_second=value)
    with pytest.raises(UnsupportedModelError, match=r"^tokens_per_second of "):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("families", "part", "sizes"),
    [
        (
            SUPPORTED_MODEL_TYPES,
            "text_config",
            {"num_hidden_layers": 1000, "hidden_size": 8192, "intermediate_size": 20000},
        ),
        (SUPPORTED_MODEL_TYPES, "text_config", {"num_attention_heads": 4096, "head_dim": 16384}),
        (("qwen2_5_vl", "qwen3_vl", "qwen3_5"), "vision_config", {"intermediate_size": 10**6}),
        (("qwen2_5_vl", "qwen3_vl", "qwen3_5"), "vision_config", {"hidden_size": 10**5}),
        (("qwen2_5_vl", "qwen3_vl", "qwen3_5"), "vision_config", {"out_hidden_size": 10**5, "spatial_merge_size": 8}),
        (("qwen2_vl",), "vision_config", {"embed_dim": 10**5}),
        (("qwen3_vl", "qwen3_5"), "vision_config", {"num_position_embeddings": 10**6}),
        (("qwen3_vl",), "vision_config", {"deepstack_visual_indexes": list(range(1000)), "mlp_ratio": 1}),
        (("qwen3_5",), "text_config", {"linear_num_value_heads": 4096, "linear_value_head_dim": 4096}),
        (("qwen3_5",), "text_config", {"linear_num_key_heads": 4096, "linear_key_head_dim": 4096}),
        (
            ("qwen3_5",),
            "text_config",
            {"layer_types": None, "linear_num_value_heads": 4096, "linear_value_head_dim": 4096},
        ),
    ],
    ids=str,
)
def test_sizes_that_the_weight_files_cannot_hold_are_refused(checkpoint_folder, tmp_path, families, part, sizes):
    for family in families:
        folder = family_copy(checkpoint_folder, tmp_path, family)
        edit_part(folder, part, **sizes)
        with pytest.raises(UnsupportedModelError, match=r"describes a model of more than \d+ weights"):
            resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    "size",
    [
        *([0, 112], [-112, 140], [112.0, 140], ["112", 140], [True, 140], [112], [112, 140, 3], 5, {}),
        *([100, 140], [280_000, 280_000], [10**30, 28]),
    ],
    ids=str,
)
def test_frame_size_that_no_memory_can_keep_is_refused(folder, size):
    edit(folder / "config.json", frame_size=size)
    with pytest.raises(UnsupportedModelError, match="frame_size"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"min_pixels": 10**6, "max_pixels": 1000},
        {"min_pixels": -5},
        {"max_pixels": 100},
        {"max_pixels": float("inf")},
        {"patch_size": 0},
        {"merge_size": -2},
    ],
    ids=str,
)
def test_image_sizes_that_no_image_has_are_refused(folder, settings):
    present = json.loads((folder / "processor_config.json").read_text())["video_processor"]
    edit(folder / "processor_config.json", video_processor=present | {"size": None} | settings)
    with pytest.raises(UnsupportedModelError, match=str(folder)):
        resolve_checkpoint(str(folder))


DESCRIPTIONS = ["config.json", "processor_config.json", "generation_config.json"]


@pytest.mark.parametrize("file", DESCRIPTIONS)
def test_deeply_nested_json_is_refused(folder, file):
    (folder / file).write_text('{"a":' * 200_000 + "1" + "}" * 200_000)
    with pytest.raises(UnsupportedModelError, match=f"^{file} of .* nested too deeply"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("file", [*DESCRIPTIONS, "tokenizer.json", "chat_template.jinja"])
def test_description_of_a_gigabyte_is_refused_unread(folder, file):
    os.truncate(folder / file, 10**9)
    with pytest.raises(UnsupportedModelError, match=f"^{file} of .* has 1000000000 bytes"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_pipe_is_refused_unread(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    with pytest.raises(UnsupportedModelError, match=f"^{file} of .* not an ordinary file"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "merges.txt", "chat_template.jinja"])
def test_link_of_a_description_out_of_the_folder_is_refused(folder, tmp_path, file):
    (folder / file).touch()
    (folder / file).rename(tmp_path / file)
    (folder / file).symlink_to(f"../{file}")
    with pytest.raises(UnsupportedModelError, match=f"^{file} of .* is a link to {tmp_path / file}, outside"):
        resolve_checkpoint(str(folder))


def test_link_of_weights_to_another_disk_is_followed(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "large")
    (folder / "model.safetensors").symlink_to(tmp_path / "large")
    assert resolve_checkpoint(str(folder)).path == folder


@pytest.mark.parametrize("target", ["/dev/zero", "/"])
def test_link_of_weights_to_something_else_than_a_file_is_refused(folder, target):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(target)
    with pytest.raises(UnsupportedModelError, match=r"^model\.safetensors of .* not an ordinary file"):
        resolve_checkpoint(str(folder))


def test_links_of_an_older_download_into_the_hubs_cache_are_followed(folder, tmp_path):
    blobs = tmp_path / "cache" / "models--somebody--some-model" / "blobs"
    blobs.mkdir(parents=True)
    for file in ("tokenizer.json", "model.safetensors"):
        (folder / file).rename(blobs / file)
        (folder / file).symlink_to(blobs / file)
    assert resolve_checkpoint(str(folder)).path == folder


@pytest.mark.parametrize("target", ["config.json", "blobs/deeper/config.json", "refs/main"])
def test_link_of_a_snapshot_to_something_else_than_a_blob_is_refused(folder, empty_hub_cache, target):
    snapshot = put_in_cache(empty_hub_cache, "somebody/some-model", folder)
    file = snapshot.parents[1] / target
    file.parent.mkdir(parents=True, exist_ok=True)
    (snapshot / "config.json").rename(file)
    (snapshot / "config.json").symlink_to(file)
    with pytest.raises(UnsupportedModelError, match=r"^config\.json of .* is a link to "):
        resolve_checkpoint(str(snapshot))


def test_additional_chat_template_is_checked(folder, tmp_path):
    # given a link to a file of somebody else
    template = folder / "additional_chat_templates" / "tool.jinja"
    template.parent.mkdir()
    (tmp_path / "secret").write_text("secret")
    template.symlink_to(tmp_path / "secret")
    with pytest.raises(UnsupportedModelError, match=r"^tool\.jinja of .* is a link to "):
        resolve_checkpoint(str(folder))
    # or a gigabyte
    template.unlink()
    template.touch()
    os.truncate(template, 10**9)
    with pytest.raises(UnsupportedModelError, match=r"^tool\.jinja of .* has 1000000000 bytes"):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("file", ["trainer_state.json", "log.txt", "samples.json"])
def test_large_file_that_no_library_reads_is_ignored(folder, file):
    (folder / file).touch()
    os.truncate(folder / file, 10**9)
    assert resolve_checkpoint(str(folder)).path == folder


def test_links_in_a_circle_are_refused(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("special.json")
    (folder / "special.json").symlink_to("config.json")
    with pytest.raises((UnsupportedModelError, ModelNotFoundError), match=r"(config|special)\.json"):
        resolve_checkpoint(str(folder))


def test_links_of_the_hubs_cache_are_followed(folder, empty_hub_cache):
    # given a snapshot as the hub writes it: links into ../../blobs
    snapshot = put_in_cache(empty_hub_cache, "somebody/some-model", folder)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(Path("../../blobs") / str(number))
    # then
    assert resolve_checkpoint("somebody/some-model").path == snapshot
    assert resolve_checkpoint(str(snapshot)).path == snapshot


def shard(folder, *names):
    """Give the weights an index that lists these files; the first one has all weights."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {f"weight.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_index_is_followed(folder):
    shard(folder, "model-00001-of-00001.safetensors")
    assert resolve_checkpoint(str(folder)).path == folder


@pytest.mark.parametrize(
    "name",
    [
        *("../model.safetensors", "/etc/model.safetensors", "a/model.safetensors", "..", ".", "", 5, None, ["a"]),
        *("pytorch_model.bin", "a\0.safetensors", "..\\..\\x"),
    ],
    ids=repr,
)
def test_index_with_a_file_of_another_folder_is_refused(folder, name):
    shard(folder, "model-00001-of-00001.safetensors", name)
    with pytest.raises(UnsupportedModelError, match=r"^model\.safetensors\.index\.json of .* lists "):
        resolve_checkpoint(str(folder))


@pytest.mark.parametrize("content", [{}, {"weight_map": None}, {"weight_map": []}, {"weight_map": {}}])
def test_index_without_files_is_refused(folder, content):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises((ModelNotFoundError, UnsupportedModelError), match=r"model\.safetensors\.index\.json"):
        resolve_checkpoint(str(folder))


def test_missing_shard_is_named(folder):
    shard(folder, "model-00001-of-00001.safetensors", "model-00002-of-00002.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"lacks model-00002-of-00002\.safetensors"):
        resolve_checkpoint(str(folder))


def test_config_without_a_vision_encoder_is_refused(folder):
    edit(folder / "config.json", vision_config=None)
    with pytest.raises(UnsupportedModelError, match="vision_config"):
        resolve_checkpoint(str(folder))


# --- a quick configure transition ------------------------------------------------------------------------------------


def test_resolving_imports_neither_torch_nor_transformers(checkpoint_folder, tmp_path):
    # given
    script = f"""
        import sys
        from delayed_vlm_ros.errors import ModelNotFoundError
        from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
        resolve_checkpoint({str(checkpoint_folder())!r}).geometry(10_000)
        try:
            resolve_checkpoint("somebody/some-model")
        except ModelNotFoundError:
            pass
        print(sorted(sys.modules.keys() & {{"torch", "transformers", "rclpy"}}))
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    # when
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )

    # then
    assert done.stdout.strip() == "[]"
