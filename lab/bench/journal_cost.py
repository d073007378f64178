"""What the journal costs: evicted pairs an hour, time of a caption, lines written a second, and time of a search."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.journal import JournalEntry, JournalStore, Pose
from delayed_vlm_ros.journal.captioner import MAX_DUTY, Captioner
from delayed_vlm_ros.memory import KeptPair, MemoryConfig
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from lab.bench.watched_rooms import IMAGE_SIZE, draw_room

_QUESTION = "What do you see?"
_THUMBNAIL_BYTES = 4000
_DESCRIPTIONS = ("a person carries a bag", "red box", "a purple cone on the left", "elephant")
_REPETITIONS = 5
_SEED = 24


def evicted_pairs(
    loaded: DelayedBatchInferenceEngine, seed: int, room: str, minutes: float, keep: int
) -> tuple[int, list[KeptPair]]:
    """Return how many pairs leave a memory with the node's defaults after they were in Star memory, and the first.

    Args:
        loaded: Engine with the model, whose image sizes are used; its memory is not.
        seed: Seed of the room.
        room: Kind of room.
        minutes: Length of the stream in minutes.
        keep: Number of pairs to return.
    """
    drawn = draw_room(seed, room, minutes)
    memory = MemoryConfig().build()  # as the node's
    engine = DelayedBatchInferenceEngine(loaded.model, loaded.processor, frame_manager=memory)
    count = 0
    first: list[KeptPair] = []

    def note(kept: KeptPair) -> None:
        nonlocal count
        count += 1
        if len(first) < keep:
            first.append(kept)

    memory.set_eviction_listener(note)
    for stamp in drawn.stamps:
        engine.add_frame(render(drawn.scene, stamp, *IMAGE_SIZE), stamp)
    return count, first


def caption_sec(engine: DelayedBatchInferenceEngine, pairs: Sequence[KeptPair]) -> float:
    """Return the median processor time of a caption, in seconds, without the limit of device time."""
    seconds = []
    for kept in pairs:
        captioner = Captioner(_QUESTION, lambda _: None)
        captioner.offer("", kept)
        started = time.process_time()
        captioner.work({"": engine}, AskControl())
        seconds.append(time.process_time() - started)
        if not captioner.counts.captioned:
            raise RuntimeError(f"no caption: {captioner.counts.error}")
    return statistics.median(seconds)


def cost_json(evicted_an_hour: float, seconds: float) -> dict[str, float]:
    """Return what captions of so many pairs cost under the limit of device time.

    Args:
        evicted_an_hour: Pairs that leave in an hour.
        seconds: Device time of a caption.
    """
    lines = min(evicted_an_hour, MAX_DUTY * 3600.0 / seconds)
    return {
        "evicted_an_hour": round(evicted_an_hour, 1),
        "lines_an_hour": round(lines, 1),
        "device_sec_an_hour": round(lines * seconds, 1),
    }


def store_json(folder: Path, rows: int) -> dict[str, Any]:
    """Return the speed of a journal with so many lines.

    Args:
        folder: Empty folder.
        rows: Number of lines.
    """
    chosen = random.Random(_SEED)  # noqa: S311  words of captions
    store = JournalStore(folder, max_rows=rows, max_bytes=10**12)
    started = time.perf_counter()
    for number in range(rows):
        store.add(_line(number, chosen))
    written_sec = time.perf_counter() - started
    searches = {
        text: statistics.median(_search_sec(store, text) for _ in range(_REPETITIONS)) for text in _DESCRIPTIONS
    }
    size = store.counts().bytes
    store.close()
    return {
        "rows": rows,
        "rows_a_second": round(rows / written_sec, 1),
        "bytes_a_row": round(size / rows),
        "search_ms": {text: round(seconds * 1e3, 1) for text, seconds in searches.items()},
    }


def _search_sec(store: JournalStore, description: str) -> float:
    started = time.perf_counter()
    store.search(description)
    return time.perf_counter() - started


def _line(number: int, chosen: random.Random) -> JournalEntry:
    parts = (
        f"a {chosen.choice(('red', 'green', 'blue', 'yellow', 'purple'))} "
        f"{chosen.choice(('box', 'ball', 'cone', 'ring'))} on the {chosen.choice(('left', 'right'))}"
        for _ in range(3)
    )
    person = " and a person walks by with a bag" if chosen.random() < 1 / 3 else ""
    stamp_ns = number * NANOSECONDS_PER_SECOND
    pose = Pose(stamp_ns, "map", (1.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    caption = ", ".join(parts) + person
    return JournalEntry(
        *(0, "camera", "lens", stamp_ns, stamp_ns + NANOSECONDS_PER_SECOND // 2, number, caption, "brief event", ""),
        pose=pose,
        thumbnail=os.urandom(_THUMBNAIL_BYTES),
    )
