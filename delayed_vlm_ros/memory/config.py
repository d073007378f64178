"""The settings of one camera's memory, with every default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.limits import (
    IMPORTANCE_THRESHOLD,
    STAR_MEMORY_SIZE,
    STREAM_WINDOW_SIZE,
    default_eviction_chunk,
)
from delayed_vlm_ros.memory.manager import SmartFrameManager
from delayed_vlm_ros.memory.pair_ids import PairIds


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of one camera's memory, validated when they are made.

    The node, the replay, the page and the benchmarks build their memories from it, so all share its defaults. Each
    default is also a class attribute, such as ``MemoryConfig.sample_fps``.

    Attributes:
        star_memory_size: Most frames in Star memory; 0 switches it off, else at least 2.
        stream_window_size: Most frames in Stream memory, at least 2.
        importance_threshold: Score from which a frame enters Star memory, 0..1.
        eviction_chunk: Frames that leave a full memory together; 0: one pair; None: a third of the smaller memory.
        max_marked_frames: Frames that may be marked at the same time; None: a quarter of Star memory.
        sample_fps: Frames remembered per second.
        max_pixels: Largest height × width of a remembered frame.

    Raises:
        ConfigurationError: A value is out of its range, or values do not go together.
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
            raise ConfigurationError(f"sample_fps must be a finite number above 0, got {self.sample_fps}")
        if self.max_pixels < 1:
            raise ConfigurationError(f"max_pixels must be at least 1, got {self.max_pixels}")
        self.build()

    def build(self, pair_ids: PairIds | None = None) -> SmartFrameManager:
        """Return an empty memory with these settings.

        Args:
            pair_ids: Source of pair ids, shared by the memories of several cameras; None: 1, 2, 3, …
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
