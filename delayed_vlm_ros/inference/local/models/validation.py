"""Validation of the config fields that adapters need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.models.layer_types import RECURRENT_LAYER, layer_types
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Sizes that vision encoder and video processor must agree on: the field of each, and transformers' default.
_SHARED_SIZES = (
    ("patch_size", "patch_size", None),
    ("spatial_merge_size", "merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", FRAMES_PER_PAIR),
)

# Positive integers of a config, where they are given, and the largest value: several times that of any known model.
_MAX_VALUES = {
    "depth": 1024,
    "embed_dim": 1 << 17,
    "full_attention_interval": 1024,
    "head_dim": 1 << 14,
    "hidden_size": 1 << 17,
    "in_channels": 1024,
    "in_chans": 1024,
    "intermediate_size": 1 << 20,
    "linear_conv_kernel_dim": 1024,
    "linear_key_head_dim": 1 << 14,
    "linear_num_key_heads": 4096,
    "linear_num_value_heads": 4096,
    "linear_value_head_dim": 1 << 14,
    "max_position_embeddings": 1 << 31,
    "merge_size": 64,
    "num_attention_heads": 4096,
    "num_heads": 4096,
    "num_hidden_layers": 1024,
    "num_key_value_heads": 4096,
    "num_position_embeddings": 1 << 20,
    "out_hidden_size": 1 << 17,
    "patch_size": 1024,
    "spatial_merge_size": 64,
    "temporal_patch_size": 1024,
    "vocab_size": 1 << 24,
    "window_size": 1 << 16,
}
_MAX_RATES = {"mlp_ratio": 64, "tokens_per_second": 1000}
# Lists with an entry for some or all layers, and whether the entries are numbers of layers.
_LAYER_LISTS = {"deepstack_visual_indexes": True, "fullatt_block_indexes": True, "layer_types": False}
_MAX_LAYERS = _MAX_VALUES["num_hidden_layers"]
_WEIGHTS_PER_BYTE = 8  # a quantised weight has at least one bit


def check_size(name: str, config: Mapping[str, Any], weight_bytes: int) -> None:
    """Check, before the model is allocated, that its config describes no larger one than its weight files hold.

    Args:
        name: Name of the model, for the error.
        config: Content of its ``config.json``.
        weight_bytes: Bytes of the weight files.

    Raises:
        UnsupportedModelError: A field is no positive integer or absurdly large, or the files are too small.
    """
    text = config.get("text_config") or config
    for part in (config, text, config.get("vision_config")):
        if isinstance(part, Mapping):
            check_values(name, part)
    if not isinstance(text, Mapping):
        raise UnsupportedModelError(f"text_config of {name} is not a JSON object: download it again")
    weights = _text_weights(text) + _vision_weights(_vision_config(name, config), str(config.get("model_type")))
    if weights > weight_bytes * _WEIGHTS_PER_BYTE:
        raise UnsupportedModelError(
            f"config.json of {name} describes a model of more than {weights} weights, but its files have "
            f"{weight_bytes} bytes: download all its files again"
        )


def _vision_config(name: str, config: Mapping[str, Any]) -> Mapping[str, Any]:
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise UnsupportedModelError(f"config.json of {name} has no vision_config: download it again")
    return vision


def _text_weights(text: Mapping[str, Any]) -> int:
    """Return a lower bound of the weights of a language model, whose sizes were checked."""
    hidden, layers = text.get("hidden_size") or 0, text.get("num_hidden_layers") or 0
    types = layer_types({**text, "num_hidden_layers": layers})
    linear = types.count(RECURRENT_LAYER)
    keys = (text.get("linear_num_key_heads") or 1) * (text.get("linear_key_head_dim") or 1)
    values = (text.get("linear_num_value_heads") or 1) * (text.get("linear_value_head_dim") or 1)
    heads = (text.get("num_attention_heads") or 1) * (text.get("head_dim") or 1)
    weights = hidden * ((text.get("vocab_size") or 0) + 3 * layers * (text.get("intermediate_size") or 0))
    weights += 2 * hidden * heads * (len(types) - linear)
    return weights + linear * (2 * keys + values) * (hidden + (text.get("linear_conv_kernel_dim") or 0))


def _vision_weights(vision: Mapping[str, Any], model_type: str) -> int:
    """Return a lower bound of the weights of a vision encoder, whose sizes were checked."""
    depth = max(vision.get("depth") or 0, vision.get("num_hidden_layers") or 0)
    if model_type == "qwen2_vl":
        width, output = vision.get("embed_dim") or 0, vision.get("hidden_size") or 0
        inner = int(width * (vision.get("mlp_ratio") or 1))
    else:
        width, output = vision.get("hidden_size") or 0, vision.get("out_hidden_size") or 0
        inner = vision.get("intermediate_size") or 0
    merged = width * (vision.get("spatial_merge_size") or 1) ** 2
    mergers = 1 + len(vision.get("deepstack_visual_indexes") or ())
    weights = depth * width * (4 * width + 2 * inner) + mergers * merged * (merged + output)
    patch = (vision.get("patch_size") or 1) ** 2 * (vision.get("in_channels") or 1) * FRAMES_PER_PAIR
    return weights + width * (patch + (vision.get("num_position_embeddings") or 0))


def check_values(name: str, fields: Mapping[str, Any]) -> None:
    """Check the sizes among the fields of a config.

    Args:
        name: Name of the model, for the error.
        fields: Fields of the config or of a part of it; others than sizes are not checked.

    Raises:
        UnsupportedModelError: A size is no positive integer, or absurdly large.
    """
    for field, largest in _MAX_VALUES.items():
        value = fields.get(field)
        if value is not None and not (type(value) is int and 0 < value <= largest):
            raise UnsupportedModelError(
                f"{field} of {name} must be an integer from 1 to {largest}, got {value!r:.100}: download it again"
            )
    for field, largest in _MAX_RATES.items():
        rate = fields.get(field)
        if rate is not None and not (type(rate) in (int, float) and 0 < rate <= largest):
            raise UnsupportedModelError(
                f"{field} of {name} must be a number up to {largest}, got {rate!r:.100}: download its files again"
            )
    for field, are_numbers in _LAYER_LISTS.items():
        layers = fields.get(field)
        if layers is not None and not _is_layer_list(layers, int if are_numbers else str):
            raise UnsupportedModelError(
                f"{field} of {name} must be a list for at most {_MAX_LAYERS} layers, got {layers!r:.100}: download its "
                "files again"
            )


def _is_layer_list(layers: Any, kind: type) -> bool:
    if not isinstance(layers, list) or len(layers) > _MAX_LAYERS or any(type(layer) is not kind for layer in layers):
        return False
    return kind is str or (all(0 <= layer < _MAX_LAYERS for layer in layers) and len(set(layers)) == len(layers))


def check_description(
    name: str, config: Mapping[str, Any], processor: Mapping[str, Any], default_patch_size: int
) -> None:
    """Check, before anything is loaded, that a checkpoint's files are complete and agree with each other.

    Args:
        name: Name of the model, for the error.
        config: Content of its ``config.json``.
        processor: Settings of its video processor.
        default_patch_size: Patch size for files that lack the field, in pixels.

    Raises:
        UnsupportedModelError: A field is missing or absurd, two fields disagree, or the temporal patch is not a pair of
            frames.
    """
    check_values(name, processor)
    vision = _vision_config(name, config)
    for field, counterpart, general_default in _SHARED_SIZES:
        default = general_default or default_patch_size
        expected, actual = vision.get(field, default), processor.get(counterpart, default)
        if expected is None or actual is None:
            where = f"vision_config lacks {field}" if expected is None else f"video processor lacks {counterpart}"
            raise UnsupportedModelError(f"the {where} in the files of {name}: download them again")
        if expected != actual:
            raise UnsupportedModelError(
                f"the vision encoder of {name} has {field} {expected}, but its video processor has {counterpart} "
                f"{actual}: download both from the same source"
            )
    if vision.get("temporal_patch_size", FRAMES_PER_PAIR) != FRAMES_PER_PAIR:
        raise UnsupportedModelError(
            f"cannot use {name}: its temporal patch has {vision['temporal_patch_size']} frames, this memory keeps "
            f"pairs of {FRAMES_PER_PAIR}"
        )


def check_fields(config: Any, *names: str) -> None:
    """Check that the vision config has all fields, and that its temporal patch is a pair of frames.

    Raises:
        UnsupportedModelError: A field is missing, or the temporal patch is not a pair of frames.
    """
    vision = getattr(config, "vision_config", None)
    missing = [name for name in names if getattr(vision, name, None) is None]
    if missing:
        raise UnsupportedModelError(
            f"the vision_config of this {config.model_type} model lacks {', '.join(missing)}: download its files again"
        )
    if vision is not None and int(vision.temporal_patch_size) != FRAMES_PER_PAIR:
        raise UnsupportedModelError(
            f"cannot use this model: its temporal patch has {vision.temporal_patch_size} frames, this memory keeps "
            f"pairs of {FRAMES_PER_PAIR}"
        )
