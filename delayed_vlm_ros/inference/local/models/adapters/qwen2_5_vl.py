"""Qwen2.5-VL: most vision layers attend within windows; time counts ``tokens_per_second`` ids per second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.pair_encoder import encode_pairs, single_level_output
from delayed_vlm_ros.inference.local.models.adapters.registry import ModelAdapter


def _encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return encode_pairs(visual, patches, rows, columns, full_layers=visual.fullatt_block_indexes)


def _pair_times(config: Any, start_stamps: Sequence[float]) -> list[float]:
    ids_per_sec = float(config.vision_config.tokens_per_second)
    return [ids_per_sec * (stamp - start_stamps[0]) for stamp in start_stamps]


ADAPTER = ModelAdapter(
    required_fields=(
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "window_size",
        "fullatt_block_indexes",
        "tokens_per_second",
    ),
    encode_pairs=_encode_pairs,
    video_output=single_level_output,
    pair_times=_pair_times,
)
