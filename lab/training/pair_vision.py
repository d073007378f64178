"""Vision encoder on batches of pairs, for training: patches and attention that are fast on a CPU."""

from __future__ import annotations

from typing import Any

import torch

from delayed_vlm_ros.inference.local.models.adapters import pair_encoder

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of Hugging Face's video processor, RGB, 0..1
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def patches_of(frames: torch.Tensor, patch: int = 14, merge: int = 2) -> torch.Tensor:
    """Cut pairs into patches, as Hugging Face's video processor does.

    Args:
        frames: RGB frames of pairs, ``(pairs, 2, H, W, 3)`` uint8.
        patch: Side of a patch in pixels.
        merge: Side of a merged token in patches.

    Returns:
        ``(pairs, patches, patch elements)`` float32; the patches of a merged token are adjacent.
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
    """Return attention computed in single steps: for short sequences on a CPU, training is several times faster.

    Args:
        query: ``(batch, heads, queries, head size)``.
        key: ``(batch, heads, keys, head size)``.
        value: Same shape as ``key``.
        bias: Tensor added to the scores, ``(batch or 1, 1, queries, keys)``.
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    attended: torch.Tensor = scores.softmax(-1).to(value.dtype) @ value
    return attended


def encode_pairs(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the features of pairs, ``(pairs, rows × columns, hidden size)``, equal to those of ``pair_encoder``.

    Args:
        visual: Vision encoder whose layers all attend to the whole pair.
        patches: ``(pairs, patches, patch elements)``.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
    """
    return pair_encoder.encode_pairs(visual, patches, rows, columns, attend=attend)
