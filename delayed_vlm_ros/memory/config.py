"""Settings of one camera's memory, with all defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import PairIds
from delayed_vlm_ros.memory.limits import (
    IMPORTANCE_THRESHOLD,
    STAR_MEMORY_SIZE,
    STREAM_WINDOW_SIZE,
    default_eviction_chunk,
)
from delayed_vlm_ros.memory.manager import SmartFrameManager


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of one camera's memory, validated on construction.

    The node, the replay, the page and the benchmarks build their memories from it and share its defaults. Each default
    is also a class attribute, such as ``MemoryConfig.sample_fps``.

    Attributes:
        star_memory_size: Maximum number of frames in Star memory; 0 disables it, otherwise at least 2.
        stream_window_size: Maximum number of frames in Stream memory, at least 2.
        importance_threshold: Score from which a frame enters Star memory on arrival, 0..1. Events and places found
            later, and marks, enter regardless.
        eviction_chunk: Number of frames that leave a full memory together; 0 is one pair, None a third of the smaller
            memory.
        max_marked_frames: Maximum number of marked frames; None is a quarter of Star memory.
        sample_fps: Frames added per second.
        max_pixels: Maximum height × width of a kept frame.

    Raises:
        ConfigurationError: A value is out of range, or two values contradict each other.
    """

    star_memory_size: int = STAR_MEMORY_SIZE
    stream_window_size: int = STREAM_WINDOW_SIZE
    importance_threshold: float = IMPORTANCE_THRESHOLD
    eviction_chunk: int | None = None
    max_marked_frames: int | None = None
    sample_fps: float = 2.0
    max_pixels: int = 4 * 224 * 224

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sample_fps) and self.sample_fps > 0.0):
            raise ConfigurationError(f"sample_fps must be a positive finite number, got {self.sample_fps}")
        if self.max_pixels < 1:
            raise ConfigurationError(f"max_pixels must be at least 1, got {self.max_pixels}")
        self.build()

    def build(self, pair_ids: PairIds | None = None) -> SmartFrameManager:
        """Return an empty memory with these settings.

        Args:
            pair_ids: Source of pair ids, which may be shared by the memories of several cameras; None is 1, 2, 3, …
        """
        chunk = self.eviction_chunk
        if chunk is None:
            chunk = default_eviction_chunk(self.star_memory_size, self.stream_window_size)
        return SmartFrameManager(
            self.star_memory_size,
            self.stream_window_size,
            self.importance_threshold,
            eviction_chunk=chunk,
            max_marked_frames=self.max_marked_frames,
            pair_ids=pair_ids,
        )
