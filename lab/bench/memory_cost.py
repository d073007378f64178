"""Processor time of adding a frame, by size of the memory."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import PatrolImages
from delayed_vlm_ros.benchmark.process_pool import single_threaded_opencv
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, freeze

SIZE = (640, 480)
"""Width and height of the images in pixels."""
CAPACITIES = (20, 50, 100, 200)
"""Pairs in Star memory."""

_HOURS = 0.5
_STREAM_FRAMES = 20


def measure_cost(seed: int, capacities: tuple[int, ...] = CAPACITIES, hours: float = _HOURS) -> list[dict[str, Any]]:
    """Time ``SmartFrameManager.add`` on a patrol with many events, at several sizes of Star memory.

    Each image goes to every memory in turn, so that all memories meet the same load of the machine. The time includes
    the hash of the image, by which encodings are found again. One thread is used.

    Args:
        seed: Seed of the patrol.
        capacities: Sizes of Star memory in pairs.
        hours: Length of the patrol in hours.

    Returns:
        For each size, the ``median_ms`` and ``p99_ms`` of processor time per frame, in milliseconds.
    """
    with single_threaded_opencv():
        seconds = _time_frames(seed, capacities, hours)
    return [
        {
            "pairs": pairs,
            "median_ms": round(float(np.median(seconds[pairs])) * 1e3, 3),
            "p99_ms": round(float(np.quantile(seconds[pairs], 0.99)) * 1e3, 3),
        }
        for pairs in capacities
    ]


def _time_frames(seed: int, capacities: tuple[int, ...], hours: float) -> dict[int, list[float]]:
    patrol = draw_patrol(PatrolPlan(seed, hours=hours, events=round(20 * hours), places=8))
    images = PatrolImages(patrol)
    memories = {pairs: SmartFrameManager(FRAMES_PER_PAIR * pairs, _STREAM_FRAMES) for pairs in capacities}
    seconds: dict[int, list[float]] = {pairs: [] for pairs in capacities}
    for number in range(patrol.frames):
        image = freeze(np.asarray(cv2.resize(images.frame(number), SIZE), np.uint8))
        for pairs, memory in memories.items():
            started = time.thread_time()
            memory.add(image, number * FRAME_SEC)
            seconds[pairs].append(time.thread_time() - started)
    return seconds
