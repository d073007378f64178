"""One recording's evaluation from its path to its result file: what is spread over processes and machines."""

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

import torch
import transformers

from delayed_vlm_ros import __version__
from delayed_vlm_ros.errors import DelayedVlmError, IncompleteError
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import LoadedModel, load_model
from delayed_vlm_ros.replay.answerers import Methods
from delayed_vlm_ros.replay.question_file import FILE_NAME, TimedQuestion
from delayed_vlm_ros.replay.recordings import open_recording
from delayed_vlm_ros.replay.recordings.folder import DEFAULT_RATE
from delayed_vlm_ros.replay.result import is_lacking
from delayed_vlm_ros.replay.runner import Progress, Replay, ReplaySettings

RESULT_FILE = "result.json"
RESULT_VERSION = 2

_NOT_COUNTED = (".html", ".csv", ".draft")  # what lies beside a recording's files without being of it


@dataclass(frozen=True)
class ReplayJob:
    """A recording to be evaluated.

    Attributes:
        path: The recording.
        folder: Where its result goes.
        questions: In the order of their times.
        settings: How.
        topic: Which images of a bag; empty: the only ones.
        image_rate: Of a folder of images, per second.
    """

    path: str
    folder: str
    questions: tuple[TimedQuestion, ...]
    settings: ReplaySettings
    topic: str = ""
    image_rate: float = DEFAULT_RATE

    @property
    def name(self) -> str:
        """For people."""
        return Path(self.path).name

    def fingerprint(self) -> str:
        """Of all that the result depends on, files by their sizes and times.

        Raises:
            ModelNotFoundError: There is no such checkpoint.
            OSError: There is no such recording.
        """
        checkpoint = resolve_checkpoint(self.settings.model, device=self.settings.device)
        versions = (__version__, torch.__version__, transformers.__version__)
        content = (
            RESULT_VERSION,
            versions,
            torch.cuda.is_available(),
            asdict(replace(self, folder="")),
            _file_facts(Path(self.path)),
            _file_facts(checkpoint.path),
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_facts(path: Path) -> list[tuple[str, int, int]]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    counted = [file for file in files if file.is_file() and file.suffix not in _NOT_COUNTED and file.name != FILE_NAME]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in counted]


def finished_result(job: ReplayJob) -> dict[str, Any] | None:
    """The result of an earlier evaluation of the same.

    None where there is none, or it failed, or lacks an answer: that may have been the machine's fault. A damaged
    recording stays damaged.
    """
    try:
        result: dict[str, Any] = json.loads((Path(job.folder) / RESULT_FILE).read_text(encoding="utf-8"))
        if result["failed"] or result["fingerprint"] != job.fingerprint():
            return None
        answers = [answer for asked in result["questions"] for answer in asked["answers"].values()]
        lacking = any(map(is_lacking, answers))
    except (OSError, ValueError, KeyError, TypeError, DelayedVlmError):
        return None
    return None if lacking else result


def image_count(job: ReplayJob) -> int | None:
    """How many images its recording says it has; None where it does not say, or cannot be opened."""
    try:
        with open_recording(job.path, topic=job.topic, image_rate=job.image_rate) as recording:
            return recording.image_count
    except DelayedVlmError:
        return None


class Evaluator:
    """Evaluates recordings with one model, which is loaded for the first of them."""

    def __init__(self) -> None:
        self._loaded: tuple[ReplaySettings, Checkpoint, LoadedModel] | None = None

    def run(self, job: ReplayJob, told: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Evaluate a recording and write its result.

        Whatever goes wrong with the recording or the model becomes a failed result.

        Raises:
            IncompleteError: The result cannot be written.
        """
        try:
            result = self._evaluate(job, told)
        except DelayedVlmError as error:
            return write_failed(job, str(error))
        except Exception as error:  # noqa: BLE001  a defect costs this recording, not those after it
            return write_failed(job, f"{type(error).__name__}: {error}", traceback.format_exc())
        _write(job, result)
        return result

    def _evaluate(self, job: ReplayJob, told: Callable[[Progress], None]) -> dict[str, Any]:
        # Before the model is loaded: most that can be wrong is wrong here.
        fingerprint = job.fingerprint()
        memory = job.settings.memory.build()
        with open_recording(job.path, topic=job.topic, image_rate=job.image_rate) as recording:
            checkpoint, loaded = self._model(job.settings)
            geometry = checkpoint.geometry(job.settings.memory.max_pixels)
            chosen = job.settings.methods
            methods = Methods(loaded.model, loaded.processor, memory, chosen, job.settings.memory.max_pixels)
            result = Replay(recording, job.questions, memory, geometry, methods, job.settings).run(told)
        result["recording"]["path"] = job.path
        result["problems"] = [*checkpoint.warnings, *result["problems"]]
        return {
            "version": RESULT_VERSION,
            "fingerprint": fingerprint,
            "failed": False,
            **result,
            "settings": _flat(job),
            "environment": _environment(checkpoint, loaded),
        }

    def _model(self, settings: ReplaySettings) -> tuple[Checkpoint, LoadedModel]:
        if self._loaded is None or self._loaded[0] != settings:
            checkpoint = resolve_checkpoint(settings.model, device=settings.device)
            loaded = load_model(checkpoint, device=settings.device, dtype=settings.dtype)
            self._loaded = (settings, checkpoint, loaded)
        return self._loaded[1], self._loaded[2]


def write_failed(job: ReplayJob, *reasons: str) -> dict[str, Any]:
    """Write and give the result of an evaluation that could not be made.

    Raises:
        IncompleteError: It cannot be written.
    """
    result = failed_result(job, *reasons)
    _write(job, result)
    return result


def failed_result(job: ReplayJob, *reasons: str) -> dict[str, Any]:
    """The result of an evaluation that could not be made."""
    return {
        "version": RESULT_VERSION,
        "failed": True,
        "complete": False,
        "problems": list(reasons),
        "recording": {"name": job.name, "path": job.path},
    }


def _write(job: ReplayJob, result: Mapping[str, Any]) -> None:
    """Write a result in one step, so that an interruption leaves the one before."""
    folder = Path(job.folder)
    draft = folder / f"{RESULT_FILE}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
        draft.replace(folder / RESULT_FILE)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise IncompleteError(
            f"the result of {job.name} cannot be written to {folder} ({error.strerror}): make room there, or name "
            "another folder with --out, and run it again; results that are complete are not made again"
        ) from error


def _flat(job: ReplayJob) -> dict[str, Any]:
    settings = asdict(job.settings)
    settings |= {**settings.pop("memory"), "methods": ", ".join(job.settings.methods)}
    return {**settings, "topic": job.topic, "image_rate": job.image_rate}


def _environment(checkpoint: Checkpoint, loaded: LoadedModel) -> dict[str, Any]:
    device = loaded.device
    if device.startswith("cuda"):
        device = f"{device}, {torch.cuda.get_device_name(device)}"
    return {
        "delayed_vlm_ros": __version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "system": platform.platform(terse=True),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "device": device,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "model": checkpoint.name,
        "model type": loaded.model.config.model_type,
        "notices": "; ".join(checkpoint.warnings),
    }
