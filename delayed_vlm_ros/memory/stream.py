"""Stream memory: the newest frames."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

if TYPE_CHECKING:
    from delayed_vlm_ros.memory.frame import FramePair


class StreamMemory:
    """A sliding window of the newest pairs that never holds more than `window_size` frames.

    Pairs leave whole, so while the newest pair is provisional the window may hold one frame fewer.

    Args:
        window_size: Most frames it holds, at least 2.

    Raises:
        ConfigurationError: `window_size` is below 2.
    """

    def __init__(self, window_size: int) -> None:
        if window_size < FRAMES_PER_PAIR:
            raise ConfigurationError(
                f"stream_window_size is {window_size} frames, but frames are kept in pairs: give 2 or more"
            )
        self._window_size = window_size
        self._pairs: deque[FramePair] = deque()

    @property
    def pairs(self) -> tuple[FramePair, ...]:
        """The pairs it holds, in time order."""
        return tuple(self._pairs)

    @property
    def frame_count(self) -> int:
        """How many frames it holds; a provisional pair counts one."""
        return sum(pair.frame_count for pair in self._pairs)

    @property
    def is_full(self) -> bool:
        """Whether another whole pair would not fit."""
        return len(self._pairs) >= self._window_size // FRAMES_PER_PAIR

    def add(self, pair: FramePair) -> bool:
        """Take in a pair newer than all it holds; the oldest leave if need be.

        Args:
            pair: The pair.

        Returns:
            Whether any left.
        """
        self._pairs.append(pair)
        return self._shrink()

    def replace_newest(self, pair: FramePair) -> bool:
        """Put the completed pair in the place of the provisional newest one; the oldest leave if need be.

        Args:
            pair: The newest pair, with its second frame.

        Returns:
            Whether any left.

        Raises:
            ValueError: It is not the newest pair.
        """
        if not self._pairs or self._pairs[-1].id != pair.id:
            raise ValueError(f"pair {pair.id} is not the newest in Stream memory")
        self._pairs[-1] = pair
        return self._shrink()

    def drop_oldest(self, count: int) -> None:
        """Let pairs leave.

        Args:
            count: How many pairs; it holds more.
        """
        for _ in range(count):
            self._pairs.popleft()

    def _shrink(self) -> bool:
        is_over = self.frame_count > self._window_size
        while self.frame_count > self._window_size:
            self._pairs.popleft()
        return is_over
