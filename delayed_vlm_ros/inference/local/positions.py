"""Explicit rotary positions (M-RoPE) of a prompt ``[text][one video][text]``.

Every token has three ids: temporal, height, width. Text increments all three together. A video token adds its pair's
time, its row and its column to the start of the video. The text after a video continues after the largest id of all
three axes, as the models were trained (Qwen2-VL, section 2.1: "by adding one to the maximum position ID of the
preceding modality"). The library's own ``get_rope_index`` in transformers 5.23 continues after rows and columns only,
so that with many pairs the temporal ids of the video exceed those of the question.

Models that are given the time by text have text between the pairs: each pair is a video of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for

# Floor alone is fragile: at 2 Hz, a jitter of 2 ms in the stamps would change half of the ids by one.
_ROUNDING_MARGIN = 0.1

_TRUE_GAP_SHARE = 1 / 8  # of the limit; longer gaps are compressed. Chosen by ``lab bench old-frames``
_GROWTH_SHARE = 1 / 8  # of the longest true gap: added by a gap e times as long
_CHUNK_SHARE = 1 / 4  # of the limit: the oldest pairs move by multiples of it, so rarely


@dataclass(frozen=True, slots=True)
class TemporalIds:
    """Temporal ids of a video's pairs, relative to its start.

    Attributes:
        ids: One id per pair, increasing, 0 for the first pair.
        compressed: Whether some gaps between pairs are so long that the ids show them as shorter.
        rebased: Whether the oldest pairs were moved together, because the ids would have exceeded the limit.
    """

    ids: tuple[int, ...]
    compressed: bool
    rebased: bool


@dataclass(frozen=True, slots=True)
class PairText:
    """Text around the visual tokens of a pair.

    Attributes:
        before: Token ids between the previous pair and this one.
        after: Token ids directly after the pair.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def temporal_ids(config: Any, start_stamps: Sequence[float], limit: int) -> TemporalIds:
    """Return temporal ids for the stamps of the pairs' first frames.

    Ids follow the time between pairs; a gap longer than an eighth of ``limit`` is compressed. Each pair has a larger id
    than the one before. An id depends on earlier pairs only, so a new pair changes no earlier id, and the cached prefix
    stays valid. If ids exceed ``limit`` nevertheless, the oldest pairs are moved together: their order remains, and the
    gaps between the newest pairs. That changes most ids, but only once per quarter of ``limit``. With a model that is
    given the time by text, all ids are 0.

    Args:
        config: Config of the model; its adapter defines the unit of time.
        start_stamps: One stamp per pair in seconds, increasing.
        limit: Largest id allowed, from the range of positions that the model was trained on.

    Raises:
        UnsupportedModelError: The model type is not supported.
    """
    pair_times = adapter_for(config).pair_times
    if pair_times is None:
        return TemporalIds((0,) * len(start_stamps), compressed=False, rebased=False)
    times = pair_times(config, start_stamps)
    longest = max(1.0, limit * _TRUE_GAP_SHARE)
    ids, removed = [0], 0.0
    for earlier, later in pairwise(times):
        removed += later - earlier - _compressed_gap(later - earlier, longest)
        ids.append(max(ids[-1] + 1, math.floor(later - removed + _ROUNDING_MARGIN)))
    return TemporalIds(tuple(_rebased(ids, limit)), compressed=removed > 0.0, rebased=ids[-1] > limit)


def _compressed_gap(gap: float, longest: float) -> float:
    """Return a gap of up to ``longest`` unchanged, and a longer one as a logarithm that continues smoothly."""
    if gap <= longest:
        return gap
    growth = longest * _GROWTH_SHARE
    return longest + growth * math.log1p((gap - longest) / growth)


def _rebased(ids: Sequence[int], limit: int) -> Sequence[int]:
    """Return ids of at most ``limit``: the oldest gaps shrink to one id, or to zero if there are too many pairs."""
    excess = ids[-1] - limit
    if excess <= 0:
        return ids
    gaps = [later - earlier for earlier, later in pairwise(ids)]
    chunk = max(1, int(limit * _CHUNK_SHARE))
    surplus = min(math.ceil(excess / chunk) * chunk, max(excess, sum(gaps) - len(gaps)))
    for smallest in (1, 0):
        for number, gap in enumerate(gaps):
            taken = min(surplus, gap - smallest)
            gaps[number] -= taken
            surplus -= taken
    return (0, *accumulate(gaps))


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


def separate_pair_positions(
    prefix_length: int, pair_texts: Sequence[PairText], rows: int, columns: int, suffix_length: int
) -> torch.Tensor:
    """Return position ids of the prompt ``[prefix_length text tokens][pairs with text][suffix_length text tokens]``.

    Args:
        prefix_length: Text tokens before the first pair.
        pair_texts: Text of each pair.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        suffix_length: Text tokens after the last pair.

    Returns:
        Tensor of shape (3, 1, tokens), int64.
    """
    parts, start = [torch.arange(prefix_length).expand(3, -1)], prefix_length
    one_pair = prompt_positions(0, [0], rows, columns, 0)[:, 0]
    for text in pair_texts:
        before = torch.arange(len(text.before)) + start
        pair = one_pair + start + len(text.before)
        after = torch.arange(len(text.after)) + int(pair.max()) + 1
        parts += [before.expand(3, -1), pair, after.expand(3, -1)]
        start = int(pair.max()) + 1 + len(text.after)
    parts.append((torch.arange(suffix_length) + start).expand(3, -1))
    return torch.cat(parts, dim=1).unsqueeze(1)
