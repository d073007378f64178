"""Star memories to write and to read."""

from __future__ import annotations

import numpy as np

from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair
from delayed_vlm_ros.storage.file_format import StoredMemory
from delayed_vlm_ros.storage.folder import MemoryFolder

GEOMETRY = FrameGeometry()


def star_memory(generation: int = 0, *, pairs: int = 3, height: int = 4, width: int = 6, camera: str = "front"):
    """A memory whose every value tells its generation; the last pair is provisional, the first one marked."""
    kept = []
    for number in range(pairs):
        frames = []
        for half in range(1 if number == pairs - 1 else 2):
            image = np.full((height, width, 3), (generation * 7 + number * 2 + half) % 256, np.uint8)
            image[0, 0] = np.frombuffer(generation.to_bytes(3, "big"), np.uint8)
            stamp = 1000.0 + number + 0.1 + half / 3
            count = 1 + number * 2 + half
            frames.append(Frame(image, stamp, count, 0.1 * number, "scene change", {"of": generation}))
        pair = FramePair(10 + number, frames[0], frames[1] if len(frames) > 1 else None)
        label = "" if number else f"generation {generation}"
        deferred_score, late_reason = (0.75, "brief event") if number % 2 else (0.0, "")
        kept.append(KeptPair(pair, True, False, not number, label, deferred_score, late_reason))
    return StoredMemory(camera, GEOMETRY, tuple(kept))


def generation_of(memory: StoredMemory) -> int:
    """The generation that every part of it tells.

    Raises:
        AssertionError: It is not the memory that was written.
    """
    generation = memory.pairs[0].pair.first.source["of"]
    assert looks(memory) == looks(star_memory(generation, pairs=len(memory.pairs), **size_of(memory)))
    return generation


def size_of(memory: StoredMemory) -> dict[str, int]:
    height, width = memory.pairs[0].pair.first.image.shape[:2]
    return {"height": height, "width": width}


def looks(memory: StoredMemory):
    """All that it says."""
    return (
        memory.camera,
        memory.geometry,
        [
            (
                (
                    kept.id,
                    kept.content_key,
                    kept.in_star,
                    kept.in_stream,
                    kept.marked,
                    kept.label,
                    kept.reason,
                    kept.deferred_score,
                ),
                [
                    (frame.stamp, frame.number, frame.importance, frame.reason, frame.source, frame.image.tobytes())
                    for frame in kept.pair.present_frames
                ],
            )
            for kept in memory.pairs
        ],
    )


def as_it_is(source):
    return source


def open_folder(path) -> MemoryFolder:
    return MemoryFolder(str(path), as_it_is, as_it_is)


def take_any(_memory) -> str:
    return ""
