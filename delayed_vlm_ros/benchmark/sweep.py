"""A sweep over the memory's parameters: what a memory keeps of patrols, and what it costs when full.

The work consists of units. Each finished unit appends one line to a file, so that an interrupted sweep resumes. Lines
written by another version of the memory are ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from delayed_vlm_ros import __version__, benchmark, ingest, memory
from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import PatrolImages
from delayed_vlm_ros.benchmark.patrol_scores import score_selection
from delayed_vlm_ros.benchmark.process_pool import map_in_processes, single_threaded_opencv
from delayed_vlm_ros.errors import IncompleteError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager, describe
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

RESULTS_FILE = "cells.jsonl"
CAMERA = (640, 480)
"""Width and height of the camera's images, in pixels."""


@dataclass(frozen=True)
class Cell:
    """One combination of parameters.

    Attributes:
        star_memory_size: Capacity of Star memory, in frames.
        stream_window_size: Length of the Stream window, in frames.
        importance_threshold: Score from which a frame enters Star memory on arrival, 0..1.
        max_pixels: Maximum height × width of a frame in memory.
    """

    star_memory_size: int
    stream_window_size: int
    importance_threshold: float
    max_pixels: int

    @property
    def pairs(self) -> int:
        """Pairs in a full memory."""
        return self.star_memory_size // FRAMES_PER_PAIR + self.stream_window_size // FRAMES_PER_PAIR

    def memory(self) -> SmartFrameManager:
        """Return an empty memory with these parameters.

        Raises:
            ConfigurationError: A parameter is invalid.
        """
        return MemoryConfig(self.star_memory_size, self.stream_window_size, self.importance_threshold).build()


@dataclass(frozen=True)
class PatrolUnit:
    """One combination of parameters on one patrol.

    Attributes:
        cell: Parameters of the memory.
        seed: Seed of the patrol.
        hours: Duration of the patrol, in hours.
        events: Number of brief events on the patrol.
        places: Number of places on the patrol.
    """

    cell: Cell
    seed: int
    hours: float
    events: int
    places: int

    @property
    def key(self) -> str:
        """Key of the unit's line in the result file."""
        return _key("patrol", asdict(self), _memory_code())

    @property
    def frames(self) -> int:
        """Number of frames of the patrol."""
        return round(self.hours * 3600.0 / FRAME_SEC)


@dataclass(frozen=True)
class CostUnit:
    """Cost of a full memory with a random-weight model.

    Attributes:
        pairs: Pairs in memory.
        max_pixels: Maximum height × width of a frame in memory.
        shape: Name of the model's size, a key of ``random_model.SHAPES``.
        device: Torch device of the model.
    """

    pairs: int
    max_pixels: int
    shape: str
    device: str

    @property
    def key(self) -> str:
        """Key of the unit's line in the result file."""
        return _key("cost", asdict(self), __version__)

    @property
    def visual_tokens(self) -> int:
        """Maximum number of visual tokens."""
        return self.pairs * self.max_pixels // FrameGeometry().factor ** 2


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


