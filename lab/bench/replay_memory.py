"""What replaying a large bag costs: does memory stay flat, and do bars tell honestly how long it will take?

    .venv/bin/python lab/bench/replay_memory.py [--json] [--gigabytes 1] [--storage mcap]

A bag of raw 640 × 480 images of a synthetic room is written to a temporary folder and replayed with the embedded
model and three questions, as ``delayed-vlm replay`` does. Beside it, the process's resident memory, and the remaining
time that its progress bar would have told, against what it then was.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from delayed_vlm_ros.demo.record_scene import STORAGES, SceneRecording, record_scene
from delayed_vlm_ros.replay.job import Evaluator, ReplayJob
from delayed_vlm_ros.replay.progress import Pace
from delayed_vlm_ros.replay.question_file import FILE_NAME, read_questions
from delayed_vlm_ros.replay.runner import Progress, ReplaySettings

_HEIGHT, _WIDTH = 480, 640
_RATE = 10.0
_QUESTIONS = 3
_MB = 1e6
_TOLD_AT = (0.25, 0.5, 0.75)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _measure(folder: Path, gigabytes: float, storage: str) -> dict[str, Any]:
    count = round(gigabytes * 1e9 / (_HEIGHT * _WIDTH * 3))
    bag = folder / "bag"
    wanted = SceneRecording(3_000_300, count / _RATE, _RATE, _HEIGHT, _WIDTH, storage, questions=_QUESTIONS)
    record_scene(bag, wanted)
    size = sum(file.stat().st_size for file in bag.iterdir())
    questions = read_questions(bag / FILE_NAME)
    job = ReplayJob(str(bag), str(folder / "out"), questions, ReplaySettings(model="demo", methods=("delayed",)))
    evaluator = Evaluator()
    # Importing and loading the model, and what libraries keep from their first work on, is not the bag's.
    evaluator.run(job)
    pace = Pace(count, len(questions))
    samples: list[tuple[float, int, int, float | None]] = []

    def told(progress: Progress) -> None:
        pace.update(progress.images, progress.asked)
        samples.append((time.monotonic(), progress.images, _resident_bytes(), pace.left_sec))

    started = time.monotonic()
    result = evaluator.run(job, told)
    ended = time.monotonic()
    images = np.array([sample[1] for sample in samples])
    resident = np.array([sample[2] for sample in samples], float)
    after = images > count // 4  # Stream and Star are full by then
    slope = float(np.polyfit(images[after] / count, resident[after], 1)[0])
    promised = {}
    for share in _TOLD_AT:
        now, _, _, left = next(sample for sample in samples if sample[1] >= share * count)
        promised[f"{share:.0%}"] = {"told_sec": left, "then_was_sec": ended - now}
    return {
        "shape": {
            "storage": storage,
            "bag_mb": size / _MB,
            "images_mb": count * _HEIGHT * _WIDTH * 3 / _MB,
            "images": count,
            "image": f"{_WIDTH}x{_HEIGHT} rgb8",
            "questions": len(questions),
        },
        "complete": result["complete"],
        "seconds": ended - started,
        "images_per_sec": count / (ended - started),
        "resident_mb": {
            "after_a_quarter": resident[after][0] / _MB,
            "largest_after_a_quarter": resident[after].max() / _MB,
            "at_the_end": resident[-1] / _MB,
            "slope_over_the_bag": slope / _MB,
        },
        "remaining_time": promised,
    }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    gigabytes: Annotated[float, typer.Option(help="Size of the images in the bag.", min=0.05)] = 1.0,
    storage: Annotated[str, typer.Option(help=f"One of {', '.join(STORAGES)}.")] = "sqlite3",
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        found = _measure(Path(folder), gigabytes, storage)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    shape, resident = found["shape"], found["resident_mb"]
    print(f"{shape['images_mb']:.0f} MB of images in {shape['storage']}, {found['images_per_sec']:.0f} a second")
    print(f"resident memory after a quarter of them {resident['after_a_quarter']:.0f} MB")
    print(f"at most from there on {resident['largest_after_a_quarter']:.0f} MB")
    print(f"by a straight line from there on {resident['slope_over_the_bag']:+.1f} MB over a whole bag")
    for share, one in found["remaining_time"].items():
        left = "nothing yet" if one["told_sec"] is None else f"{one['told_sec']:.1f} s"
        print(f"at {share}, left as told: {left}; it then was {one['then_was_sec']:.1f} s")


if __name__ == "__main__":
    typer.run(main)
