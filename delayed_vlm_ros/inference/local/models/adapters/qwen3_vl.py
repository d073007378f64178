"""Qwen3-VL: time is text; the features of a token have further levels, which early layers add ("DeepStack")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from delayed_vlm_ros.inference.local.models.adapters.registry import ModelAdapter
from delayed_vlm_ros.inference.local.models.adapters.timestamps import encode_as_videos, time_text


def _encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    output = encode_as_videos(visual, patches, rows, columns)
    levels = torch.cat([output.pooler_output, *output.deepstack_features], dim=-1)
    return levels.view(len(patches), rows * columns, -1)


def _video_output(config: Any, features: Sequence[torch.Tensor]) -> BaseModelOutputWithDeepstackFeatures:
    size = int(config.text_config.hidden_size)
    levels: list[Any] = list(zip(*(one.split(size, dim=-1) for one in features), strict=True))
    return BaseModelOutputWithDeepstackFeatures(pooler_output=levels[0], deepstack_features=levels[1:])


ADAPTER = ModelAdapter(
    required_fields=(
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "num_position_embeddings",
        "deepstack_visual_indexes",
    ),
    encode_pairs=_encode_pairs,
    video_output=_video_output,
    time_text=time_text,
)
