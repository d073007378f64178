"""Evaluate one recording, from its path to its result file. Jobs are distributed over processes and machines."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from delayed_vlm_ros import __version__
from delayed_vlm_ros.errors import DelayedVlmError, IncompleteError
from delayed_vlm_ros.replay.models import ReplayModel, load_model, model_identity
from delayed_vlm_ros.replay.question_file import FILE_NAME, TimedQuestion
from delayed_vlm_ros.replay.recordings import open_recording
from delayed_vlm_ros.replay.recordings.folder import DEFAULT_RATE
from delayed_vlm_ros.replay.result import is_missing
from delayed_vlm_ros.replay.runner import Progress, Replay, ReplaySettings
from delayed_vlm_ros.replay.watch_file import TimedWatch
from delayed_vlm_ros.replay.watching import WatchReplay
from delayed_vlm_ros.text import escaped_json

RESULT_FILE = "result.json"
RESULT_VERSION = 7

_IGNORED_SUFFIXES = (".html", ".csv", ".draft")  # files next to a recording that are not part of it


@dataclass(frozen=True)
class ReplayJob:
    """A recording to evaluate.

    Attributes:
        path: Path of the recording.
        folder: Folder of the result file.
        questions: Questions in the order of their times.
        settings: Settings of the replay.
        topic: Image topic of a bag; empty selects the only topic with images.
        image_rate: Images per second of a folder whose file names are not times.
        watches: Standing questions.
    """

    path: str
    folder: str
    questions: tuple[TimedQuestion, ...]
    settings: ReplaySettings
    topic: str = ""
    image_rate: float = DEFAULT_RATE
    watches: tuple[TimedWatch, ...] = ()

    @property
    def name(self) -> str:
        """File or folder name of the recording."""
        return Path(self.path).name

    def fingerprint(self) -> str:
        """Return a hash of everything that the result depends on; files count by size and modification time.

        The model on a server counts by its name alone: a server that has changed does not say so.

        Raises:
            ModelNotFoundError: The checkpoint does not exist.
            OSError: The recording does not exist.
        """
        model = model_identity(self.settings)
        content = (
            RESULT_VERSION,
            (__version__, *model.versions),
            asdict(replace(self, folder="")),
            _file_states(Path(self.path)),
            [] if model.folder is None else _file_states(model.folder),
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _file_states(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of each file of a recording or checkpoint."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    counted = [
        file for file in files if file.is_file() and file.suffix not in _IGNORED_SUFFIXES and file.name != FILE_NAME
    ]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in counted]


def finished_result(job: ReplayJob) -> dict[str, Any] | None:
    """Return the result of an earlier evaluation of the same job.

    Returns:
        The result; None if there is none, or if it failed or lacks an answer, as the machine may have been the cause.
        Missing images are no reason to evaluate a recording again.
    """
    try:
        result: dict[str, Any] = json.loads((Path(job.folder) / RESULT_FILE).read_text(encoding="utf-8"))
        if result["error"] or result["fingerprint"] != job.fingerprint():
            return None
        answers = [answer for question in result["questions"] for answer in question["answers"].values()]
        lacks_answer = any(map(is_missing, answers)) or bool((result["watch_summary"] or {}).get("failures"))
    except (OSError, ValueError, KeyError, TypeError, DelayedVlmError):
        return None
    return None if lacks_answer else result


def image_count(job: ReplayJob) -> int | None:
    """Return the image count that the recording states; None if it states none or cannot be opened."""
    try:
        with open_recording(job.path, topic=job.topic, image_rate=job.image_rate) as recording:
            return recording.image_count
    except DelayedVlmError:
        return None


class Evaluator:
    """Evaluates recordings with one model, which the first of them loads."""

    def __init__(self) -> None:
        self._loaded: tuple[ReplaySettings, ReplayModel] | None = None

    def run(self, job: ReplayJob, on_progress: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Evaluate a recording and write its result. An error of the recording or the model is part of the result.

        Args:
            job: Recording to evaluate.
            on_progress: Called after each image and each question.

        Raises:
            IncompleteError: The result cannot be written.
        """
        try:
            result = self._evaluate(job, on_progress)
        except DelayedVlmError as error:
            return write_failed_result(job, str(error))
        except Exception as error:  # noqa: BLE001  a defect fails this recording, not later ones
            return write_failed_result(job, f"{type(error).__name__}: {error}", traceback.format_exc())
        _write(job, result)
        return result

    def _evaluate(self, job: ReplayJob, on_progress: Callable[[Progress], None]) -> dict[str, Any]:
        # These steps find most mistakes, so they run before the model is loaded.
        fingerprint = job.fingerprint()
        memory = job.settings.memory.build()
        with open_recording(job.path, topic=job.topic, image_rate=job.image_rate) as recording:
            model = self._load(job.settings)
            max_pixels = job.settings.memory.max_pixels
            answerers = model.answerers(memory, max_pixels)
            watching = WatchReplay(job.watches, model.watch_engine(memory, max_pixels), memory) if job.watches else None
            geometry = model.geometry(max_pixels)
            replay = Replay(recording, job.questions, memory, geometry, answerers, job.settings, watching)
            result = replay.run(on_progress)
        result["recording"]["path"] = job.path
        result["warnings"] = [*model.warnings, *result["warnings"]]
        return {
            "version": RESULT_VERSION,
            "fingerprint": fingerprint,
            "error": "",
            **result,
            "settings": _flat_settings(job, model),
            "environment": _environment(model),
        }

    def close(self) -> None:
        """Close the connection to a model server."""
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None

    def _load(self, settings: ReplaySettings) -> ReplayModel:
        if self._loaded is None or self._loaded[0] != settings:
            self.close()
            self._loaded = (settings, load_model(settings))
        return self._loaded[1]


