"""Pairs of models that are given the time by text: Qwen3-VL, Qwen3.5 and their relatives.

A pair is ``<12.5 seconds>``, then an image between the start-of-vision and end-of-vision tokens. The vision encoder
attends within one pair only. transformers' own forward call encodes several pairs.
"""

from __future__ import annotations

from typing import Any

import torch


def time_text(seconds: float) -> str:
    """Return the text before a pair, as the processor of transformers writes it."""
    return f"<{seconds:.1f} seconds>"


def encode_as_videos(visual: Any, patches: torch.Tensor, rows: int, columns: int) -> Any:
    """Return the output of the vision encoder for pairs, each of them a video of its own.

    Args:
        visual: Vision encoder of the model.
        patches: Patches of the pairs, shape ``(pairs, patches, patch elements)``.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
    """
    merge = visual.spatial_merge_size
    grid = torch.tensor([[1, rows * merge, columns * merge]], device=patches.device)
    return visual(patches.flatten(0, 1), grid_thw=grid.expand(len(patches), -1))
