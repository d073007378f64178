"""Explicit rotary positions (M-RoPE) of a prompt ``[text][one video][text]``, from the frames' true time stamps.

Every token has three ids: temporal, height, width. Text counts all three up together. A video's token has, on top of
the video's start, its pair's time, its row and its column. The text behind a video continues after the largest of all
three axes, as the models were trained (Qwen2-VL, section 2.1: "by adding one to the maximum position ID of the
preceding modality"); the library's own ``get_rope_index`` in transformers 5.23 continues after rows and columns only,
so that with many pairs the video's temporal ids overrun the question's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters import adapter_of

# A bare floor is fragile: at 2 Hz, 2 ms of jitter in the stamps would move half of the ids by one.
_SNAP = 0.1


@dataclass(frozen=True, slots=True)
class TemporalIds:
    """Temporal ids of a video's pairs, relative to its start.

    Attributes:
        ids: One for each pair, not decreasing, the first is 0.
        compressed: True when the pairs span more than the model was trained on and time had to be squeezed.
    """

    ids: tuple[int, ...]
    compressed: bool


def temporal_ids(config: Any, start_stamps: Sequence[float], limit: int) -> TemporalIds:
    """Temporal ids from the stamps of the pairs' first frames.

    Args:
        config: The model's config; its family says how time is counted.
        start_stamps: Seconds, increasing, one for each pair.
        limit: Largest id allowed, from the range of positions that the model was trained on.

    Raises:
        UnsupportedModelError: The family is not supported.
    """
    times = adapter_of(config).pair_times(config, start_stamps)
    longest = times[-1] + _SNAP
    compressed = longest >= limit + 1
    scale = limit / longest if compressed else 1.0
    return TemporalIds(tuple(math.floor(time * scale + _SNAP) for time in times), compressed)


def prompt_positions(
    prefix_length: int, video_ids: Sequence[int], rows: int, columns: int, suffix_length: int
) -> torch.Tensor:
    """Position ids of the prompt ``[prefix_length text tokens][video][suffix_length text tokens]``.

    Args:
        prefix_length: Text tokens before the video.
        video_ids: Temporal id of each pair, relative to the video's start.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        suffix_length: Text tokens behind the video.

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
