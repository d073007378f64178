"""Frames, pairs of frames, and snapshots of the kept pairs.

A pair of consecutive sampled frames is one temporal patch of the vision encoder. It is the unit that is kept, evicted,
encoded and cached.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RgbArray: TypeAlias = NDArray[np.uint8]

FRAMES_PER_PAIR = 2

_KEY_BYTES = 16
_KEY = "_content_key"


def freeze(image: RgbArray) -> RgbArray:
    """Return an array that the caller cannot modify later.

    Args:
        image: Any numeric array.

    Returns:
        The same object if it owns its storage, is C-contiguous and read-only; otherwise a read-only copy. A caller that
        passes such an array must hold no older writable view of it.
    """
    flags = image.flags
    if flags.owndata and flags.c_contiguous and not flags.writeable:
        return image
    copy = np.array(image, order="C", copy=True, subok=False)
    copy.setflags(write=False)
    return copy


def _digest(parts: Sequence[bytes | memoryview]) -> bytes:
    hasher = hashlib.sha256()  # hardware-accelerated on most processors
    for part in parts:
        hasher.update(part)
    return hasher.digest()[:_KEY_BYTES]


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera image in the memory.

    Attributes:
        image: RGB pixels, shape (H, W, 3), uint8, C-contiguous and read-only; a writable array is copied.
        stamp: Acquisition time, in seconds.
        number: Number of frames added so far, this one included; starts at 1.
        importance: Score of the frame, 0..1.
        reason: Short reason why the frame is notable; empty if it is not.
        source: Object that the caller keeps with the frame; the memory does not use it.
    """

    image: RgbArray
    stamp: float
    number: int
    importance: float
    reason: str
    source: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", freeze(self.image))

    # A hash takes as long as all other work on a new frame: only frames that are used are hashed, once. Before Python
    # 3.12, cached_property would have one lock for all frames.
    @property
    def content_key(self) -> bytes:
        """16-byte hash of the pixels and their shape."""
        known: bytes | None = self.__dict__.get(_KEY)
        if known is None:
            known = self.__dict__[_KEY] = _digest([repr(self.image.shape).encode(), self.image.data])
        return known


@dataclass(frozen=True, eq=False)
class FramePair:
    """Two consecutive frames of one camera: one temporal patch.

    Attributes:
        id: Permanent id of the pair; the same manager never reuses it, even after a reset.
        first: Earlier frame.
        second: Later frame, or None before it arrives (the pair is provisional).
    """

    id: int
    first: Frame
    second: Frame | None

    @property
    def content_key(self) -> bytes:
        """16-byte hash of the pixels and shapes of both frames.

        A provisional pair and the completed one have different keys, even if both images are equal.
        """
        known: bytes | None = self.__dict__.get(_KEY)
        if known is None:
            # Hashing the fixed-length keys of the frames reads each image once, also when the pair is completed.
            known = self.__dict__[_KEY] = _digest([frame.content_key for frame in self.present_frames])
        return known

    @property
    def present_frames(self) -> tuple[Frame, ...]:
        """The one or two frames that have arrived."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def last(self) -> Frame:
        """The newest frame; the first one while the pair is provisional."""
        return self.second or self.first

    @property
    def is_complete(self) -> bool:
        """Whether the second frame has arrived."""
        return self.second is not None

    @property
    def frame_count(self) -> int:
        """Number of frames: 1 while provisional, else 2."""
        return 1 if self.second is None else FRAMES_PER_PAIR

    @property
    def frames(self) -> tuple[RgbArray, RgbArray]:
        """Both images, each (H, W, 3) uint8 RGB; the first one twice while provisional."""
        return self.first.image, self.last.image

    @property
    def stamps(self) -> tuple[float, float]:
        """Both stamps in seconds; the first one twice while provisional."""
        return self.first.stamp, self.last.stamp

    @property
    def important_frame(self) -> Frame:
        """The frame of higher importance; the first one if equal."""
        return max(self.present_frames, key=lambda frame: frame.importance)

    @property
    def importance(self) -> float:
        """Importance of the more important frame, 0..1."""
        return self.important_frame.importance

    @property
    def reason(self) -> str:
        """Reason of the more important notable frame; empty if neither is notable."""
        notable = [frame for frame in self.present_frames if frame.reason]
        return max(notable, key=lambda frame: frame.importance).reason if notable else ""

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixel storage; a provisionally repeated frame counts once."""
        return sum(frame.image.nbytes for frame in self.present_frames)

    def completed_with(self, frame: Frame) -> FramePair:
        """Return the complete pair with the same id; this pair is unchanged.

        Args:
            frame: Second frame of a provisional pair.

        Raises:
            ValueError: The pair is already complete.
        """
        if self.second is not None:
            raise ValueError(f"pair {self.id} is already complete: start a new pair with frame #{frame.number}")
        return FramePair(self.id, self.first, frame)


@dataclass(frozen=True, slots=True)
class KeptPair:
    """A pair in a snapshot, with the memories that hold it and its mark.

    Attributes:
        pair: The pair.
        in_star: Whether Star memory holds it.
        in_stream: Whether Stream memory holds it.
        marked: Whether it is protected from eviction.
        label: Label of the mark; empty if there is none.
        deferred_score: Value of the pair, 0..1, computed once later frames are known; 0.0 for an ordinary pair. It
            falls when the events that the pair shows turn out to be common.
        deferred_reason: Short reason for ``deferred_score``; empty if the score is too low to keep the pair for it.
    """

    pair: FramePair
    in_star: bool
    in_stream: bool
    marked: bool = False
    label: str = ""
    deferred_score: float = 0.0
    deferred_reason: str = ""

    @property
    def id(self) -> int:
        """Permanent id of the pair."""
        return self.pair.id

    @property
    def frames(self) -> tuple[RgbArray, RgbArray]:
        """Both images, each (H, W, 3) uint8 RGB; the first one twice while provisional."""
        return self.pair.frames

    @property
    def stamps(self) -> tuple[float, float]:
        """Both stamps in seconds; the first one twice while provisional."""
        return self.pair.stamps

    @property
    def importance(self) -> float:
        """The higher of the importance on arrival and the deferred score, 0..1."""
        return max(self.pair.importance, self.deferred_score)

    @property
    def reason(self) -> str:
        """The deferred reason if there is one, else the reason on arrival."""
        return self.deferred_reason or self.pair.reason

    @property
    def frame_count(self) -> int:
        """Number of frames: 1 while provisional, else 2."""
        return self.pair.frame_count

    @property
    def content_key(self) -> bytes:
        """16-byte hash of the pixels and shapes of both frames."""
        return self.pair.content_key


class PairIds:
    """Increasing pair ids from 1. Several memories may share one source."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def __next__(self) -> int:
        return next(self._numbers)

    def continue_after(self, pair_id: int) -> None:
        """Return only ids above ``pair_id`` from now on, so that no id occurs twice."""
        self._numbers = itertools.count(max(next(self._numbers), pair_id + 1))


Snapshot: TypeAlias = tuple[KeptPair, ...]
"""All kept pairs at one time, in time order, each id once."""
