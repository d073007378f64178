"""Checkpoints as they lie on the model hub, at a tiny size: files, names and fields of each release."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    TorchAoConfig,
)

from delayed_vlm_ros.benchmark.random_checkpoint import save_random_checkpoint

INDEX = "model.safetensors.index.json"
# No library default: a field that gets lost on the way changes the answers.
_TEXT = {"rms_norm_eps": 3e-5, "max_position_embeddings": 20480}
_ROPE_THETA = 300_000.0
_VISION = {"qwen2_5_vl": {"tokens_per_second": 3, "window_size": 56}}
_SHORTEST, _LONGEST = 3, 20  # merged tokens of an image
_COLOURS = [0.4, 0.5, 0.6], [0.3, 0.25, 0.2]  # mean and deviation
_PATCH_FIELDS = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")


def save_reference(folder: Path, family: str, *, tied: bool) -> None:
    """Write a tiny checkpoint in bfloat16, as the installed library saves it, with few default values.

    Args:
        folder: Target folder; it must exist.
        family: Model type.
        tied: Whether the embeddings are also the output weights.
    """
    save_random_checkpoint(folder, model_type=family, seed=7)
    config = AutoConfig.from_pretrained(folder).to_dict()
    config["text_config"] |= _TEXT
    config["text_config"]["rope_parameters"]["rope_theta"] = _ROPE_THETA
    config["vision_config"] |= _VISION.get(family, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(**config | {"tie_word_embeddings": tied}), dtype=torch.bfloat16
        )
    generation = (folder / "generation_config.json").read_text()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(generation)
    processor = AutoProcessor.from_pretrained(folder)
    factor = processor.video_processor.patch_size * processor.video_processor.merge_size
    size = {"shortest_edge": _SHORTEST * factor**2, "longest_edge": _LONGEST * factor**2}
    for part in (processor.image_processor, processor.video_processor):
        part.size = size
        part.image_mean, part.image_std = _COLOURS
    processor.save_pretrained(folder)


# --- parts of a layout ----------------------------------------------------------------------------------------------


def read(folder: Path, file: str) -> dict[str, Any]:
    return json.loads((folder / file).read_text())


def write(folder: Path, file: str, content: Any) -> None:
    (folder / file).write_text(json.dumps(content, indent=2))


def edit(folder: Path, file: str, **changes: Any) -> None:
    """Change fields of a JSON file, which is made if it does not exist."""
    write(folder, file, (read(folder, file) if (folder / file).is_file() else {}) | changes)


def flat_config(folder: Path) -> None:
    """Write the config of 2024: the language model's fields at the top level, with the old names of rotary ones."""
    config = read(folder, "config.json")
    text, vision = config.pop("text_config"), config.pop("vision_config")
    rope = text.pop("rope_parameters")
    for field in ("layer_types", "dtype", "model_type", "pad_token_id"):
        text.pop(field, None)
    vision |= {"in_chans": vision.pop("in_channels"), "spatial_patch_size": vision["patch_size"]}
    for field in ("dtype", "rope_parameters", "initializer_range"):
        vision.pop(field, None)
    if config["model_type"] == "qwen2_vl":
        vision["model_type"] = "qwen2_vl"
    else:
        vision.pop("model_type")
    config |= text | {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "sliding_window": 32768,
        "torch_dtype": config.pop("dtype"),
        "transformers_version": "4.41.2",
        "vision_config": vision,
    }
    write(folder, "config.json", config)


