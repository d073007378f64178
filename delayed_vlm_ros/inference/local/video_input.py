"""A snapshot of kept frames as the model's video input: pixels, grid and prompt positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.inference.local.positions import (
    PairText,
    prompt_positions,
    separate_pair_positions,
    temporal_ids,
)
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.memory import Snapshot

# Share of the trained positions that the time of a video may use; text uses the rest.
_VIDEO_SHARE_OF_POSITIONS = 7 / 8

_TESTED_TEXT_SEC = 2 * 3600  # videos of the needle test in Qwen3-VL's report
_MS_PER_SEC = 1000


@dataclass(frozen=True, slots=True)
class VideoLayout:
    """Tokens of a video and their positions in time and space.

    Attributes:
        grid_thw: Temporal, height and width patches, before merging.
        rows: Merged rows of a pair.
        columns: Merged columns of a pair.
        temporal_ids: Temporal id of each pair; 0 if the model is given the time by text.
        pair_texts: Text around each pair; empty if the model is given the time by position.
        time_compressed: Whether long gaps between pairs are shown as shorter.
        time_rebased: Whether the oldest pairs were moved together to fit the trained range.
        time_is_long: Whether a time in the text is longer than the videos that the models are known to be tested with.
    """

    grid_thw: tuple[int, int, int]
    rows: int
    columns: int
    temporal_ids: tuple[int, ...]
    pair_texts: tuple[PairText, ...]
    time_compressed: bool
    time_rebased: bool
    time_is_long: bool

    @property
    def time_is_text(self) -> bool:
        """Whether the model is given the time by text."""
        return bool(self.pair_texts[0].before)

    @property
    def tokens_per_pair(self) -> int:
        """Merged tokens of one pair."""
        return self.rows * self.columns

    @property
    def visual_tokens(self) -> int:
        """Merged tokens of the whole video, without text."""
        return len(self.temporal_ids) * self.tokens_per_pair

    @property
    def video_tokens(self) -> int:
        """Tokens of the whole video, text around the pairs included."""
        return self.visual_tokens + sum(len(text.before) + len(text.after) for text in self.pair_texts)

    def token_ids(self, prompt: Prompt) -> list[int]:
        """Return all ids of the prompt with this video."""
        visual = [prompt.video_token_id] * self.tokens_per_pair
        pairs = (token for text in self.pair_texts for token in (*text.before, *visual, *text.after))
        return [*prompt.before, *pairs, *prompt.after]

    def positions(self, prompt: Prompt) -> torch.Tensor:
        """Return position ids of the whole prompt, shape (3, 1, tokens)."""
        before, after = len(prompt.before), len(prompt.after)
        if self.time_is_text:
            return separate_pair_positions(before, self.pair_texts, self.rows, self.columns, after)
        return prompt_positions(before, self.temporal_ids, self.rows, self.columns, after)


def position_limit(config: Any) -> int:
    """Return the largest temporal id that a video may have with the model of ``config``."""
    return int(config.text_config.max_position_embeddings * _VIDEO_SHARE_OF_POSITIONS)


def lay_out(config: Any, processor: Any, snapshot: Snapshot) -> VideoLayout:
    """Return the layout of the kept pairs as one video, with their real times.

    Args:
        config: Config of the model.
        processor: Processor of the model.
        snapshot: At least one kept pair; all frames have the same shape, a multiple of the model's patches.
    """
    vision = config.vision_config
    height, width, _ = snapshot[0].frames[0].shape
    merge = int(vision.spatial_merge_size)
    patch_rows, patch_columns = height // int(vision.patch_size), width // int(vision.patch_size)
    time_text = adapter_for(config).time_text
    times = temporal_ids(config, [kept.stamps[0] for kept in snapshot], position_limit(config))
    return VideoLayout(
        grid_thw=(len(snapshot), patch_rows, patch_columns),
        rows=patch_rows // merge,
        columns=patch_columns // merge,
        temporal_ids=times.ids,
        pair_texts=_pair_texts(time_text, processor, snapshot),
        time_compressed=times.compressed,
        time_rebased=times.rebased,
        time_is_long=time_text is not None and snapshot[-1].stamps[-1] - snapshot[0].stamps[0] > _TESTED_TEXT_SEC,
    )


def _pair_texts(time_text: Callable[[float], str] | None, processor: Any, snapshot: Snapshot) -> tuple[PairText, ...]:
    """Return the text around each pair. Its time is the mean of its frames', as the stock processor computes it."""
    if time_text is None:
        return (PairText(),) * len(snapshot)
    times = iter([time / _MS_PER_SEC for time in frame_times_ms(snapshot)])
    seconds = ((first + second) / 2 for first, second in zip(times, times, strict=True))
    # No token spans a control token: text before one has the same tokens alone.
    texts = processor.tokenizer([time_text(time) for time in seconds], add_special_tokens=False).input_ids
    end = (int(processor.vision_end_token_id),)
    return tuple(PairText((*text, int(processor.vision_start_token_id)), end) for text in texts)


def frame_times_ms(snapshot: Snapshot) -> list[int]:
    """Return the time of each frame after the first one, in whole milliseconds, as the stock processor can take it.

    The only frame of a provisional pair is used twice.
    """
    stamps = [stamp for kept in snapshot for stamp in (kept.stamps[0], kept.stamps[-1])]
    return [round((stamp - stamps[0]) * _MS_PER_SEC) for stamp in stamps]


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
