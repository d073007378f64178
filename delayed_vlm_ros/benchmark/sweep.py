"""A memory's parameters one against the other: what is kept of patrols, and what a full memory costs.

Work is cut into units, each of which gives one line of a file as soon as it is done: whoever is interrupted goes on
where it was. Lines of another version of the memory are passed over.
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

from delayed_vlm_ros import __version__, benchmark, memory
from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import PatrolImages
from delayed_vlm_ros.benchmark.patrol_scores import score_selection
from delayed_vlm_ros.benchmark.process_pool import map_in_processes, single_threaded_opencv
from delayed_vlm_ros.errors import IncompleteError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager, describe
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

LINES_FILE = "cells.jsonl"
CAMERA = (640, 480)
"""Columns and rows of the camera's images."""


@dataclass(frozen=True)
class Cell:
    """One choice of parameters; sizes count frames.

    Attributes:
        star_memory_size: Key frames over the whole past.
        stream_window_size: Newest frames.
        importance_threshold: Importance from which a frame is a key frame.
        max_pixels: Largest height × width of a remembered frame.
    """

    star_memory_size: int
    stream_window_size: int
    importance_threshold: float
    max_pixels: int

    @property
    def pairs(self) -> int:
        """Pairs that a full memory holds."""
        return self.star_memory_size // FRAMES_PER_PAIR + self.stream_window_size // FRAMES_PER_PAIR

    def memory(self) -> SmartFrameManager:
        """An empty one, as the node would make it.

        Raises:
            ConfigurationError: Its sizes cannot work.
        """
        return MemoryConfig(self.star_memory_size, self.stream_window_size, self.importance_threshold).build()


@dataclass(frozen=True)
class PatrolUnit:
    """One cell's memory on one patrol.

    Attributes:
        cell: Which parameters.
        seed: Of the patrol.
        hours: Its length.
        events: Brief things that happen on it.
        places: That it visits.
    """

    cell: Cell
    seed: int
    hours: float
    events: int
    places: int

    @property
    def key(self) -> str:
        """What its line is found by."""
        return _key("patrol", asdict(self), _memory_code())

    @property
    def frames(self) -> int:
        """That the patrol has."""
        return round(self.hours * 3600.0 / FRAME_SEC)


@dataclass(frozen=True)
class CostUnit:
    """What a full memory of a size costs, with a model of random weights.

    Attributes:
        pairs: That it holds.
        max_pixels: Largest height × width of a frame.
        shape: Of the model.
        device: Where it runs.
    """

    pairs: int
    max_pixels: int
    shape: str
    device: str

    @property
    def key(self) -> str:
        """What its line is found by."""
        return _key("cost", asdict(self), __version__)

    @property
    def visual_tokens(self) -> int:
        """That the model reads, at most."""
        return self.pairs * self.max_pixels // FrameGeometry().factor ** 2


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


@cache
def _memory_code() -> str:
    """Of all lines of code that decide what is kept and how it is judged."""
    folders = [Path(package.__path__[0]) for package in (memory, benchmark)]
    files = [*folders[0].rglob("*.py"), *folders[1].glob("patrol*.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def show_patrol(unit: PatrolUnit) -> dict[str, float]:
    """Show a patrol to a memory, as the node would, and score what it kept.

    Returns:
        ``evidence``, the share of the events that it kept a sharp frame of; ``places``, the same of the visited places;
        ``kept_pairs``.
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
        looks = {number: describe(one.pair.first.image) for number, one in kept.items()}
    judgement = score_selection(patrol, sorted(kept), cell.pairs, looks)
    return {
        "evidence": round(len(judgement.shown) / max(1, unit.events), 4),
        "places": round(judgement.places, 4),
        "kept_pairs": judgement.kept,
    }


def show_patrols(units: Sequence[PatrolUnit], jobs: int) -> Iterator[tuple[PatrolUnit, dict[str, float]]]:
    """Show all of them, over so many processes; results come as they are ready."""
    if jobs == 1:
        return ((unit, show_patrol(unit)) for unit in units)
    return map_in_processes(show_patrol, units, jobs)


class ResultStore:
    """The lines of a folder, by their units' keys.

    Args:
        folder: Where they are kept; made if need be.

    Raises:
        IncompleteError: The folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LINES_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise IncompleteError(
                f"the folder {folder} cannot be used ({error}): name another one with --out"
            ) from error
        self._found: dict[str, dict[str, Any]] = {}
        for line in text.splitlines():
            try:
                content = json.loads(line)
                self._found[content["key"]] = content["figures"]
            except (ValueError, KeyError, TypeError):
                continue  # the line at which an interruption came
        self._is_torn = bool(text) and not text.endswith("\n")

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._found[key]

    def add(self, key: str, figures: Mapping[str, Any]) -> None:
        """Keep a unit's figures, on the disk before this returns.

        Raises:
            IncompleteError: They cannot be written.
        """
        line = json.dumps({"key": key, "figures": figures}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._is_torn else line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise IncompleteError(
                f"{self._path} cannot be written ({error.strerror}): make room there, and run the command again; what "
                "is done is kept"
            ) from error
        self._is_torn = False
        self._found[key] = dict(figures)


def rows(patrols: Sequence[PatrolUnit], costs: Mapping[Cell, CostUnit], lines: ResultStore) -> list[dict[str, Any]]:
    """The table: one row for each cell, those that take the fewest bytes first.

    Args:
        patrols: All that were shown.
        costs: For each cell, what tells its cost.
        lines: With all figures.

    Returns:
        The cell's parameters; ``evidence`` and ``places`` (means over the patrols, with ``evidence_low`` and
        ``evidence_high``), ``kept_pairs``, the figures of its cost, and ``best``: whether no other cell keeps as much
        evidence in fewer bytes, or more in as many.
    """
    table = []
    for cell, cost in costs.items():
        shown = [lines[unit.key] for unit in patrols if unit.cell == cell]
        evidence = [one["evidence"] for one in shown]
        table.append(
            {
                **asdict(cell),
                "evidence": round(float(np.mean(evidence)), 4),
                "evidence_low": min(evidence),
                "evidence_high": max(evidence),
                "places": round(float(np.mean([one["places"] for one in shown])), 4),
                "kept_pairs": round(float(np.mean([one["kept_pairs"] for one in shown])), 2),
                **lines[cost.key],
            }
        )
    table.sort(key=lambda row: (row["bytes"], -row["evidence"]))
    return [{**row, "best": not any(_beats(other, row) for other in table)} for row in table]


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    as_good = one["bytes"] <= other["bytes"] and one["evidence"] >= other["evidence"]
    return bool(as_good and (one["bytes"], one["evidence"]) != (other["bytes"], other["evidence"]))


def patrol_units(cells: Sequence[Cell], seeds: Sequence[int], unit: PatrolUnit) -> list[PatrolUnit]:
    """Every cell on every patrol, a patrol being like that of ``unit`` but for its seed."""
    return [replace(unit, cell=cell, seed=seed) for cell in cells for seed in seeds]
