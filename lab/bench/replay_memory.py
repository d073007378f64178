"""Memory and remaining-time estimate of a long replay.

A bag of raw 640 × 480 images of a synthetic room is written to a temporary folder and replayed with the embedded model
and three questions, as ``delayed-vlm replay`` does. The benchmark records the resident memory of the process, and the
remaining time that its progress bar shows against the time that it then took.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from delayed_vlm_ros.demo.record_scene import SceneRecording, record_scene
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob
from delayed_vlm_ros.replay.progress import Pace
from delayed_vlm_ros.replay.question_file import FILE_NAME, read_questions
from delayed_vlm_ros.replay.runner import Progress, ReplaySettings
from lab.bench.process_stats import resident_bytes

_SCENE_SEED = 3_000_300
_HEIGHT, _WIDTH = 480, 640
_IMAGE_BYTES = _HEIGHT * _WIDTH * 3
_RATE = 10.0
_QUESTIONS = 3
_MB = 1e6
_CHECKPOINTS = (0.25, 0.5, 0.75)  # shares of the images at which the remaining time is compared


@dataclass(frozen=True)
class _Sample:
    time_sec: float
    images: int
    resident_bytes: int
    remaining_sec: float | None


def measure(gigabytes: float, storage: str) -> dict[str, Any]:
    """Replay a bag and record memory and progress.

    The same bag is replayed once before, so that what libraries allocate at first use is not counted.

    Args:
        gigabytes: Size of the images in the bag, in 10⁹ bytes.
        storage: Storage format of the bag, one of ``record_scene.STORAGES``.

    Returns:
        The result that ``bench replay-memory --json`` prints.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), gigabytes, storage)


def _measure(folder: Path, gigabytes: float, storage: str) -> dict[str, Any]:
    count = round(gigabytes * 1e9 / _IMAGE_BYTES)
    bag = folder / "bag"
    record_scene(bag, SceneRecording(_SCENE_SEED, count / _RATE, _RATE, _HEIGHT, _WIDTH, storage, questions=_QUESTIONS))
    bag_bytes = sum(file.stat().st_size for file in bag.iterdir())
    questions = read_questions(bag / FILE_NAME)
    job = ReplayJob(str(bag), str(folder / "out"), questions, ReplaySettings(model="demo", methods=("delayed",)))
    evaluator = Evaluator()
    evaluator.run(job)  # the warm-up
    pace = Pace(count, len(questions))
    samples: list[_Sample] = []

    def record(progress: Progress) -> None:
        pace.update(progress.images, progress.asked)
        samples.append(_Sample(time.monotonic(), progress.images, resident_bytes(), pace.left_sec))

    started = time.monotonic()
    result = evaluator.run(job, record)
    ended = time.monotonic()
    return {
        "shape": {
            "storage": storage,
            "bag_mb": bag_bytes / _MB,
            "images_mb": count * _IMAGE_BYTES / _MB,
            "images": count,
            "image": f"{_WIDTH}x{_HEIGHT} rgb8",
            "questions": len(questions),
        },
        "complete": result["complete"],
        "seconds": ended - started,
        "images_per_sec": count / (ended - started),
        "resident_mb": _resident_json(samples, count),
        "remaining_time": _remaining_json(samples, count, ended),
    }


def _resident_json(samples: list[_Sample], count: int) -> dict[str, float]:
    images = np.array([sample.images for sample in samples])
    resident = np.array([sample.resident_bytes for sample in samples], float)
    after = images > count // 4  # Stream and Star are full by then
    slope = float(np.polyfit(images[after] / count, resident[after], 1)[0])
    return {
        "after_a_quarter": float(resident[after][0]) / _MB,
        "largest_after_a_quarter": float(resident[after].max()) / _MB,
        "at_the_end": float(resident[-1]) / _MB,
        "slope_over_the_bag": slope / _MB,
    }


def _remaining_json(samples: list[_Sample], count: int, ended: float) -> dict[str, dict[str, float | None]]:
    found = {}
    for share in _CHECKPOINTS:
        sample = next(sample for sample in samples if sample.images >= share * count)
        found[f"{share:.0%}"] = {"estimated_sec": sample.remaining_sec, "actual_sec": ended - sample.time_sec}
    return found
