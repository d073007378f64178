"""Defaults and validation of memory sizes."""

from __future__ import annotations

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Defaults, sizes in frames, shared by ``MemoryConfig`` and ``SmartFrameManager``.
STAR_MEMORY_SIZE = 30
STREAM_WINDOW_SIZE = 10
IMPORTANCE_THRESHOLD = 0.6

MAX_STAMP_SEC = 1e11
"""Largest stamp of a frame, in seconds, with a resolution of 15 µs. ROS times end at 2.1e9."""

_MARKED_DIVISOR = 4  # by default a quarter of Star memory may be marked; the rest covers the past


def default_eviction_chunk(star_memory_size: int, stream_window_size: int) -> int:
    """Return the node's default chunk, in frames: a third of the smaller enabled memory, in whole pairs."""
    smaller = min(size for size in (star_memory_size, stream_window_size) if size)
    return round(smaller / 3 / FRAMES_PER_PAIR) * FRAMES_PER_PAIR


def check_eviction_chunk(eviction_chunk: int, **sizes: int) -> None:
    """Check that a chunk leaves at least one pair in each enabled memory.

    Args:
        eviction_chunk: Chunk in frames.
        **sizes: Size of each memory in frames, by parameter name.

    Raises:
        ConfigurationError: The chunk is negative, 1 or too large.
    """
    if eviction_chunk < 0 or eviction_chunk == 1:
        raise ConfigurationError(
            f"eviction_chunk must be 0 (one pair) or at least {FRAMES_PER_PAIR} frames, got {eviction_chunk}"
        )
    chunk = eviction_chunk // FRAMES_PER_PAIR * FRAMES_PER_PAIR
    for name, size in sizes.items():
        largest = size // FRAMES_PER_PAIR * FRAMES_PER_PAIR - FRAMES_PER_PAIR
        if size and chunk > largest:
            raise ConfigurationError(
                f"eviction_chunk must leave a pair of {name}={size} frames: expected at most {largest}, got "
                f"{eviction_chunk}; lower it, or raise {name} to at least {chunk + FRAMES_PER_PAIR}"
            )


def max_marked_pairs(max_marked_frames: int | None, star_memory_size: int) -> int:
    """Return the maximum number of marked pairs.

    Args:
        max_marked_frames: Maximum number of marked frames; None is a quarter of Star memory, rounded up to a whole
            pair.
        star_memory_size: Size of Star memory, in frames.

    Raises:
        ConfigurationError: Marks could fill Star memory, or the number is negative or 1.
    """
    largest = max(star_memory_size // FRAMES_PER_PAIR - 1, 0)  # pairs; leaves space for one unmarked pair
    if max_marked_frames is None:
        return min(-(-star_memory_size // (_MARKED_DIVISOR * FRAMES_PER_PAIR)), largest)
    if max_marked_frames < 0 or max_marked_frames == 1:
        raise ConfigurationError(
            f"max_marked_frames must be 0 (no marks) or at least {FRAMES_PER_PAIR} frames, got {max_marked_frames}"
        )
    if max_marked_frames // FRAMES_PER_PAIR > largest:
        raise ConfigurationError(
            f"max_marked_frames must leave a pair of star_memory_size={star_memory_size} frames unmarked: expected at "
            f"most {largest * FRAMES_PER_PAIR}, got {max_marked_frames}; lower it, or raise star_memory_size"
        )
    return max_marked_frames // FRAMES_PER_PAIR
