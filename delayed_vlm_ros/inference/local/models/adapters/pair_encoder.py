"""The vision encoder of Qwen2-VL and Qwen2.5-VL on a batch of pairs, and its output for the language model.

These encoders attend within one pair of frames only, and some layers only within windows of it. Without flash
attention, transformers runs pair after pair and window after window in Python. Here the pairs form a batch, and so do
the windows of each size. The layers are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention over ``(batch, heads, tokens, head size)`` queries, keys and values."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """An order of the merged tokens in which windows of the same size are adjacent.

    Attributes:
        order: Merged tokens, window after window, shape ``(tokens,)``.
        groups: Number of windows and patches per window, for each window size.
    """

    order: torch.Tensor
    groups: tuple[tuple[int, int], ...]


def encode_pairs(
    visual: Any,
    patches: torch.Tensor,
    rows: int,
    columns: int,
    *,
    full_layers: Collection[int] | None = None,
    attend: Attend = scaled_dot_product_attention,
) -> torch.Tensor:
    """Return the features of each pair.

    Args:
        visual: Vision encoder of the model.
        patches: Patches of the pairs, shape ``(pairs, patches, patch elements)``; the patches of a merged token are
            adjacent.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        full_layers: Layers that attend to the whole pair, the others attend within windows; None: all layers.
        attend: Attention function.

    Returns:
        Tensor of shape ``(pairs, rows × columns, hidden size)``.
    """
    pairs, count, _ = patches.shape
    merge = visual.spatial_merge_size
    unit = merge**2
    grid = torch.tensor([[1, rows * merge, columns * merge]])
    windowed = full_layers is not None and any(number not in full_layers for number in range(len(visual.blocks)))
    windows = _windows(visual, grid, unit, patches.device) if windowed else None

    def reordered(values: torch.Tensor) -> torch.Tensor:
        """Return ``(…, patches, size)`` in the order of ``windows``."""
        if windows is None:
            return values
        units: torch.Tensor = values.unflatten(-2, (-1, unit))  # type: ignore[no-untyped-call]  # torch has no types
        return units.index_select(-3, windows.order).flatten(-3, -2)

    hidden = reordered(visual.patch_embed(patches.flatten(0, 1)).view(pairs, count, -1))
    rotary = visual.rotary_pos_emb(hidden, get_vision_position_ids(grid, merge).to(patches.device))
    cosine, sine = (reordered(part) for part in rotary)
    for number, block in enumerate(visual.blocks):
        is_full = windows is None or full_layers is None or number in full_layers
        groups = ((1, count),) if windows is None or is_full else windows.groups
        hidden = hidden + _attention(block.attn, block.norm1(hidden), cosine, sine, groups, attend)
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: torch.Tensor = visual.merger(hidden.flatten(0, 1)).view(pairs, rows * columns, -1)
    return merged if windows is None else merged[:, torch.argsort(windows.order)]


def single_level_output(_config: Any, features: Sequence[torch.Tensor]) -> BaseModelOutputWithPooling:
    """Return the features of pairs for the language model, shape ``(tokens, hidden size)`` each."""
    pairs: Any = tuple(features)
    return BaseModelOutputWithPooling(pooler_output=pairs)


def _attention(
    attention: Any,
    hidden: torch.Tensor,
    cosine: torch.Tensor,
    sine: torch.Tensor,
    groups: tuple[tuple[int, int], ...],
    attend: Attend,
) -> torch.Tensor:
    """Return attention within windows; ``groups`` has the number of windows and patches per window of each size."""
    pairs, count, _ = hidden.shape
    query, key, value = attention.qkv(hidden).view(pairs, count, 3, attention.num_heads, -1).unbind(2)
    query, key = apply_rotary_pos_emb_vision(query, key, cosine, sine)
    mixed, start = [], 0
    for windows, size in groups:
        part = slice(start, start + windows * size)
        start = part.stop
        batched = (
            values[:, part].reshape(pairs * windows, size, *values.shape[2:]).transpose(1, 2)
            for values in (query, key, value)
        )
        mixed.append(attend(*batched).transpose(1, 2).reshape(pairs, windows * size, -1))
    projected: torch.Tensor = attention.proj(torch.cat(mixed, dim=1))
    return projected


def _windows(visual: Any, grid: torch.Tensor, unit: int, device: torch.device) -> _Windows:
    order, ends = get_vision_window_index(
        grid, spatial_merge_size=visual.spatial_merge_size, window_size=visual.window_size, patch_size=visual.patch_size
    )
    sizes = ends.diff().tolist()
    single = order.split([size // unit for size in sizes])
    by_size = sorted(range(len(sizes)), key=lambda number: sizes[number])
    groups = tuple((sizes.count(size), size) for size in sorted(set(sizes)))
    return _Windows(torch.cat([single[number] for number in by_size]).to(device), groups)
