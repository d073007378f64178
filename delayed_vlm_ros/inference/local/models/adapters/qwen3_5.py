"""Qwen3.5: time is text; most layers of the language model have a recurrent state instead of keys and values."""

from __future__ import annotations

from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.pair_encoder import single_level_output
from delayed_vlm_ros.inference.local.models.adapters.registry import ModelAdapter
from delayed_vlm_ros.inference.local.models.adapters.timestamps import encode_as_videos, time_text


def _encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    features: torch.Tensor = encode_as_videos(visual, patches, rows, columns).pooler_output
    return features.view(len(patches), rows * columns, -1)


ADAPTER = ModelAdapter(
    required_fields=("patch_size", "spatial_merge_size", "temporal_patch_size", "num_position_embeddings"),
    encode_pairs=_encode_pairs,
    video_output=single_level_output,
    time_text=time_text,
)
