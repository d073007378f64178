"""Star memories for the storage tests."""

from __future__ import annotations

import numpy as np

from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair
from delayed_vlm_ros.storage.file_format import StoredMemory
from delayed_vlm_ros.storage.folder import MemoryFolder

GEOMETRY = FrameGeometry()


def star_memory(generation: int = 0, *, pairs: int = 3, height: int = 4, width: int = 6, camera: str = "front"):
    """Return a memory that encodes its generation in every value.

    The first pair is marked and the last one provisional.
    """
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
        deferred_score, deferred_reason = (0.75, "brief event") if number % 2 else (0.0, "")
        kept.append(KeptPair(pair, True, False, not number, label, deferred_score, deferred_reason))
    return StoredMemory(camera, GEOMETRY, tuple(kept))


def generation_of(memory: StoredMemory) -> int:
    """Return the generation of a memory.

    Raises:
        AssertionError: A value does not match the generation.
    """
    generation = memory.pairs[0].pair.first.source["of"]
    assert content_of(memory) == content_of(star_memory(generation, pairs=len(memory.pairs), **size_of(memory)))
    return generation


def size_of(memory: StoredMemory) -> dict[str, int]:
    height, width = memory.pairs[0].pair.first.image.shape[:2]
    return {"height": height, "width": width}


def content_of(memory: StoredMemory):
    """Return all values of a memory, for comparison."""
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


def keep_source(source):
    return source


def open_folder(path) -> MemoryFolder:
    return MemoryFolder(str(path), keep_source, keep_source)


def accept_any(_memory) -> str:
    return ""
