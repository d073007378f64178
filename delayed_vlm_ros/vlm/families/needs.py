"""What every adapter needs of a config."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError

FRAMES_OF_A_PAIR = 2


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
    if vision is not None and int(vision.temporal_patch_size) != FRAMES_OF_A_PAIR:
        raise UnsupportedModelError(
            f"this model's temporal patch has {vision.temporal_patch_size} frames; this memory keeps pairs of "
            f"{FRAMES_OF_A_PAIR}"
        )