def config_of_4_57(folder: Path) -> None:
    """Write the config of late 2025: rotary fields by their old names in ``text_config``, some fields twice."""
    config = read(folder, "config.json")
    text, vision = config["text_config"], config["vision_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    text["rope_scaling"] = rope
    vision.pop("rope_parameters", None)
    family = config["model_type"]
    vision["model_type"] = family
    text["tie_word_embeddings"] = config["tie_word_embeddings"]
    if family.startswith("qwen2"):
        rope["type"] = rope["rope_type"]
        copied = ("hidden_size", "num_hidden_layers", "vocab_size", "rope_theta", "rope_scaling", "rms_norm_eps")
        config |= {field: text[field] for field in copied}
    config["transformers_version"] = "4.57.1"
    write(folder, "config.json", config)


def config_of_qwen3_5(folder: Path) -> None:
    """Write the config of Qwen3.5 as published, with fields of a part that predicts further tokens."""
    config = read(folder, "config.json")
    config["text_config"] |= {
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "tie_word_embeddings": config["tie_word_embeddings"],
    }
    config["vision_config"] |= {"deepstack_visual_indexes": [], "model_type": "qwen3_5"}
    config["vision_config"].pop("rope_parameters", None)
    config.pop("dtype")
    config["transformers_version"] = "4.57.0.dev0"
    write(folder, "config.json", config)


def rename_weights(folder: Path, *pairs: tuple[str, str]) -> None:
    """Replace prefixes of weight names; of several, the first that fits."""
    file = folder / "model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        old, new = next((pair for pair in pairs if name.startswith(pair[0])), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor
    save_file(renamed, file, metadata={"format": "pt"})


def names_of_2024(folder: Path) -> None:
    rename_weights(folder, ("model.language_model.", "model."), ("model.visual.", "visual."))


def names_of_2025(folder: Path) -> None:
    rename_weights(
        folder,
        *((name, name) for name in ("model.language_model.", "model.visual.")),
        ("model.", "model.language_model."),
        ("visual.", "model.visual."),
    )


def add_token_predictor(folder: Path) -> None:
    """Add the weights of Qwen3.5's ``mtp`` part, which transformers does not use."""
    file = folder / "model.safetensors"
    surplus = {f"mtp.{name}.weight": torch.ones(8, 8) for name in ("fc", "norm", "layers.0.self_attn.q_proj")}
    save_file(load_file(file) | surplus, file, metadata={"format": "pt"})


def split_weights(folder: Path, shards: int = 3) -> None:
    """Divide the weights among several files with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {key: weights[key] for key in sorted(weights)[number::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in weights.values())
    write(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def split_processor(folder: Path, image_type: str, *, video_type: str = "", min_pixels: bool = False) -> None:
    """Write the processor's settings to a file for images, and to one for videos if it has a type.

    Args:
        folder: Folder of the checkpoint.
        image_type: Name of the image processor.
        video_type: Name of the video processor; empty: no file.
        min_pixels: Whether limits are called ``min_pixels`` and ``max_pixels``.
    """
    settings = read(folder, "processor_config.json")
    (folder / "processor_config.json").unlink()
    for part, file, kind in (
        ("image_processor", "preprocessor_config.json", {"image_processor_type": image_type}),
        ("video_processor", "video_preprocessor_config.json", {"video_processor_type": video_type}),
    ):
        if not all(kind.values()):
            continue
        size = settings[part]["size"]
        limits = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]} if min_pixels else {}
        fields = {field: settings[part][field] for field in _PATCH_FIELDS}
        sizes = limits or {"size": size}
        write(folder, file, kind | fields | sizes | {"processor_class": settings["processor_class"]})


def published_tokenizer(folder: Path, *, template: bool) -> None:
    """Write the files of ``Qwen2Tokenizer``, as all four families publish them.

    Args:
        folder: Folder of the checkpoint.
        template: Whether ``tokenizer_config.json`` has the chat template.
    """
    tokenizer = read(folder, "tokenizer.json")
    write(folder, "vocab.json", tokenizer["model"]["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {str(token.pop("id")): token for token in tokenizer["added_tokens"]}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [token["content"] for token in added.values()],
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    if template:
        config["chat_template"] = (folder / "chat_template.jinja").read_text()
    write(folder, "tokenizer_config.json", config)


def template_as_json(folder: Path) -> None:
    template = folder / "chat_template.jinja"
    write(folder, "chat_template.json", {"chat_template": template.read_text()})
    template.unlink()


def no_template_file(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


# --- layouts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """A set of files that lies on the hub.

    Attributes:
        family: Model type.
        tied: Whether the embeddings are also the output weights.
        rewrite: Turns the files of ``save_reference`` into the layout.
    """

    family: str
    tied: bool
    rewrite: Callable[[Path], None]


def _qwen2_vl_of_2024(folder: Path) -> None:
    flat_config(folder)
    names_of_2024(folder)
    split_weights(folder)
    split_processor(folder, "Qwen2VLImageProcessor", min_pixels=True)
    published_tokenizer(folder, template=True)
    template_as_json(folder)


def _qwen2_5_vl_of_january_2025(folder: Path) -> None:
    flat_config(folder)
    names_of_2024(folder)
    split_weights(folder)
    split_processor(folder, "Qwen2_5_VLImageProcessor", min_pixels=True)
    published_tokenizer(folder, template=True)
    no_template_file(folder)


def _qwen2_5_vl(folder: Path) -> None:
    flat_config(folder)
    names_of_2024(folder)
    split_processor(folder, "Qwen2VLImageProcessor", min_pixels=True)
    published_tokenizer(folder, template=False)
    template_as_json(folder)


def _fine_tuned_by_4_57(folder: Path) -> None:
    config_of_4_57(folder)
    names_of_2024(folder)
    split_processor(folder, "Qwen2VLImageProcessorFast", video_type="Qwen2VLVideoProcessor")
    published_tokenizer(folder, template=False)


def _fine_tuned_with_module_names(folder: Path) -> None:
    _fine_tuned_by_4_57(folder)
    names_of_2025(folder)


def _qwen3_vl(folder: Path) -> None:
    config_of_4_57(folder)
    split_weights(folder)
    split_processor(folder, "Qwen2VLImageProcessorFast", video_type="Qwen3VLVideoProcessor")
    published_tokenizer(folder, template=True)
    template_as_json(folder)


def _qwen3_vl_without_video_settings(folder: Path) -> None:
    config_of_4_57(folder)
    split_processor(folder, "Qwen2VLImageProcessorFast")
    published_tokenizer(folder, template=True)
    no_template_file(folder)


def _qwen3_5(folder: Path) -> None:
    config_of_qwen3_5(folder)
    add_token_predictor(folder)
    split_weights(folder)
    split_processor(folder, "Qwen2VLImageProcessorFast", video_type="Qwen3VLVideoProcessor")
    published_tokenizer(folder, template=True)


def _as_saved_today(_folder: Path) -> None:
    pass


LAYOUTS = {
    "qwen2-vl-2b (2024, tied)": Layout("qwen2_vl", True, _qwen2_vl_of_2024),
    "qwen2-vl-7b (2024)": Layout("qwen2_vl", False, _qwen2_vl_of_2024),
    "qwen2.5-vl-3b (January 2025, tied)": Layout("qwen2_5_vl", True, _qwen2_5_vl_of_january_2025),
    "qwen2.5-vl-7b": Layout("qwen2_5_vl", False, _qwen2_5_vl),
    "qwen2-vl fine-tuned by 4.57": Layout("qwen2_vl", False, _fine_tuned_by_4_57),
    "qwen2.5-vl fine-tuned by 4.57": Layout("qwen2_5_vl", True, _fine_tuned_by_4_57),
    "qwen2.5-vl fine-tuned, module names": Layout("qwen2_5_vl", False, _fine_tuned_with_module_names),
    "qwen3-vl-2b, -4b (tied)": Layout("qwen3_vl", True, _qwen3_vl),
    "qwen3-vl-8b": Layout("qwen3_vl", False, _qwen3_vl),
    "qwen3-vl without video settings": Layout("qwen3_vl", True, _qwen3_vl_without_video_settings),
    "qwen3.5-0.8b to -4b (tied)": Layout("qwen3_5", True, _qwen3_5),
    "qwen3.5-9b": Layout("qwen3_5", False, _qwen3_5),
    "qwen3.5, processor files of 5.x": Layout("qwen3_5", True, config_of_qwen3_5),
    "qwen3-vl saved by 5.x": Layout("qwen3_vl", False, _as_saved_today),
}
"""Layouts by the checkpoints that have them."""


# --- quantised weights ----------------------------------------------------------------------------------------------

_NOT_QUANTISED = ["lm_head", "visual", "model.visual"]
_FP8_MAX = 448
_FP8_BLOCK = 128
_INT4_MAX, _INT4_GROUP = 7, 32


def quantise(folder: Path, method: str) -> int:
    """Quantise the linear layers of the language model, as files on the hub are.

    Args:
        folder: Folder of a checkpoint, which is changed.
        method: ``fp8``, or a method whose package is installed.

    Returns:
        Number of quantised weights; 0 if the package counts them.
    """
    if method == "fp8":
        return _quantise_to_fp8(folder)
    if method == "compressed-tensors":
        _quantise_to_packed_int4(folder)
    else:
        _quantise_by_transformers(folder, method)
    return 0


def _quantise_to_fp8(folder: Path) -> int:
    """Write weights as Qwen's FP8 checkpoints have them: a scale for each block of 128 × 128."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    linear = [name for name in weights if ".layers." in name and "_proj" in name and name.endswith(".weight")]
    for name in linear:
        weight = weights[name].float()
        scale = weight.abs().max() / _FP8_MAX
        blocks = [-(-size // _FP8_BLOCK) for size in weight.shape]
        weights[name] = (weight / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scale.expand(blocks).contiguous()
    save_file(weights, file, metadata={"format": "pt"})
    settings = {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "modules_to_not_convert": _NOT_QUANTISED,
        "quant_method": "fp8",
        "weight_block_size": [_FP8_BLOCK, _FP8_BLOCK],
    }
    edit(folder, "config.json", quantization_config=settings)
    return len(linear)


def _quantise_to_packed_int4(folder: Path) -> None:
    from compressed_tensors.compressors import ModelCompressor  # noqa: PLC0415  not a dependency
    from compressed_tensors.quantization import (  # noqa: PLC0415
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    arguments = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=_INT4_GROUP)
    settings = QuantizationConfig(
        config_groups={"group_0": QuantizationScheme(targets=["Linear"], weights=arguments)},
        ignore=["lm_head", "re:.*visual.*"],
        format="pack-quantized",
        quantization_status="compressed",
    )
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16)
    apply_quantization_config(model, settings)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            groups = module.weight.data.float().unflatten(1, (-1, _INT4_GROUP))
            module.weight_scale.data = (groups.abs().amax(-1) / _INT4_MAX).to(module.weight_scale.dtype)
    compressor = ModelCompressor(quantization_config=settings)
    compressor.compress_model(model)
    config = read(folder, "config.json")
    model.save_pretrained(folder)
    write(folder, "config.json", config)
    compressor.update_config(str(folder))


def _quantise_by_transformers(folder: Path, method: str) -> None:
    if method == "bitsandbytes":
        settings: Any = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    else:
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415  not a dependency

        settings = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=_NOT_QUANTISED)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, quantization_config=settings, dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
