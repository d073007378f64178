"""A line of the journal: when and where a pair was seen, and what the model said about it."""

from __future__ import annotations

from dataclasses import dataclass

from delayed_vlm_ros.time import seconds_of

MAX_CAPTION_CHARACTERS = 2000
"""Longest caption that is stored; a longer one is cut."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Pose of a camera.

    Attributes:
        stamp_ns: Stamp of the pose, in nanoseconds.
        frame_id: Frame in which it is expressed.
        position: x, y and z, in metres.
        orientation: Quaternion x, y, z, w.
    """

    stamp_ns: int
    frame_id: str
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One line.

    Attributes:
        id: Number of the line, from 1; 0 before it is stored. Later lines have larger numbers, also if their stamps are
            earlier.
        camera: Name of the camera.
        frame_id: frame_id of the images.
        stamp_ns: Stamp of the pair's first frame, in nanoseconds, as the camera published it.
        end_stamp_ns: Stamp of its last frame, in nanoseconds.
        pair_id: Id of the pair, which is no longer kept.
        caption: What the model said about the pair; may be empty.
        reason: Why the pair was a key frame.
        label: Label of a mark at the time of eviction; usually empty.
        pose: Pose of the camera; None if none is known.
        thumbnail: Small JPEG image; empty if it was not requested.
    """

    id: int
    camera: str
    frame_id: str
    stamp_ns: int
    end_stamp_ns: int
    pair_id: int
    caption: str
    reason: str = ""
    label: str = ""
    pose: Pose | None = None
    thumbnail: bytes = b""

    @property
    def stamp(self) -> float:
        """Stamp of the first frame, in seconds."""
        return seconds_of(self.stamp_ns)

    @property
    def end_stamp(self) -> float:
        """Stamp of the last frame, in seconds."""
        return seconds_of(self.end_stamp_ns)


@dataclass(frozen=True, slots=True)
class JournalMatch:
    """A line that a search found.

    Attributes:
        entry: The line.
        share: Share of the words of the description that the line has, above 0 and up to 1.
    """

    entry: JournalEntry
    share: float


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Some lines.

    Attributes:
        entries: The lines, the newest first.
        left: Number of further lines within the limits.
    """

    entries: tuple[JournalEntry, ...]
    left: int


@dataclass(frozen=True, slots=True)
class JournalCounts:
    """Size of the journal.

    Attributes:
        lines: Number of lines.
        bytes: Bytes of the file that are in use.
    """

    lines: int
    bytes: int
