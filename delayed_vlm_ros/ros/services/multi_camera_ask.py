"""One question to one or several cameras: the answers of the engines, combined."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, DelayedVlmError, NoFramesError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics, combine_metrics
from delayed_vlm_ros.inference.progress import Progress, ProgressListener
from delayed_vlm_ros.inference.request import MAX_EVIDENCE, AskRequest, AskResult, Evidence
from delayed_vlm_ros.inference.time_words import TimeWords
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.engines import Engines


@dataclass(frozen=True)
class CameraAnswer:
    """The answer of one camera.

    Attributes:
        camera: The camera.
        result: Result of the engine.
        newest_frame_age_sec: Age of the newest frame used when processing started, in seconds.
    """

    camera: CameraMemory
    result: AskResult
    newest_frame_age_sec: float

    @property
    def newest_header(self) -> FrameHeader:
        """The header of the newest frame used."""
        return self.camera.header_of(self.result.frames_used[-1].pair.last)


@dataclass(frozen=True)
class CameraFailure:
    """The error of one camera.

    Attributes:
        camera: The camera.
        error: Why it could not answer.
    """

    camera: CameraMemory
    error: DelayedVlmError


@dataclass(frozen=True)
class Answer:
    """The combined answer of all cameras of a question.

    Attributes:
        parts: One answer for each camera that could answer; empty only for a question to all cameras.
        queue_latency: Time from the arrival of the request to the start of processing, in seconds.
        is_of_all: Whether the question was for all cameras: each part then carries its camera's name.
        failures: The cameras without an answer.
        time_words: The words of the question that its time limits come from; None: they were not read.
    """

    parts: tuple[CameraAnswer, ...]
    queue_latency: float
    is_of_all: bool = False
    failures: tuple[CameraFailure, ...] = ()
    time_words: TimeWords | None = None

    @property
    def error(self) -> DelayedVlmError | None:
        """The error of the question if no camera could answer."""
        return None if self.parts else _combined_error(self.failures)

    @property
    def text(self) -> str:
        """The model's answer; for all cameras, one line per camera: ``front: a red box``."""
        if not self.is_of_all:
            return self.parts[0].result.answer
        return "\n".join(_line(part.camera.name, part.result.answer) for part in self.parts)

    @property
    def metrics(self) -> AskMetrics:
        """The cost of all parts; for all cameras, each of the engine's warnings names its camera."""
        return combine_metrics([_named_metrics(part) if self.is_of_all else part.result.metrics for part in self.parts])

    @property
    def evidence(self) -> tuple[tuple[Evidence, CameraMemory], ...]:
        """The pairs that the answer rests on most with their cameras, best first, at most ``MAX_EVIDENCE``.

        The relevance of a pair is its share of its own camera's answer. With several cameras, a pair is the better the
        more often its share is that of an average pair of its camera: one of few pairs has a large share anyway.
        """
        found = [
            (one.relevance * len(part.result.frames_used), one, part.camera)
            for part in self.parts
            for one in part.result.evidence
        ]
        return tuple((one, camera) for _, one, camera in sorted(found, key=lambda one: -one[0])[:MAX_EVIDENCE])

    @property
    def newest_header(self) -> FrameHeader:
        """The header of the newest frame used by any camera."""
        return max((part.newest_header for part in self.parts), key=lambda header: header.stamp_ns)

    @property
    def newest_frame_age_sec(self) -> float:
        """The age of each camera's newest frame used, in seconds; the largest, so that a frozen camera shows."""
        return max(part.newest_frame_age_sec for part in self.parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The limitations that the engine does not know: missing cameras, words about time, cameras' warnings."""
        missing = (f"camera {failed.camera.name} is not in the answer: {failed.error}" for failed in self.failures)
        of_time = () if self.time_words is None else self.time_words.warnings
        of_cameras = (warning for part in self.parts for warning in part.camera.warnings)
        return tuple(dict.fromkeys((*missing, *of_time, *of_cameras)))


class MultiCameraAsk:
    """Asks the cameras of one question one after another and collects their answers.

    The worker's thread runs it. Another thread may take the partial answer when the deadline passes.

    Args:
        request: The question.
        cameras: Cameras to ask.
        is_of_all: Whether the question is for all cameras.
    """

    def __init__(self, request: AskRequest, cameras: Sequence[CameraMemory], *, is_of_all: bool) -> None:
        self._request = request
        self._cameras = cameras
        self._is_of_all = is_of_all
        self._arrived = self._started = time.monotonic()
        self._parts: list[CameraAnswer] = []
        self._failures: dict[str, CameraFailure] = {}

    def run(self, engines: Engines, control: AskControl) -> Answer:
        """Ask all cameras and return their answer.

        Raises:
            AskCancelledError: The question was cancelled.
            DelayedVlmError: The question was for one camera, which could not answer.
        """
        self._started = time.monotonic()
        for camera in self._cameras:
            self._ask(camera, engines, control)
        if self._parts or self._is_of_all:
            return self._answer(tuple(self._parts))
        try:
            raise self._failures[self._cameras[0].name].error
        finally:
            self._failures.clear()  # the error would keep itself alive through them

    def partial_answer(self, timeout: AskTimeoutError) -> Answer | None:
        """Return the answer of the cameras that have answered so far; None if there are none.

        Args:
            timeout: Error of the other cameras.
        """
        parts = tuple(self._parts)
        return self._answer(parts, timeout) if parts else None

    def _ask(self, camera: CameraMemory, engines: Engines, control: AskControl) -> None:
        listener = control.listener
        if self._is_of_all and listener is not None:
            control.listener = _CameraListener(listener, camera.name, tuple(self._parts))
        try:
            control.check()
            result = engines.by_camera[camera.name].answer(self._request, control)
        except AskCancelledError:
            raise
        except DelayedVlmError as error:
            # The frames of its traceback would keep device memory while the next camera is asked.
            self._failures[camera.name] = CameraFailure(camera, error.with_traceback(None))
            return
        finally:
            control.listener = listener
        newest = result.frames_used[-1].pair.last
        # The age when processing started: the model's time does not count.
        age_sec = max(0.0, camera.age_sec(newest) - (time.monotonic() - self._started))
        self._parts.append(CameraAnswer(camera, result, age_sec))

    def _answer(self, parts: tuple[CameraAnswer, ...], timeout: AskTimeoutError | None = None) -> Answer:
        failures = dict(self._failures)
        if timeout is not None:
            answered = {part.camera.name for part in parts}
            late = (camera for camera in self._cameras if camera.name not in answered)
            failures = {camera.name: CameraFailure(camera, timeout) for camera in late} | failures
        latency, words = self._started - self._arrived, self._request.time_words
        return Answer(parts, latency, self._is_of_all, tuple(failures.values()), words)


class _CameraListener:
    """Reports one camera's progress as progress of the question to all cameras.

    Args:
        listener: Receives the progress.
        camera: Name of the camera.
        answered: Answers of the cameras before this one.
    """

    def __init__(self, listener: ProgressListener, camera: str, answered: Sequence[CameraAnswer]) -> None:
        self._listener = listener
        self._camera = camera
        self._lines = tuple(_line(part.camera.name, part.result.answer) for part in answered)
        self._tokens = sum(part.result.metrics.answer_tokens for part in answered)

    @property
    def wants_text(self) -> bool:
        return self._listener.wants_text

    def report(self, progress: Progress) -> None:
        lines = (*self._lines, _line(self._camera, progress.text)) if progress.text else self._lines
        self._listener.report(Progress(progress.stage, "\n".join(lines), self._tokens + progress.answer_tokens))


def _line(camera: str, text: str) -> str:
    return f"{camera}: {' '.join(text.split())}"


def _combined_error(failures: Sequence[CameraFailure]) -> DelayedVlmError:
    others = [failed.error for failed in failures if not isinstance(failed.error, NoFramesError)]
    if others:
        return others[0]
    return NoFramesError("; ".join(f"camera {failed.camera.name}: {failed.error}" for failed in failures))


def _named_metrics(part: CameraAnswer) -> AskMetrics:
    warnings = tuple(f"camera {part.camera.name}: {warning}" for warning in part.result.metrics.warnings)
    return replace(part.result.metrics, warnings=warnings)
