"""Which sizes of a memory go together."""

from __future__ import annotations

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

# Defaults, in frames; `MemoryConfig` and `SmartFrameManager` share them.
STAR_MEMORY_SIZE = 20
STREAM_WINDOW_SIZE = 20
IMPORTANCE_THRESHOLD = 0.6

# Of Star memory, unless somebody says otherwise: marks are for a few moments, the rest of it covers the past.
_MARKED_PART = 4


def default_eviction_chunk(star_memory_size: int, stream_window_size: int) -> int:
    """The chunk (frames) of the node unless somebody says otherwise: a third of the smaller memory that there is."""
    smaller = min(size for size in (star_memory_size, stream_window_size) if size)
    return smaller // 3 // FRAMES_PER_PAIR * FRAMES_PER_PAIR


def check_eviction_chunk(eviction_chunk: int, **sizes: int) -> None:
    """Raise `ConfigurationError` unless the chunk (frames) leaves a pair in each memory of these sizes (frames)."""
    if eviction_chunk < 0 or eviction_chunk == 1:
        raise ConfigurationError(
            f"eviction_chunk is {eviction_chunk} frames, but frames leave in pairs: give 0 to let one pair go when one "
            "comes, else 2 or more"
        )
    chunk = eviction_chunk // FRAMES_PER_PAIR * FRAMES_PER_PAIR
    for name, size in sizes.items():
        largest = size // FRAMES_PER_PAIR * FRAMES_PER_PAIR - FRAMES_PER_PAIR
        if size and chunk > largest:
            raise ConfigurationError(
                f"eviction_chunk is {eviction_chunk} frames, but {name} is {size} frames and a pair must stay: give an "
                f"eviction_chunk of at most {largest}, or a {name} of {chunk + FRAMES_PER_PAIR} or more"
            )


def max_marked_pairs(max_marked_frames: int | None, star_memory_size: int) -> int:
    """How many pairs may be marked at once.

    Args:
        max_marked_frames: Frames that may be marked; None: a quarter of Star memory, up to a whole pair.
        star_memory_size: Frames in Star memory.

    Raises:
        ConfigurationError: Marks could fill Star memory, or the number is negative or 1.
    """
    room = max(star_memory_size // FRAMES_PER_PAIR - 1, 0)  # pairs; a pair that is not marked finds a place, too
    if max_marked_frames is None:
        return min(-(-star_memory_size // (_MARKED_PART * FRAMES_PER_PAIR)), room)
    if max_marked_frames < 0 or max_marked_frames == 1:
        raise ConfigurationError(
            f"max_marked_frames is {max_marked_frames} frames, but frames are marked in pairs: give 0 for no marks, "
            "else 2 or more"
        )
    if max_marked_frames // FRAMES_PER_PAIR > room:
        raise ConfigurationError(
            f"max_marked_frames is {max_marked_frames} frames, but star_memory_size is {star_memory_size} frames, and "
            f"a pair that is not marked must find room there: give at most {room * FRAMES_PER_PAIR}, or a larger "
            "star_memory_size"
        )
    return max_marked_frames // FRAMES_PER_PAIR