@cache
def _memory_code() -> str:
    """Return a hash of the code that selects and scores frames."""
    files = [file for package in (memory, ingest) for file in Path(package.__path__[0]).rglob("*.py")]
    files += Path(benchmark.__path__[0]).glob("patrol*.py")
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def run_patrol(unit: PatrolUnit) -> dict[str, float]:
    """Run a patrol through a memory, as the node would, and score the kept pairs.

    Returns:
        ``evidence``: share of the events shown by a kept sharp frame. ``places``: share of the visited places shown by
        a kept sharp frame. ``kept_pairs``: number of kept pairs.
    """
    cell = unit.cell
    patrol = draw_patrol(PatrolPlan(unit.seed, hours=unit.hours, events=unit.events, places=unit.places))
    images = PatrolImages(patrol)
    ingestor = FrameIngestor(FrameGeometry(max_pixels=cell.max_pixels), cell.memory())
    with single_threaded_opencv():
        for number in range(patrol.frames):
            image = cv2.resize(images.frame(number), CAMERA, interpolation=cv2.INTER_LINEAR)
            ingestor.add(image, number * FRAME_SEC)
        kept = {one.pair.first.number // FRAMES_PER_PAIR: one for one in ingestor.frame_manager.snapshot()}
        descriptors = {number: describe(one.pair.first.image) for number, one in kept.items()}
    score = score_selection(patrol, sorted(kept), cell.pairs, descriptors)
    return {
        "evidence": round(len(score.shown) / max(1, unit.events), 4),
        "places": round(score.places, 4),
        "kept_pairs": score.kept,
    }


def run_patrols(units: Sequence[PatrolUnit], jobs: int) -> Iterator[tuple[PatrolUnit, dict[str, float]]]:
    """Run all patrols in up to ``jobs`` processes; yield each unit with its result in order of completion."""
    if jobs == 1:
        return ((unit, run_patrol(unit)) for unit in units)
    return map_in_processes(run_patrol, units, jobs)


class ResultStore:
    """Results of finished units in a folder, by key.

    Args:
        folder: Folder of the result file; created if missing.

    Raises:
        IncompleteError: The folder cannot be created or read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESULTS_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise IncompleteError(f"cannot use the folder {folder} ({error}): choose another one with --out") from error
        self._found: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            try:
                content = json.loads(line)
                self._found[content["key"]] = content["figures"]
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by an interruption
        self._is_torn = bool(text) and not text.endswith("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._found[key]

    def add(self, key: str, figures: Mapping[str, Any]) -> None:
        """Store the result of a unit. It is on disk when this returns.

        Raises:
            IncompleteError: The file cannot be written.
        """
        line = json.dumps({"key": key, "figures": figures}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._is_torn else line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise IncompleteError(
                f"cannot write {self._path} ({error.strerror}): free disk space and run the command again; finished "
                "measurements are kept"
            ) from error
        self._is_torn = False
        self._found[key] = dict(figures)


def rows(patrols: Sequence[PatrolUnit], costs: Mapping[Cell, CostUnit], results: ResultStore) -> list[dict[str, Any]]:
    """Return the result table: one row per cell, in ascending order of bytes.

    Args:
        patrols: Patrol units of all cells.
        costs: Cost unit of each cell.
        results: Results of all units.

    Returns:
        Rows with the cell's parameters, ``evidence`` and ``places`` (means over the patrols), ``evidence_low`` and
        ``evidence_high`` (minimum and maximum), ``kept_pairs`` (mean), the figures of the cost unit, and ``best``:
        whether the cell is Pareto-optimal in bytes and evidence.
    """
    table = []
    for cell, cost in costs.items():
        measured = [results[unit.key] for unit in patrols if unit.cell == cell]
        evidence = [one["evidence"] for one in measured]
        table.append(
            {
                **asdict(cell),
                "evidence": round(float(np.mean(evidence)), 4),
                "evidence_low": min(evidence),
                "evidence_high": max(evidence),
                "places": round(float(np.mean([one["places"] for one in measured])), 4),
                "kept_pairs": round(float(np.mean([one["kept_pairs"] for one in measured])), 2),
                **results[cost.key],
            }
        )
    table.sort(key=lambda row: (row["bytes"], -row["evidence"]))
    return [{**row, "best": not any(_dominates(other, row) for other in table)} for row in table]


def _dominates(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    as_good = one["bytes"] <= other["bytes"] and one["evidence"] >= other["evidence"]
    return bool(as_good and (one["bytes"], one["evidence"]) != (other["bytes"], other["evidence"]))


def patrol_units(cells: Sequence[Cell], seeds: Sequence[int], unit: PatrolUnit) -> list[PatrolUnit]:
    """Return a copy of ``unit`` for every combination of cell and seed."""
    return [replace(unit, cell=cell, seed=seed) for cell in cells for seed in seeds]
