"""A snapshot of kept frames as the model's video input: pixels, grid and prompt positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delayed_vlm_ros.inference.local.positions import prompt_positions, temporal_ids
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.memory import Snapshot

# Share of the trained positions that the time of a video may use; text uses the rest.
_VIDEO_SHARE_OF_POSITIONS = 7 / 8


@dataclass(frozen=True, slots=True)
class VideoLayout:
    """Positions of a video's merged tokens in time and space.

    Attributes:
        grid_thw: Temporal, height and width patches, before merging.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        temporal_ids: Temporal id of each pair.
        time_compressed: Whether long gaps between pairs are shown as shorter.
        time_rebased: Whether the oldest pairs were moved together to fit the trained range.
    """

    grid_thw: tuple[int, int, int]
    rows: int
    columns: int
    temporal_ids: tuple[int, ...]
    time_compressed: bool
    time_rebased: bool

    @property
    def tokens_per_pair(self) -> int:
        """Merged tokens of one pair."""
        return self.rows * self.columns

    @property
    def visual_tokens(self) -> int:
        """Merged tokens of the whole video."""
        return len(self.temporal_ids) * self.tokens_per_pair

    def positions(self, prompt: Prompt) -> torch.Tensor:
        """Return position ids of the whole prompt, shape (3, 1, tokens)."""
        return prompt_positions(len(prompt.before), self.temporal_ids, self.rows, self.columns, len(prompt.after))


def position_limit(config: Any) -> int:
    """Return the largest temporal id that a video may have with the model of ``config``."""
    return int(config.text_config.max_position_embeddings * _VIDEO_SHARE_OF_POSITIONS)


def lay_out(config: Any, snapshot: Snapshot) -> VideoLayout:
    """Return the layout of the kept pairs as one video, with their real times.

    Args:
        config: Config of the model.
        snapshot: At least one kept pair; all frames have the same shape, a multiple of the model's patches.
    """
    vision = config.vision_config
    height, width, _ = snapshot[0].frames[0].shape
    merge = int(vision.spatial_merge_size)
    patch_rows, patch_columns = height // int(vision.patch_size), width // int(vision.patch_size)
    times = temporal_ids(config, [kept.stamps[0] for kept in snapshot], position_limit(config))
    return VideoLayout(
        grid_thw=(len(snapshot), patch_rows, patch_columns),
        rows=patch_rows // merge,
        columns=patch_columns // merge,
        temporal_ids=times.ids,
        time_compressed=times.compressed,
        time_rebased=times.rebased,
    )


def pixel_values(processor: Any, frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """Return the patches of frames of the memory's grid, cut by the checkpoint's own video processor.

    Args:
        processor: Processor from transformers.
        frames: An even number of RGB uint8 arrays of one shape (H, W, 3).

    Returns:
        Tensor of shape (patches, patch elements), float32.
    """
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (T, 3, H, W)
    batch = processor.video_processor(
        videos=[video],
        do_sample_frames=False,
        do_resize=False,  # the frames fit the grid; transformers' own resizing may depend on the number of frames
        cap_pixels_per_frame=False,  # affects resizing only, but warns when unset
        return_tensors="pt",
    )
    values: torch.Tensor = batch["pixel_values_videos"]
    return values


def snapshot_pixel_values(processor: Any, snapshot: Snapshot) -> torch.Tensor:
    """Return the patches of the kept pairs in time order; the only frame of a provisional pair is used twice."""
    return pixel_values(processor, [frame for kept in snapshot for frame in kept.frames])
