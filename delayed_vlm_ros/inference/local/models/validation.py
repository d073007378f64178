"""What every adapter needs of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Sizes that the library's vision encoders and video processors share: the names of each, and what is usual.
_SHARED_SIZES = (
    ("patch_size", "patch_size", 14),
    ("spatial_merge_size", "merge_size", 2),
    ("temporal_patch_size", "temporal_patch_size", FRAMES_PER_PAIR),
)


def check_description(name: str, config: Mapping[str, Any], processor: Mapping[str, Any]) -> None:
    """See, before anything is loaded, whether a checkpoint's files say what every adapter needs, and agree.

    Args:
        name: The model, for the error.
        config: Its ``config.json``.
        processor: Its video processor's settings.

    Raises:
        UnsupportedModelError: They do not.
    """
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise UnsupportedModelError(f"config.json of {name} has no vision_config: fetch it again")
    for field, counterpart, usual in _SHARED_SIZES:
        wanted, given = vision.get(field, usual), processor.get(counterpart, usual)
        if wanted is None or given is None:
            where = f"vision_config lacks {field}" if wanted is None else f"video processor lacks {counterpart}"
            raise UnsupportedModelError(f"the {where} in the files of {name}: fetch them again")
        if wanted != given:
            raise UnsupportedModelError(
                f"the vision encoder of {name} has a {field} of {wanted}, but its video processor a {counterpart} of "
                f"{given}: fetch both again, from one place"
            )
    if vision.get("temporal_patch_size", FRAMES_PER_PAIR) != FRAMES_PER_PAIR:
        raise UnsupportedModelError(
            f"the temporal patch of {name} has {vision['temporal_patch_size']} frames; this memory keeps pairs of "
            f"{FRAMES_PER_PAIR}"
        )


def check_fields(config: Any, *names: str) -> None:
    """See whether the vision config has some fields, and whether its temporal patch is a pair of frames.

    Raises:
        UnsupportedModelError: A field is missing, or the patch is not.
    """
    vision = getattr(config, "vision_config", None)
    missing = [name for name in names if getattr(vision, name, None) is None]
    if missing:
        raise UnsupportedModelError(
            f"the vision_config of this {config.model_type} model lacks {', '.join(missing)}: fetch its files again"
        )
    if vision is not None and int(vision.temporal_patch_size) != FRAMES_PER_PAIR:
        raise UnsupportedModelError(
            f"this model's temporal patch has {vision.temporal_patch_size} frames; this memory keeps pairs of "
            f"{FRAMES_PER_PAIR}"
        )
