"""Patches of pairs for the vision encoder, cut in one step for a batch."""

from __future__ import annotations

from typing import Any

import torch


def patches_of(frames: torch.Tensor, processor: Any) -> torch.Tensor:
    """Cut pairs into patches, as Hugging Face's video processor does.

    Args:
        frames: RGB frames of pairs, ``(pairs, 2, H, W, 3)`` uint8.
        processor: The model's processor.

    Returns:
        ``(pairs, patches, patch elements)`` float32; the patches of a merged token are adjacent.
    """
    video = processor.video_processor
    patch, merge = video.patch_size, video.merge_size
    mean, deviation = torch.tensor(video.image_mean), torch.tensor(video.image_std)
    pairs, _, height, width, _ = frames.shape
    scaled = frames.float() * (1.0 / (255.0 * deviation)) - mean / deviation
    rows, columns = height // patch // merge, width // patch // merge
    cut = scaled.reshape(pairs, 2, rows, merge, patch, columns, merge, patch, 3)
    ordered = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(pairs, rows * columns * merge * merge, 3 * 2 * patch * patch)
