"""The same as ``ask_trace`` in real time, for a few minutes: a camera's thread, an client_id's, and a real worker."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup, native_seconds
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker
from lab.bench.trace import FILLING_SEC, MOST_LATE_SEC, SAMPLE_FPS, Habit, stream

_PATIENCE_SEC = 300.0


def live_in_real_time(setting: BenchmarkSetup, habit: Habit, seed: int) -> dict[str, Any]:
    """Fill a memory at once, then let frames arrive and ask.

    Returns:
        The habit, and seconds to the first token, waiting included, ÷ native inference's for as many pairs.
    """
    engine = setting.engine(eviction_chunk=habit.eviction_chunk)
    frames = stream(setting.image[0], np.random.default_rng(seed))
    for _ in range(int(FILLING_SEC * SAMPLE_FPS)):
        stamp, image = next(frames)
        engine.add_frame(image, stamp)
    ended = threading.Event()

    def see() -> None:
        started = time.monotonic()
        for number, (stamp, image) in enumerate(frames, start=1):
            if ended.wait(max(0.0, started + number / SAMPLE_FPS - time.monotonic())):
                return
            engine.add_frame(image, stamp)

    ahead = IdleTask[DelayedBatchInferenceEngine](
        lambda one, control: one.precompute(control, prefill=habit.mode == "full"), habit.quiet_sec
    )
    worker = ModelWorker(lambda: engine, 1, idle_task=None if habit.mode == "off" else ahead)
    worker.start()
    camera = threading.Thread(target=see)
    camera.start()
    times, pairs = [], []
    random = np.random.default_rng(0)
    try:
        started = time.monotonic()
        for number in range(1, habit.asks + 1):
            asking_at = started + number * habit.ask_every_sec + MOST_LATE_SEC * random.random()
            time.sleep(max(0.0, asking_at - time.monotonic()))
            asked = time.monotonic()
            metrics = worker.run(lambda one, _: one.ask(QUESTION, max_new_tokens=2)[1], _PATIENCE_SEC)
            behind_the_first_token = metrics.total_latency - metrics.time_to_first_token
            times.append(time.monotonic() - asked - behind_the_first_token)
            pairs.append(metrics.video_grid_thw[0])
    finally:
        ended.set()
        camera.join()
        worker.close(_PATIENCE_SEC)
    # Native's time goes with the pairs, which with chunks are not always as many.
    native_pair = min(native_seconds(engine) for _ in range(2)) / len(engine.snapshot())
    ratios = np.array(times) / (native_pair * np.array(pairs))
    return {
        "mode": habit.mode,
        "eviction_chunk": habit.eviction_chunk,
        "ask_every_sec": habit.ask_every_sec,
        "asks": habit.asks,
        "p50": round(float(np.quantile(ratios, 0.5)), 4),
        "max": round(float(ratios.max()), 4),
        "native_sec_of_a_pair": round(native_pair, 4),
    }
