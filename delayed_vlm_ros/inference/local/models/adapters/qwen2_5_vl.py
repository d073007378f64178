"""Qwen2.5-VL: most vision layers attend within windows, and time counts ``tokens_per_second`` ids a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.pair_encoder import encode_pairs as encode
from delayed_vlm_ros.inference.local.models.validation import check_fields


def check(config: Any) -> None:
    """See ``Family.check``."""
    needed = ("patch_size", "spatial_merge_size", "temporal_patch_size")
    check_fields(config, *needed, "window_size", "fullatt_block_indexes", "tokens_per_second")


def encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """See ``Family.encode_pairs``."""
    return encode(visual, patches, rows, columns, whole=visual.fullatt_block_indexes)


def pair_times(config: Any, start_stamps: Sequence[float]) -> list[float]:
    """See ``Family.pair_times``."""
    each = float(config.vision_config.tokens_per_second)
    return [each * (stamp - start_stamps[0]) for stamp in start_stamps]
