"""Statistics of a memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from delayed_vlm_ros.memory.frame import Snapshot


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """Counts at one time, in frames: a complete pair counts two, a provisional one counts one.

    Attributes:
        total_frames_added: Frames added since the start or the last reset.
        star_memory_size: Frames in Star memory.
        stream_memory_size: Frames in Stream memory.
        unique_frames: Kept frames, each counted once.
        overlap: Frames in both memories.
        compression_ratio: Frames added over unique frames kept; 0.0 if the memory is empty.
        pixel_bytes: Bytes of pixels of the unique frames.
    """

    total_frames_added: int
    star_memory_size: int
    stream_memory_size: int
    unique_frames: int
    overlap: int
    compression_ratio: float
    pixel_bytes: int

    def as_dict(self) -> dict[str, int | float]:
        """Return the counts by name."""
        return asdict(self)


def count_kept(snapshot: Snapshot, frames_added: int) -> MemoryStatistics:
    """Return the statistics of a snapshot.

    Args:
        snapshot: Kept pairs.
        frames_added: Number of frames added when the snapshot was taken.
    """
    unique_frames = sum(kept.frame_count for kept in snapshot)
    return MemoryStatistics(
        total_frames_added=frames_added,
        star_memory_size=sum(kept.frame_count for kept in snapshot if kept.in_star),
        stream_memory_size=sum(kept.frame_count for kept in snapshot if kept.in_stream),
        unique_frames=unique_frames,
        overlap=sum(kept.frame_count for kept in snapshot if kept.in_star and kept.in_stream),
        compression_ratio=frames_added / unique_frames if unique_frames else 0.0,
        pixel_bytes=sum(kept.pair.pixel_bytes for kept in snapshot),
    )
