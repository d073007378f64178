"""Stream memory: the newest frames."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from delayed_vlm_ros.errors import ConfigurationError

if TYPE_CHECKING:
    from delayed_vlm_ros.memory.frame import FramePair

_FRAMES_PER_PAIR = 2


class StreamMemory:
    """A sliding window of the newest pairs that never holds more than `window_size` frames.

    Pairs leave whole, so while the newest pair is provisional the window may hold one frame fewer.

    Args:
        window_size: Most frames it holds, at least 2.

    Raises:
        ConfigurationError: `window_size` is below 2.
    """

    def __init__(self, window_size: int) -> None:
        if window_size < _FRAMES_PER_PAIR:
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

    def add(self, pair: FramePair) -> None:
        """Take in a pair newer than all it holds; the oldest leave if need be."""
        self._pairs.append(pair)
        self._shrink()

    def replace_newest(self, pair: FramePair) -> None:
        """Put the completed pair in the place of the provisional newest one; the oldest leave if need be.

        Args:
            pair: The newest pair, with its second frame.

        Raises:
            ValueError: It is not the newest pair.
        """
        if not self._pairs or self._pairs[-1].id != pair.id:
            raise ValueError(f"pair {pair.id} is not the newest in Stream memory")
        self._pairs[-1] = pair
        self._shrink()

    def _shrink(self) -> None:
        while self.frame_count > self._window_size:
            self._pairs.popleft()
