"""Explicit rotary positions (M-RoPE) of a prompt ``[text][one video][text]``, from the frames' stamps.

Every token has three ids: temporal, height, width. Text increments all three together. A video token adds its pair's
time, its row and its column to the start of the video. The text after a video continues after the largest id of all
three axes, as the models were trained (Qwen2-VL, section 2.1: "by adding one to the maximum position ID of the
preceding modality"). The library's own ``get_rope_index`` in transformers 5.23 continues after rows and columns only,
so that with many pairs the temporal ids of the video exceed those of the question.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for

# Floor alone is fragile: at 2 Hz, a jitter of 2 ms in the stamps would change half of the ids by one.
_ROUNDING_MARGIN = 0.1


@dataclass(frozen=True, slots=True)
class TemporalIds:
    """Temporal ids of a video's pairs, relative to its start.

    Attributes:
        ids: One id per pair, not decreasing, 0 for the first pair.
        compressed: Whether the pairs span more time than the model was trained on, so that time was scaled down.
    """

    ids: tuple[int, ...]
    compressed: bool


def temporal_ids(config: Any, start_stamps: Sequence[float], limit: int) -> TemporalIds:
    """Return temporal ids for the stamps of the pairs' first frames.

    Args:
        config: Config of the model; its adapter defines the unit of time.
        start_stamps: One stamp per pair in seconds, increasing.
        limit: Largest id allowed, from the range of positions that the model was trained on.

    Raises:
        UnsupportedModelError: The model type is not supported.
    """
    times = adapter_for(config).pair_times(config, start_stamps)
    longest = times[-1] + _ROUNDING_MARGIN
    compressed = longest >= limit + 1
    scale = limit / longest if compressed else 1.0
    return TemporalIds(tuple(math.floor(time * scale + _ROUNDING_MARGIN) for time in times), compressed)


def prompt_positions(
    prefix_length: int, video_ids: Sequence[int], rows: int, columns: int, suffix_length: int
) -> torch.Tensor:
    """Return position ids of the prompt ``[prefix_length text tokens][video][suffix_length text tokens]``.

    Args:
        prefix_length: Text tokens before the video.
        video_ids: Temporal id of each pair, relative to the start of the video.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        suffix_length: Text tokens after the video.

    Returns:
        Tensor of shape (3, 1, prefix_length + pairs × rows × columns + suffix_length), int64.
    """
    before = torch.arange(prefix_length).expand(3, -1)
    temporal, row, column = torch.meshgrid(
        torch.tensor(video_ids, dtype=torch.int64), torch.arange(rows), torch.arange(columns), indexing="ij"
    )
    video = torch.stack([temporal, row, column]).reshape(3, -1) + prefix_length
    after = torch.arange(suffix_length).expand(3, -1) + int(video.max()) + 1
    return torch.cat([before, video, after], dim=1).unsqueeze(1)
