"""The vision encoder on many pairs at once, for training.

Qwen2.5-VL's encoder attends within one pair of frames only. The library runs the pairs one after the other in Python;
here they are a batch. It gives the same features (a test compares), where all blocks attend to the whole picture.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision, get_vision_position_ids

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the library's video processor, RGB, 0..1
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def patches_of(frames: torch.Tensor, patch: int = 14, merge: int = 2) -> torch.Tensor:
    """Cut pairs into patches as the library's video processor does.

    Args:
        frames: ``(pairs, 2, H, W, 3)`` uint8, RGB.
        patch: Side of a patch in pixels.
        merge: Side of a merged token in patches.

    Returns:
        ``(pairs, patches, patch elements)`` float32, the patches of a merged token together.
    """
    pairs, _, height, width, _ = frames.shape
    scaled = frames.float() * (1.0 / (255.0 * torch.tensor(_DEVIATION))) - torch.tensor(_MEAN) / torch.tensor(
        _DEVIATION
    )
    rows, columns = height // patch // merge, width // patch // merge
    cut = scaled.reshape(pairs, 2, rows, merge, patch, columns, merge, patch, 3)
    ordered = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(pairs, rows * columns * merge * merge, 3 * 2 * patch * patch)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention in plain steps: for short sequences on a CPU, in training, several times faster than the fused one.

    Args:
        query: ``(batch, heads, queries, head size)``.
        key: ``(batch, heads, keys, head size)``.
        value: As ``key``.
        bias: Added to the scores, ``(batch or 1, 1, queries, keys)``.
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1).to(value.dtype) @ value


def encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Features of pairs.

    Args:
        visual: The model's vision encoder.
        patches: ``(pairs, patches, patch elements)``.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.

    Returns:
        ``(pairs, rows × columns, hidden size)``.
    """
    pairs, count, _ = patches.shape
    merge = visual.spatial_merge_size
    grid = torch.tensor([[1, rows * merge, columns * merge]])
    hidden = visual.patch_embed(patches.flatten(0, 1))
    hidden = hidden.view(pairs, count, -1)
    cosine, sine = visual.rotary_pos_emb(hidden, get_vision_position_ids(grid, merge))
    for block in visual.blocks:
        attention = block.attn
        joined = attention.qkv(block.norm1(hidden)).view(pairs, count, 3, attention.num_heads, attention.head_dim)
        query, key, value = joined.unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, cosine, sine)
        mixed = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(pairs, count, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged: torch.Tensor = visual.merger(hidden.flatten(0, 1))
    return merged.view(pairs, rows * columns, -1)