def write_failed_result(job: ReplayJob, error: str, trace: str = "") -> dict[str, Any]:
    """Write and return the result of a failed evaluation.

    Raises:
        IncompleteError: The result cannot be written.
    """
    result = failed_result(job, error, trace)
    _write(job, result)
    return result


def failed_result(job: ReplayJob, error: str, trace: str = "") -> dict[str, Any]:
    """Return the result of a failed evaluation.

    Args:
        job: Recording that was not evaluated.
        error: Reason in one sentence.
        trace: Traceback of a defect; empty for other errors.
    """
    return {
        "version": RESULT_VERSION,
        "error": error,
        "traceback": trace,
        "complete": False,
        "warnings": [],
        "recording": {"name": job.name, "path": job.path},
    }


def _write(job: ReplayJob, result: Mapping[str, Any]) -> None:
    """Replace the result file in one step, so that an interruption leaves the earlier one intact."""
    folder = Path(job.folder)
    draft = folder / f"{RESULT_FILE}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(escaped_json(result, indent=None), encoding="utf-8")
        draft.replace(folder / RESULT_FILE)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise IncompleteError(
            f"cannot write the result of {job.name} to {folder} ({error.strerror}): free disk space, or name another "
            "folder with --out, and run the command again; it skips recordings with a complete result"
        ) from error


def _flat_settings(job: ReplayJob, model: ReplayModel) -> dict[str, Any]:
    settings = asdict(job.settings)
    remote = {f"remote_{name}": value for name, value in settings.pop("remote").items()} if model.is_remote else {}
    settings.pop("remote", None)
    settings |= {**settings.pop("memory"), **remote, "methods": ", ".join(model.methods)}
    return {**settings, "topic": job.topic, "image_rate": job.image_rate}


def _environment(model: ReplayModel) -> dict[str, Any]:
    return {
        "delayed_vlm_ros": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(terse=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        **model.environment,
        "model warnings": "; ".join(model.notes),
    }
