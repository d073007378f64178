"""Soak test of an accelerated day: does resident memory stay flat?

172,800 frames are a day at two frames per second. They show synthetic rooms, a new room every minute; each rendering is
used for 30 frames, and every frame has its own noise. They pass through the image pipeline of a camera
(``ingest/ingestor.py``) into a memory of the node's sizes. The embedded model answers questions about the whole memory,
about the last minute, and after encoding ahead, in turn. Marks are set and removed, key frames are written to disk, and
the memory is emptied from time to time. Resident memory is read after every question.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros.errors import MarkError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.memory.frame import RgbArray
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, Scene, render
from delayed_vlm_ros.storage.file_format import StoredMemory, star_of
from delayed_vlm_ros.storage.folder import MemoryFolder
from lab.bench.process_stats import resident_bytes

_FPS = 2.0
_SIZE = 20  # frames in Star, and in Stream
_CHUNK = 6
_HEIGHT, _WIDTH = 112, 140  # the embedded model's training size
_FRAMES_PER_ROOM = 120
_FRAMES_PER_RENDERING = 30
_NOISE = 5  # grey levels
_QUESTIONS = ("What color is the cube?", "How many people are there?", "Is there a ball?")
_QUESTIONS_PER_RESTART = 50
_QUESTIONS_PER_REPORT = 10
_WARM_UP_SHARE = 0.2
_BLOCKS = 20  # neighbouring readings depend on each other; the means of blocks hardly do
_T_975 = 2.101  # Student's t for a straight line through 20 points
_MB = 1e6
_FLAT_SHARE = 0.01  # of resident memory, per day


@dataclass
class Run:
    """Counts of a soak test so far.

    Attributes:
        frames: Frames added.
        questions: Questions answered.
        frames_reused: Sum of ``frames_reused`` over the questions.
        files: Key-frame files written.
        marks: Marks set.
        readings: Number of frames and resident memory in bytes, after each question.
    """

    frames: int = 0
    questions: int = 0
    frames_reused: int = 0
    files: int = 0
    marks: int = 0
    readings: list[tuple[int, int]] = field(default_factory=list)


OnProgress = Callable[[str], None]


def measure(frames: int, ask_every: int, on_progress: OnProgress = lambda _text: None) -> dict[str, Any]:
    """Run the soak test.

    Args:
        frames: Number of frames.
        ask_every: Frames from question to question.
        on_progress: Called with a line of text after every tenth question.

    Returns:
        The result that ``bench soak --json`` prints.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = _run(frames, ask_every, Path(folder), on_progress)
    seconds = time.monotonic() - started
    per_frame, half_width = slope(done.readings)
    day = 86_400 * _FPS / _MB
    resident = [reading for _, reading in done.readings[round(len(done.readings) * _WARM_UP_SHARE) :]]
    return {
        "frames": done.frames,
        "questions": done.questions,
        "frames_reused": done.frames_reused,
        "marks": done.marks,
        "files_written": done.files,
        "seconds": round(seconds, 1),
        "resident_mb": {
            "after_warm_up": round(resident[0] / _MB, 1),
            "smallest": round(min(resident) / _MB, 1),
            "largest": round(max(resident) / _MB, 1),
            "at_the_end": round(resident[-1] / _MB, 1),
        },
        "slope_mb_per_day": round(per_frame * day, 3),
        "slope_interval_mb_per_day": [round((per_frame + sign * half_width) * day, 3) for sign in (-1, 1)],
        "flat": bool((per_frame + half_width) * day < _FLAT_SHARE * resident[0] / _MB),
    }


def slope(readings: list[tuple[int, int]]) -> tuple[float, float]:
    """Return the growth of memory in bytes per frame after the warm-up, and the half-width of its 95 % interval.

    The line is fitted to the means of blocks of readings. Consecutive readings resemble each other, because each
    question leaves memory to the next; an interval from single readings would be too narrow.
    """
    after = np.array(readings[round(len(readings) * _WARM_UP_SHARE) :], float)
    if len(after) < _BLOCKS:
        sys.exit(f"too few questions for a slope ({len(readings)}): raise --frames or lower --ask-every")
    frames, resident = (
        np.array([block.mean() for block in np.array_split(column, _BLOCKS)]) for column in (after[:, 0], after[:, 1])
    )
    centred = frames - frames.mean()
    fitted = float(centred @ resident / (centred @ centred))
    residuals = resident - resident.mean() - fitted * centred
    error = float(np.sqrt(residuals @ residuals / (_BLOCKS - 2) / (centred @ centred)))
    return fitted, _T_975 * error


def _run(frames: int, ask_every: int, folder: Path, on_progress: OnProgress) -> Run:
    memory = SmartFrameManager(_SIZE, _SIZE, eviction_chunk=_CHUNK)
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", frame_manager=memory)
    ingestor = SamplingIngestor(FrameGeometry(), memory, _FPS, topic="soak", restart_on_jump=True)
    files = MemoryFolder(str(folder), _without_source, _without_source)
    run = Run()
    started = time.monotonic()
    for number, image in enumerate(_images(frames)):
        at_sec = number / _FPS
        ingestor.add(image, ingestor.decide(round(at_sec * 1e9), at_sec, round(at_sec * 1e9)))
        run.frames += 1
        if run.frames % ask_every == 0:
            _ask(engine, ingestor, files, run)
            if run.questions % _QUESTIONS_PER_REPORT == 0:
                on_progress(_progress_line(run, time.monotonic() - started))
    files.close()
    return run


def _without_source(_source: Any) -> None:
    return None


def _images(count: int) -> Iterator[RgbArray]:
    noise = np.random.default_rng(0).integers(0, _NOISE, _HEIGHT * _WIDTH * 3, np.uint8)
    rendered = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    for number in range(count):
        if number % _FRAMES_PER_RENDERING == 0:
            room = Scene.from_seed(HELD_OUT_SEEDS[number // _FRAMES_PER_ROOM % len(HELD_OUT_SEEDS)])
            rendered = render(room, number / _FPS, _HEIGHT, _WIDTH)
        yield np.asarray(cv2.add(rendered, np.roll(noise, number).reshape(rendered.shape)), np.uint8)


def _ask(engine: DelayedBatchInferenceEngine, ingestor: SamplingIngestor, files: MemoryFolder, run: Run) -> None:
    question = _QUESTIONS[run.questions % len(_QUESTIONS)]
    if run.questions % 3 == 1:
        engine.precompute(prefill=True)
    last_sec = 60.0 if run.questions % 3 == 2 else None  # noqa: PLR2004
    _, metrics = engine.ask(question, last_sec=last_sec, max_new_tokens=8)
    run.questions += 1
    run.frames_reused += metrics.frames_reused
    _mark_newest(engine, run)
    run.files += files.save(StoredMemory("soak", FrameGeometry(), star_of(engine.snapshot()))) > 0
    if run.questions % _QUESTIONS_PER_RESTART == 0:
        ingestor.restart()
        engine.reset_cache()
    gc.collect()
    run.readings.append((run.frames, resident_bytes()))


def _mark_newest(engine: DelayedBatchInferenceEngine, run: Run) -> None:
    try:
        engine.frame_manager.mark(engine.snapshot()[-1].id, f"question {run.questions}")
        run.marks += 1
    except MarkError:  # the limit is reached: remove all marks
        for kept in engine.snapshot():
            if kept.marked:
                engine.frame_manager.unmark(kept.id)


def _progress_line(run: Run, seconds: float) -> str:
    megabytes = run.readings[-1][1] / _MB
    return f"{run.frames} frames, {run.questions} questions, {seconds:.0f} s, {megabytes:.1f} MB"
