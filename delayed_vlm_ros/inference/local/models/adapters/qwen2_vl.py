"""Qwen2-VL: every vision layer attends to the whole pair; a pair's time is its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from delayed_vlm_ros.inference.local.models.adapters.pair_encoder import encode_pairs, single_level_output
from delayed_vlm_ros.inference.local.models.adapters.registry import ModelAdapter


def _pair_times(_config: Any, start_stamps: Sequence[float]) -> list[float]:
    return [float(number) for number in range(len(start_stamps))]


ADAPTER = ModelAdapter(
    required_fields=("patch_size", "spatial_merge_size", "temporal_patch_size"),
    encode_pairs=encode_pairs,
    video_output=single_level_output,
    pair_times=_pair_times,
)
