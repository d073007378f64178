"""Images of key frames that an answer was based on, which leave the memory soon."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.images.messages import CompressedMessage

MAX_CACHED_BYTES = 32_000_000
"""Upper bound of the cached images in bytes."""


@dataclass(frozen=True)
class CachedFrame:
    """A key frame with its images.

    Attributes:
        key_frame: The ``KeyFrame`` message, as it was when the frame was cached.
        first: First image.
        second: Second image; without data until it has arrived.
    """

    key_frame: Any
    first: CompressedMessage
    second: CompressedMessage

    @property
    def size(self) -> int:
        """Size of both images in bytes."""
        return len(self.first.data) + len(self.second.data)


class FrameCache:
    """Bounded cache of key frames by id; the oldest ones are dropped first. Thread-safe.

    Args:
        max_bytes: Upper bound of the images in bytes.
    """

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._frames: OrderedDict[int, CachedFrame] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, frame: CachedFrame) -> None:
        """Add a key frame, or replace the one with its id."""
        with self._lock:
            self._remove(int(frame.key_frame.id))
            self._frames[int(frame.key_frame.id)] = frame
            self._bytes += frame.size
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._frames)))

    def get(self, frame_id: int) -> CachedFrame | None:
        """Return a key frame; None if it is not cached."""
        with self._lock:
            return self._frames.get(frame_id)

    def clear(self) -> None:
        """Remove all key frames."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0

    def _remove(self, frame_id: int) -> None:
        removed = self._frames.pop(frame_id, None)
        if removed is not None:
            self._bytes -= removed.size
