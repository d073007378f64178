"""Frames, pairs of frames, and the snapshot of them that a question works on.

A pair of neighbouring sampled frames is one temporal patch of the vision encoder, and so the unit in which frames are
kept, evicted, encoded and cached.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

RgbArray: TypeAlias = NDArray[np.uint8]

FRAMES_PER_PAIR = 2

_KEY_BYTES = 16


def freeze(image: RgbArray) -> RgbArray:
    """Make an array that nobody can change behind the memory's back.

    Args:
        image: Any numeric array.

    Returns:
        The same object if it already owns its storage, is C-contiguous and read-only (whoever hands over such an
        array promises to hold no older writable view of it), otherwise a read-only copy.
    """
    flags = image.flags
    if flags.owndata and flags.c_contiguous and not flags.writeable:
        return image
    copy = np.array(image, order="C", copy=True, subok=False)
    copy.setflags(write=False)
    return copy


def _digest(parts: Sequence[bytes | memoryview]) -> bytes:
    hasher = hashlib.sha256()  # most processors have instructions for it, and it is most of a frame's cost
    for part in parts:
        hasher.update(part)
    return hasher.digest()[:_KEY_BYTES]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera image in the memory.

    Attributes:
        image: RGB pixels, shape (H, W, 3), uint8, C-contiguous and read-only (a writable one is copied).
        stamp: When the camera took it, in seconds.
        number: Count of frames added up to and with this one, from 1.
        importance: How much it deserves to be remembered, 0..1.
        reason: Why, in a word or two for people; empty when the frame is not notable.
        source: What whoever added it wants to find with it again; the memory does not look at it.
        content_key: 16-byte hash of the pixels and their shape.
    """

    image: RgbArray
    stamp: float
    number: int
    importance: float
    reason: str
    source: Any = None
    content_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        image = freeze(self.image)
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "content_key", _digest([repr(image.shape).encode(), image.data]))


@dataclass(frozen=True, slots=True, eq=False)
class FramePair:
    """Two neighbouring frames of one camera: one temporal patch.

    Attributes:
        id: Names the pair for life; never used again by the same manager, not even after a reset.
        first: The earlier frame.
        second: The later frame, or None as long as it has not come (the pair is provisional).
        content_key: 16-byte hash of the pixels and shapes of both frames. A provisional pair has another key than the
            completed one, even when both images are equal.
    """

    id: int
    first: Frame
    second: Frame | None
    content_key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Hashing the frames' fixed-length keys reads each image once, not again when the pair is completed.
        object.__setattr__(self, "content_key", _digest([frame.content_key for frame in self.present_frames]))

    @property
    def present_frames(self) -> tuple[Frame, ...]:
        """The frames that have come, one or two."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def last(self) -> Frame:
        """The frame that came last; the first one while provisional."""
        return self.second or self.first

    @property
    def is_complete(self) -> bool:
        """Whether the second frame has come."""
        return self.second is not None

    @property
    def frame_count(self) -> int:
        """How many frames it holds: 1 while provisional, else 2."""
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
        """The frame of larger importance; of equal ones the first."""
        return max(self.present_frames, key=lambda frame: frame.importance)

    @property
    def importance(self) -> float:
        """The larger importance of its frames, 0..1."""
        return self.important_frame.importance

    @property
    def reason(self) -> str:
        """The reason of its more important notable frame; empty when neither is notable."""
        notable = [frame for frame in self.present_frames if frame.reason]
        return max(notable, key=lambda frame: frame.importance).reason if notable else ""

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixel storage; a provisionally repeated frame counts once."""
        return sum(frame.image.nbytes for frame in self.present_frames)

    def completed_with(self, frame: Frame) -> FramePair:
        """Give the complete pair, under the same id.

        Args:
            frame: The partner that a provisional pair has waited for.

        Returns:
            A new pair; this one stays as it is.

        Raises:
            ValueError: The pair is complete already.
        """
        if self.second is not None:
            raise ValueError(f"pair {self.id} is complete already: start a new pair with frame #{frame.number}")
        return FramePair(self.id, self.first, frame)


@dataclass(frozen=True, slots=True)
class KeptPair:
    """A pair as a snapshot shows it: with the memories that held it at that moment, and its mark.

    Attributes:
        pair: The pair.
        in_star: Whether Star memory held it.
        in_stream: Whether Stream memory held it.
        marked: Whether it was protected.
        label: The label it was marked with; empty when there is none.
        deferred_score: What it is found to be worth now that the moments after it are known, 0..1; 0.0 when nothing. It
            falls when what it shows proves usual.
        late_reason: For what, in a few words; empty when it is not, or no longer, worth a place for that.
    """

    pair: FramePair
    in_star: bool
    in_stream: bool
    marked: bool = False
    label: str = ""
    deferred_score: float = 0.0
    late_reason: str = ""

    @property
    def id(self) -> int:
        """See `FramePair.id`."""
        return self.pair.id

    @property
    def frames(self) -> tuple[RgbArray, RgbArray]:
        """See `FramePair.frames`."""
        return self.pair.frames

    @property
    def stamps(self) -> tuple[float, float]:
        """See `FramePair.stamps`."""
        return self.pair.stamps

    @property
    def importance(self) -> float:
        """The larger of `FramePair.importance`, when it came, and of what it was found to be worth, 0..1."""
        return max(self.pair.importance, self.deferred_score)

    @property
    def reason(self) -> str:
        """What it was found to be worth keeping for, or else why it was notable when it came (`FramePair.reason`)."""
        return self.late_reason or self.pair.reason

    @property
    def frame_count(self) -> int:
        """See `FramePair.frame_count`."""
        return self.pair.frame_count

    @property
    def content_key(self) -> bytes:
        """See `FramePair.content_key`."""
        return self.pair.content_key


Snapshot: TypeAlias = tuple[KeptPair, ...]
"""The kept pairs of one moment, in time order, each id once."""
