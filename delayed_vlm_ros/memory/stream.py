"""Stream memory: a sliding window of the newest frames."""

from __future__ import annotations

from collections import deque

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, FramePair


class StreamMemory:
    """A sliding window of the newest pairs, never more than ``window_size`` frames.

    Whole pairs are evicted, so the window may hold one frame fewer while the newest pair is provisional.

    Args:
        window_size: Maximum number of frames, at least 2.

    Raises:
        ConfigurationError: ``window_size`` is below 2.
    """

    def __init__(self, window_size: int) -> None:
        if window_size < FRAMES_PER_PAIR:
            raise ConfigurationError(f"stream_window_size must be at least {FRAMES_PER_PAIR} frames, got {window_size}")
        self._window_size = window_size
        self._pairs: deque[FramePair] = deque()

    @property
    def pairs(self) -> tuple[FramePair, ...]:
        """Kept pairs in time order."""
        return tuple(self._pairs)

    @property
    def frame_count(self) -> int:
        """Number of kept frames; a provisional pair counts one."""
        return sum(pair.frame_count for pair in self._pairs)

    @property
    def is_full(self) -> bool:
        """Whether another complete pair would not fit."""
        return len(self._pairs) >= self._window_size // FRAMES_PER_PAIR

    def add(self, pair: FramePair) -> bool:
        """Add a pair that is newer than all kept ones; return whether older pairs were evicted."""
        self._pairs.append(pair)
        return self._shrink()

    def replace_newest(self, pair: FramePair) -> bool:
        """Replace the provisional newest pair with the completed one; return whether older pairs were evicted.

        Raises:
            ValueError: The pair is not the newest one.
        """
        if not self._pairs or self._pairs[-1].id != pair.id:
            raise ValueError(f"pair {pair.id} is not the newest in Stream memory")
        self._pairs[-1] = pair
        return self._shrink()

    def drop_oldest(self, count: int) -> None:
        """Evict the oldest pairs.

        Args:
            count: Number of pairs, below the number of kept ones.
        """
        for _ in range(count):
            self._pairs.popleft()

    def _shrink(self) -> bool:
        is_over = self.frame_count > self._window_size
        while self.frame_count > self._window_size:
            self._pairs.popleft()
        return is_over
