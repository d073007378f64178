"""Cost of a full memory: bytes held between questions, and time to first token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from delayed_vlm_ros.benchmark.sweep import CAMERA, CostUnit
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.replay.compare import keep_everything

_QUESTION = "What stands on the table now?"
_REPEATS = 2
_SEED = 3


def measure_costs(units: Sequence[CostUnit], model: Any, processor: Any) -> Iterator[tuple[CostUnit, dict[str, float]]]:
    """Measure the units one by one; parallel measurements would slow each other down.

    Yields:
        The unit and its figures: ``bytes`` held between questions, the sum of ``image_bytes``, ``feature_bytes`` and
        ``kv_bytes``; ``visual_tokens``; and times to first token, each the minimum of two runs: ``first_ask_sec`` with
        nothing cached, and ``next_ask_sec`` after one new pair without eviction.
    """
    for unit in units:
        runs = [_measure(unit, model, processor) for _ in range(_REPEATS)]
        best = {name: min(run[name] for run in runs) for name in ("first_ask_sec", "next_ask_sec")}
        yield unit, {**runs[0], **best}


def _measure(unit: CostUnit, model: Any, processor: Any) -> dict[str, float]:
    random = np.random.default_rng(_SEED)
    engine = DelayedBatchInferenceEngine(model, processor, max_pixels=unit.max_pixels, frame_manager=keep_everything())
    columns, rows = CAMERA

    def add(pairs: int) -> None:
        for _ in range(FRAMES_PER_PAIR * pairs):
            engine.add_frame(random.integers(0, 256, (rows, columns, 3), np.uint8))

    add(unit.pairs)
    _, first = engine.ask(_QUESTION, max_new_tokens=1)
    cached = engine.cached_bytes()
    images = sum(frame.nbytes for kept in engine.snapshot() for frame in kept.frames)
    add(1)
    _, following = engine.ask(_QUESTION, max_new_tokens=1)
    return {
        "bytes": images + cached.features + cached.kv,
        "image_bytes": images,
        "feature_bytes": cached.features,
        "kv_bytes": cached.kv,
        "visual_tokens": first["visual_tokens"],
        "first_ask_sec": round(first["time_to_first_token"], 4),
        "next_ask_sec": round(following["time_to_first_token"], 4),
    }
