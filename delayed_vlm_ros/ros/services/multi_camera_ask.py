"""One question to one or several cameras: the answers of the engines, combined."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from delayed_vlm_ros.errors import AskCancelledError, DelayedVlmError, NoFramesError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics, combine_metrics
from delayed_vlm_ros.inference.progress import Progress, ProgressListener
from delayed_vlm_ros.inference.request import AskRequest, AskResult
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


@dataclass(frozen=True)
class Answer:
    """The combined answer of all cameras of a question.

    Attributes:
        parts: One answer for each camera that could answer; at least one.
        queue_latency: Time from the arrival of the request to the start of processing, in seconds.
        is_of_all: Whether the question was for all cameras: each part then carries its camera's name.
        missing: One sentence for each camera without an answer.
    """

    parts: tuple[CameraAnswer, ...]
    queue_latency: float
    is_of_all: bool = False
    missing: tuple[str, ...] = ()

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
    def newest_header(self) -> FrameHeader:
        """The header of the newest frame used by any camera."""
        headers = (part.camera.header_of(part.result.frames_used[-1].pair.last) for part in self.parts)
        return max(headers, key=lambda header: header.stamp_ns)

    @property
    def newest_frame_age_sec(self) -> float:
        """The age of each camera's newest frame used, in seconds; the largest, so that a frozen camera shows."""
        return max(part.newest_frame_age_sec for part in self.parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The limitations that the engine does not know: missing cameras, and the cameras' own warnings."""
        of_cameras = (warning for part in self.parts for warning in part.camera.warnings)
        return tuple(dict.fromkeys((*self.missing, *of_cameras)))


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
        self._failures: dict[str, DelayedVlmError] = {}

    def run(self, engines: Engines, control: AskControl) -> Answer:
        """Ask all cameras and return their answer.

        Raises:
            AskCancelledError: The question was cancelled.
            DelayedVlmError: No camera could answer.
        """
        self._started = time.monotonic()
        for camera in self._cameras:
            self._ask(camera, engines, control)
        if self._parts:
            return self._answer(tuple(self._parts), "")
        try:
            raise _combined_error(self._failures)
        finally:
            self._failures.clear()  # the error would keep itself alive through them

    def partial_answer(self, reason: str) -> Answer | None:
        """Return the answer of the cameras that have answered so far; None if there are none.

        Args:
            reason: Why the other cameras have not answered.
        """
        parts = tuple(self._parts)
        return self._answer(parts, reason) if parts else None

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
            self._failures[camera.name] = error.with_traceback(None)
            return
        finally:
            control.listener = listener
        newest = result.frames_used[-1].pair.last
        # The age when processing started: the model's time does not count.
        age_sec = max(0.0, camera.age_sec(newest) - (time.monotonic() - self._started))
        self._parts.append(CameraAnswer(camera, result, age_sec))

    def _answer(self, parts: tuple[CameraAnswer, ...], reason: str) -> Answer:
        answered = {part.camera.name for part in parts}
        missing = tuple(
            f"camera {camera.name} is not in the answer: {self._failures.get(camera.name, reason)}"
            for camera in self._cameras
            if camera.name not in answered
        )
        return Answer(parts, self._started - self._arrived, self._is_of_all, missing)


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


def _combined_error(failures: Mapping[str, DelayedVlmError]) -> DelayedVlmError:
    others = [error for error in failures.values() if not isinstance(error, NoFramesError)]
    if others:
        return others[0]
    if len(failures) == 1:
        return next(iter(failures.values()))
    return NoFramesError("; ".join(f"camera {name}: {error}" for name, error in failures.items()))


def _named_metrics(part: CameraAnswer) -> AskMetrics:
    warnings = tuple(f"camera {part.camera.name}: {warning}" for warning in part.result.metrics.warnings)
    return replace(part.result.metrics, warnings=warnings)
