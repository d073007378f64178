"""The stream of ``trace`` in real time for some minutes: a thread for the camera, one for questions, a real worker."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup, native_seconds
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker
from lab.bench.trace import FILLING_SEC, LONGEST_DELAY_SEC, SAMPLE_FPS, Scenario, stream

_TIMEOUT_SEC = 300.0
_NATIVE_RUNS = 2


def run_in_real_time(setup: BenchmarkSetup, scenario: Scenario, seed: int) -> dict[str, Any]:
    """Fill a memory without pauses, then let frames and questions arrive in real time.

    Returns:
        The scenario, and the median and largest time to the first token, waiting included, divided by the time of
        native inference for as many pairs.
    """
    engine = scenario.engine(setup)
    frames = stream(setup.image[0], np.random.default_rng(seed))
    for _ in range(int(FILLING_SEC * SAMPLE_FPS)):
        stamp, image = next(frames)
        engine.add_frame(image, stamp)
    ended = threading.Event()

    def add_frames() -> None:
        started = time.monotonic()
        for number, (stamp, image) in enumerate(frames, start=1):
            if ended.wait(max(0.0, started + number / SAMPLE_FPS - time.monotonic())):
                return
            engine.add_frame(image, stamp)

    ahead = IdleTask[DelayedBatchInferenceEngine](
        "precompute", lambda one, control: one.precompute(control, prefill=scenario.mode == "full"), scenario.quiet_sec
    )
    worker = ModelWorker(lambda: engine, 1, idle_tasks=() if scenario.mode == "off" else (ahead,))
    worker.start()
    camera = threading.Thread(target=add_frames)
    camera.start()
    try:
        times, pairs = _ask_questions(worker, scenario)
    finally:
        ended.set()
        camera.join()
        worker.close(_TIMEOUT_SEC)
    # Native time is proportional to the number of pairs, which varies with an eviction chunk.
    native_pair = min(native_seconds(engine) for _ in range(_NATIVE_RUNS)) / len(engine.snapshot())
    ratios = np.array(times) / (native_pair * np.array(pairs))
    return {
        "mode": scenario.mode,
        "eviction_chunk": scenario.eviction_chunk,
        "question_every_sec": scenario.question_every_sec,
        "questions": scenario.questions,
        "p50": round(float(np.quantile(ratios, 0.5)), 4),
        "max": round(float(ratios.max()), 4),
        "native_sec_per_pair": round(native_pair, 4),
    }


def _ask_questions(
    worker: ModelWorker[DelayedBatchInferenceEngine], scenario: Scenario
) -> tuple[list[float], list[int]]:
    """Return the seconds to the first token of each question, and the number of pairs that it was about."""
    times, pairs = [], []
    random = np.random.default_rng(0)
    started = time.monotonic()
    for number in range(1, scenario.questions + 1):
        due = started + number * scenario.question_every_sec + LONGEST_DELAY_SEC * random.random()
        time.sleep(max(0.0, due - time.monotonic()))
        asked = time.monotonic()
        metrics = worker.run(lambda one, _: one.ask(QUESTION, max_new_tokens=2)[1], _TIMEOUT_SEC)
        after_first_token = metrics.total_latency - metrics.time_to_first_token
        times.append(time.monotonic() - asked - after_first_token)
        pairs.append(metrics.video_grid_thw[0])
    return times, pairs
