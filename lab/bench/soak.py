"""An accelerated day: does memory stay flat, through frames, asks, marks, caches and files of key frames?

    .venv/bin/python lab/bench/soak.py [--json] [--frames 172800] [--ask-every 600]

172,800 frames are a day at two a second. They are images of synthetic rooms, another room every minute, rendered four
times each and with a noise of its own in every frame, and pass through `ingest/ingestor.py` into a memory of
the node's sizes. The embedded model is asked about them, in turn about all, about the last minute, and after encoding
ahead; marks come and go, key frames are written to disk, and once in a while the memory begins anew. Beside it the
process's resident memory, looked at after every ask.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from delayed_vlm_ros.errors import MarkError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import RgbArray
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, Scene, render
from delayed_vlm_ros.storage.file_format import StoredMemory, star_of
from delayed_vlm_ros.storage.folder import MemoryFolder

_FPS = 2.0
_SIZE = 20  # frames in Star, and in Stream: the node's
_CHUNK = 6
_HEIGHT, _WIDTH = 112, 140  # what the embedded model is trained on
_FRAMES_PER_ROOM = 120
_FRAMES_PER_RENDERING = 30
_NOISE = 5  # grey levels
_QUESTIONS = ("What color is the cube?", "How many people are there?", "Is there a ball?")
_ANEW_EVERY_ASKS = 50
_WARM_UP_SHARE = 0.2
_BLOCKS = 20  # of memory readings: means of neighbouring ones, which are not independent, are nearly so
_T_975 = 2.101  # Student's t for a straight line through 20 points
_MB = 1e6
_FLAT_SHARE = 0.01  # of resident memory, in a day


@dataclass
class Course:
    """What has happened so far."""

    frames: int = 0
    asks: int = 0
    frames_reused: int = 0
    files: int = 0
    marks: int = 0
    readings: list[tuple[int, int]] = field(default_factory=list)  # frames, resident bytes


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def _nothing(_source: Any) -> None:
    return None


def _images(count: int) -> Iterator[RgbArray]:
    noise = np.random.default_rng(0).integers(0, _NOISE, _HEIGHT * _WIDTH * 3, np.uint8)
    rendered = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    for number in range(count):
        if number % _FRAMES_PER_RENDERING == 0:
            room = Scene.from_seed(HELD_OUT_SEEDS[number // _FRAMES_PER_ROOM % len(HELD_OUT_SEEDS)])
            rendered = render(room, number / _FPS, _HEIGHT, _WIDTH)
        yield cv2.add(rendered, np.roll(noise, number).reshape(rendered.shape))


def run(frames: int, ask_every: int, folder: Path, *, quiet: bool) -> tuple[Course, float]:
    """Live through so many frames; gives what happened and how many seconds it took."""
    memory = SmartFrameManager(_SIZE, _SIZE, eviction_chunk=_CHUNK)
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", frame_manager=memory)
    ingestor = SamplingIngestor(FrameGeometry(), memory, _FPS, topic="soak", restart_on_jump=True)
    files = MemoryFolder(str(folder), _nothing, _nothing)
    course = Course()
    started = time.monotonic()
    for number, image in enumerate(_images(frames)):
        at_sec = number / _FPS
        ingestor.add(image, ingestor.decide(round(at_sec * 1e9), at_sec, round(at_sec * 1e9)))
        course.frames += 1
        if course.frames % ask_every == 0:
            _ask(engine, ingestor, files, course)
            if not quiet and course.asks % 10 == 0:
                _tell(course, time.monotonic() - started)
    files.close()
    return course, time.monotonic() - started


def _ask(engine: DelayedBatchInferenceEngine, ingestor: SamplingIngestor, files: MemoryFolder, course: Course) -> None:
    question = _QUESTIONS[course.asks % len(_QUESTIONS)]
    if course.asks % 3 == 1:
        engine.precompute(prefill=True)
    _, metrics = engine.ask(question, last_sec=60.0 if course.asks % 3 == 2 else None, max_new_tokens=8)  # noqa: PLR2004
    course.asks += 1
    course.frames_reused += metrics.frames_reused
    newest = engine.snapshot()[-1]
    try:
        engine.frame_manager.mark(newest.id, f"ask {course.asks}")
        course.marks += 1
    except MarkError:  # as many as may be: take all off
        for kept in engine.snapshot():
            if kept.marked:
                engine.frame_manager.unmark(kept.id)
    course.files += files.save(StoredMemory("soak", FrameGeometry(), star_of(engine.snapshot()))) > 0
    if course.asks % _ANEW_EVERY_ASKS == 0:
        ingestor.restart()
        engine.reset_cache()
    gc.collect()
    course.readings.append((course.frames, _resident_bytes()))


def _tell(course: Course, seconds: float) -> None:
    print(
        f"{course.frames} frames, {course.asks} asks, {seconds:.0f} s, {course.readings[-1][1] / _MB:.1f} MB",
        flush=True,
    )


def slope(readings: list[tuple[int, int]]) -> tuple[float, float]:
    """Bytes that memory grows by for each frame after the warm-up, with the half-width of its 95 % interval.

    A straight line through the means of blocks of readings: what one ask leaves behind for the next makes single
    readings resemble their neighbours, and an interval from those would be too narrow.
    """
    after = np.array(readings[round(len(readings) * _WARM_UP_SHARE) :], float)
    if len(after) < _BLOCKS:
        sys.exit(f"{len(readings)} asks are too few for a slope: raise --frames, or lower --ask-every")
    frames, resident = (
        np.array([block.mean() for block in np.array_split(column, _BLOCKS)]) for column in (after[:, 0], after[:, 1])
    )
    centred = frames - frames.mean()
    found = float(centred @ resident / (centred @ centred))
    left_over = resident - resident.mean() - found * centred
    error = float(np.sqrt(left_over @ left_over / (_BLOCKS - 2) / (centred @ centred)))
    return found, _T_975 * error


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    frames: Annotated[int, typer.Option(help="Frames; 172800 are a day.", min=100)] = 172_800,
    ask_every: Annotated[int, typer.Option(help="Frames between two asks.", min=10)] = 600,
) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder:
        course, seconds = run(frames, ask_every, Path(folder), quiet=as_json)
    per_frame, half_width = slope(course.readings)
    day = 86_400 * _FPS / _MB
    warm = course.readings[round(len(course.readings) * _WARM_UP_SHARE)][1]
    resident = [reading for _, reading in course.readings[round(len(course.readings) * _WARM_UP_SHARE) :]]
    result = {
        "frames": course.frames,
        "asks": course.asks,
        "frames_reused": course.frames_reused,
        "marks": course.marks,
        "files_written": course.files,
        "seconds": round(seconds, 1),
        "resident_mb": {
            "after_warm_up": round(warm / _MB, 1),
            "smallest": round(min(resident) / _MB, 1),
            "largest": round(max(resident) / _MB, 1),
            "at_the_end": round(resident[-1] / _MB, 1),
        },
        "slope_mb_per_day": round(per_frame * day, 3),
        "slope_interval_mb_per_day": [round((per_frame + sign * half_width) * day, 3) for sign in (-1, 1)],
        "flat": bool((per_frame + half_width) * day < _FLAT_SHARE * warm / _MB),
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    typer.run(main)
