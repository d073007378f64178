"""Validation of the config fields that adapters need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Sizes that vision encoder and video processor must agree on: the field of each, and transformers' default.
_SHARED_SIZES = (
    ("patch_size", "patch_size", None),
    ("spatial_merge_size", "merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", FRAMES_PER_PAIR),
)
_DEFAULT_PATCH_SIZES = {"qwen2_vl": 14, "qwen2_5_vl": 14, "qwen3_vl": 16, "qwen3_5": 16}

# Positive integers of a config, where they are given, and the largest value: several times that of any known model.
_MAX_VALUES = {
    "depth": 1024,
    "embed_dim": 1 << 17,
    "head_dim": 1 << 14,
    "hidden_size": 1 << 17,
    "in_channels": 1024,
    "in_chans": 1024,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 31,
    "merge_size": 64,
    "num_attention_heads": 4096,
    "num_heads": 4096,
    "num_hidden_layers": 1024,
    "num_key_value_heads": 4096,
    "out_hidden_size": 1 << 17,
    "patch_size": 1024,
    "spatial_merge_size": 64,
    "temporal_patch_size": 1024,
    "vocab_size": 1 << 24,
    "window_size": 1 << 16,
}
_MAX_IDS_PER_SECOND = 1000
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
    vision, text = config.get("vision_config"), config.get("text_config") or config
    for part in (config, text, vision):
        if isinstance(part, Mapping):
            check_values(name, part)
    if not isinstance(text, Mapping):
        raise UnsupportedModelError(f"text_config of {name} is not a JSON object: download it again")
    hidden, layers = text.get("hidden_size") or 0, text.get("num_hidden_layers") or 0
    weights = hidden * ((text.get("vocab_size") or 0) + 3 * layers * (text.get("intermediate_size") or 0))
    if weights > weight_bytes * _WEIGHTS_PER_BYTE:
        raise UnsupportedModelError(
            f"config.json of {name} describes a model of more than {weights} weights, but its files have "
            f"{weight_bytes} bytes: download all its files again"
        )


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
    rate = fields.get("tokens_per_second")
    if rate is not None and not (type(rate) in (int, float) and 0 < rate <= _MAX_IDS_PER_SECOND):
        raise UnsupportedModelError(
            f"tokens_per_second of {name} must be a number up to {_MAX_IDS_PER_SECOND}, got {rate!r:.100}: download "
            "its files again"
        )


def default_patch_size(model_type: str) -> int | None:
    """Return transformers' patch size for files that lack the field, in pixels; None for an unknown model type."""
    return _DEFAULT_PATCH_SIZES.get(model_type)


def check_description(name: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> None:
    """Check, before anything is loaded, that a checkpoint's files are complete and agree with each other.

    Args:
        name: Name of the model, for the error.
        config: Content of its ``config.json``.
        processor: Settings of its video processor.

    Raises:
        UnsupportedModelError: A field is missing or absurd, two fields disagree, or the temporal patch is not a pair of
            frames.
    """
    check_values(name, processor)
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise UnsupportedModelError(f"config.json of {name} has no vision_config: download it again")
    for field, counterpart, general_default in _SHARED_SIZES:
        default = general_default or default_patch_size(str(config.get("model_type")))
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
