"""Qwen2-VL: every vision layer attends to the whole pair, and time is the pair's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.pair_encoder import encode_pairs as encode
from delayed_vlm_ros.inference.local.models.validation import check_fields


def check(config: Any) -> None:
    """See ``Family.check``."""
    check_fields(config, "patch_size", "spatial_merge_size", "temporal_patch_size")


def encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """See ``Family.encode_pairs``."""
    return encode(visual, patches, rows, columns)


def pair_times(config: Any, start_stamps: Sequence[float]) -> list[float]:
    """See ``Family.pair_times``."""
    del config
    return [float(number) for number in range(len(start_stamps))]
