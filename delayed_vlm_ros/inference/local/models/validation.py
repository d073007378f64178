"""Validation of the config fields that adapters need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Sizes that vision encoder and video processor must agree on: the field of each, and transformers' default.
_SHARED_SIZES = (
    ("patch_size", "patch_size", 14),
    ("spatial_merge_size", "merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", FRAMES_PER_PAIR),
)


def check_description(name: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> None:
    """Check, before anything is loaded, that a checkpoint's files are complete and agree with each other.

    Args:
        name: Name of the model, for the error.
        config: Content of its ``config.json``.
        processor: Settings of its video processor.

    Raises:
        UnsupportedModelError: A field is missing, two fields disagree, or the temporal patch is not a pair of frames.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise UnsupportedModelError(f"config.json of {name} has no vision_config: download it again")
    for field, counterpart, default in _SHARED_SIZES:
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
