"""Questions on their way to the worker: checks, deadline, counters. Service and action share it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    DelayedVlmError,
    NoFramesError,
    shortened,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics, combine_metrics
from delayed_vlm_ros.inference.progress import Progress, ProgressListener
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request
from delayed_vlm_ros.inference.worker import ModelWorker
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output.reports import AskReport
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.scene_memory.engines import Engine, Engines
from delayed_vlm_ros.ros.scene_memory.parameters import (
    MAX_TIMEOUT_SEC,
    SceneMemoryParameters,
)
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, cameras_named, moment

MAX_CLIENT_ID_CHARACTERS = 255
"""Longest name of an client_id; a node's full name fits."""


@dataclass(frozen=True)
class CameraAnswer:
    """An answer about one camera.

    Attributes:
        camera: The camera.
        result: What the engine said.
        newest_frame_age_sec: Age of the newest frame used when the worker took the ask, in seconds.
    """

    camera: CameraMemory
    result: AskResult
    newest_frame_age_sec: float


@dataclass(frozen=True)
class Answer:
    """An answer with what the node knows about it.

    Attributes:
        parts: One for each camera that was asked and could answer; at least one.
        queue_latency: Seconds from the request's arrival until the worker took it.
        is_of_all: Whether all cameras were asked: then each part stands under its camera's name.
        notices: Why a camera that was asked has no part.
    """

    parts: tuple[CameraAnswer, ...]
    queue_latency: float
    is_of_all: bool = False
    notices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The model's words; of all cameras, a line for each: ``front: a red box``."""
        if not self.is_of_all:
            return self.parts[0].result.answer
        return "\n".join(_line(part.camera.name, part.result.answer) for part in self.parts)

    @property
    def metrics(self) -> AskMetrics:
        """What it cost; of all cameras, the engine's notices name theirs."""
        return combine_metrics([_under_its_name(part) if self.is_of_all else part.result.metrics for part in self.parts])

    @property
    def newest_header(self) -> FrameHeader:
        """Of the newest frame used, of all cameras."""
        newest = (part.camera.header_of(part.result.frames_used[-1].pair.last) for part in self.parts)
        return max(newest, key=lambda header: header.stamp_ns)

    @property
    def newest_frame_age_sec(self) -> float:
        """Age of the newest frame used, in seconds; of all cameras, where it is greatest: a frozen one shows."""
        return max(part.newest_frame_age_sec for part in self.parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """In which ways it is less than it should be, besides what the engine knows."""
        of_cameras = (notice for part in self.parts for notice in part.camera.warnings)
        return tuple(dict.fromkeys((*self.notices, *of_cameras)))


def ask_request(message: Any, parameters: SceneMemoryParameters) -> AskRequest:
    """Read an ``AskScene`` request or goal; its zeros become the node's defaults.

    Raises:
        BadRequestError: One of its fields makes no sense.
    """
    if len(message.question) > parameters.max_question_characters:
        raise BadRequestError(
            f"the question has {len(message.question)} characters, more than {parameters.max_question_characters}: "
            "shorten it, or raise the parameter ask.max_question_characters"
        )
    if message.max_new_tokens > parameters.max_new_tokens_limit:
        raise BadRequestError(
            f"max_new_tokens is {message.max_new_tokens}: give at most {parameters.max_new_tokens_limit}, or raise the "
            "parameter ask.max_new_tokens_limit"
        )
    if len(message.client_id) > MAX_CLIENT_ID_CHARACTERS:
        raise BadRequestError(
            f"the client_id's name has {len(message.client_id)} characters: give at most {MAX_CLIENT_ID_CHARACTERS}, or none"
        )
    request = AskRequest(
        question=message.question,
        since=moment("since", message.since),
        until=moment("until", message.until),
        last_sec=message.last_sec or None,
        max_new_tokens=message.max_new_tokens or parameters.max_new_tokens,
    )
    check_request(request)
    return request


def ask_timeout(message: Any, parameters: SceneMemoryParameters) -> float:
    """Deadline of an ``AskScene`` request or goal in seconds from now.

    Raises:
        BadRequestError: It is negative, not a number, or too long.
    """
    timeout = float(message.timeout_sec)
    if not (math.isfinite(timeout) and 0 <= timeout <= MAX_TIMEOUT_SEC):
        raise BadRequestError(
            f"timeout_sec is {timeout}: give seconds from 0 (the node's default) to {MAX_TIMEOUT_SEC:g}"
        )
    return timeout or parameters.timeout_sec


class AskHandler:
    """Takes requests to the worker, waits for the answers, and counts. Safe to use from several threads.

    Args:
        worker: Owns the model.
        cameras: By name; the first one is asked about when a request names none, all when it names ``*``.
        queue_size: Asks that may wait.
    """

    def __init__(
        self,
        worker: ModelWorker[Engines],
        cameras: Mapping[str, CameraMemory],
        queue_size: int,
    ) -> None:
        self._worker = worker
        self._cameras = cameras
        self._queue_size = queue_size
        self._counting = threading.Lock()
        self._served = self._failed = 0
        self._last_error = ""
        self._last_total_latency = self._last_time_to_first_token = 0.0

    def ask(
        self,
        message: Any,
        parameters: SceneMemoryParameters,
        *,
        control: AskControl | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Answer:
        """Answer an ``AskScene`` request or goal; blocks until the answer is there or the deadline has passed.

        Args:
            message: The request or goal.
            parameters: The node's.
            control: To cancel it by; None: it cannot be cancelled.
            told: Called in this thread with the ask's progress; of all cameras, with the text of all; None: nobody.

        Raises:
            DelayedVlmError: Why there is no answer.
        """
        try:
            answer = self._ask(message, parameters, control, on_progress)
        except Exception as error:
            self.count_failure(error)
            raise
        with self._counting:
            self._served += 1
            self._last_total_latency = answer.metrics.total_latency
            self._last_time_to_first_token = answer.metrics.time_to_first_token
        return answer

    def count_failure(self, error: Exception) -> None:
        """Count an ask that has failed; one of those, too, that never came here."""
        with self._counting:
            self._failed += 1
            self._last_error = f"{type(error).__name__}: {shortened(str(error))}"

    def _ask(
        self,
        message: Any,
        parameters: SceneMemoryParameters,
        control: AskControl | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Answer:
        arrived = time.monotonic()
        asked = cameras_named(self._cameras, message.camera)
        request = ask_request(message, parameters)
        timeout_sec = ask_timeout(message, parameters)
        if all(camera.frame_manager.newest_stamp is None for camera in asked):
            raise NoFramesError("; ".join(_nothing_seen(camera) for camera in asked))
        asking = _MultiCameraAsk(asked, arrived, is_of_all=message.camera == ALL_CAMERAS)

        def answer(engines: Engines, control: AskControl) -> Answer:
            asking.taken()
            for camera in asked:
                asking.ask(camera, engines.by_camera[camera.name], request, control)
            return asking.answer()

        try:
            return self._worker.run(
                answer, timeout_sec, control=control, client_id=message.client_id, on_progress=on_progress
            )
        except AskTimeoutError as error:
            # What some cameras have said by now is not lost; of the worker itself nothing would be heard any more.
            answer_so_far = asking.answer_so_far(str(error))
            if answer_so_far is None:
                raise
            return answer_so_far

    def report(self) -> AskReport:
        """How the asks go."""
        status = self._worker.status
        with self._counting:
            return AskReport(
                served=self._served,
                failed=self._failed,
                running=status.running,
                waiting=status.waiting,
                queue_size=self._queue_size,
                last_error=self._last_error,
                last_total_latency=self._last_total_latency,
                last_time_to_first_token=self._last_time_to_first_token,
            )


class _MultiCameraAsk:
    """The cameras of one ask, asked one after the other, and what has come of it so far.

    The worker's thread fills it; the client_id's may take what there is when its deadline has passed.

    Args:
        asked: The cameras.
        arrived: When the request came, on the clock of ``time.monotonic``.
        is_of_all: Whether they are asked as all there are.
    """

    def __init__(self, asked: Sequence[CameraMemory], arrived: float, *, is_of_all: bool) -> None:
        self._asked = asked
        self._arrived = arrived
        self._is_of_all = is_of_all
        self._queue_latency = 0.0
        self._started = 0.0
        self._parts: list[CameraAnswer] = []
        self._failures: dict[str, DelayedVlmError] = {}

    def taken(self) -> None:
        """Note that the worker begins."""
        self._started = time.monotonic()
        self._queue_latency = self._started - self._arrived

    def ask(self, camera: CameraMemory, engine: Engine, request: AskRequest, control: AskControl) -> None:
        """Ask about one camera; what it cannot answer is kept for the notices.

        Raises:
            AskCancelledError: The ask was cancelled.
        """
        listener = control.listener
        if self._is_of_all and listener is not None:
            control.listener = _ListenerOfOne(listener, camera.name, tuple(self._parts))
        try:
            control.check()
            result = engine.answer(request, control)
        except AskCancelledError:
            raise
        except DelayedVlmError as error:
            # The frames of its traceback would hold the device's memory while the next camera is asked.
            self._failures[camera.name] = error.with_traceback(None)
            return
        finally:
            control.listener = listener
        newest = result.frames_used[-1].pair.last
        # Its age as the worker took the ask: the model's time does not count.
        age_sec = max(0.0, camera.age_sec(newest) - (time.monotonic() - self._started))
        self._parts.append(CameraAnswer(camera, result, age_sec))

    def answer(self) -> Answer:
        """What the cameras have said.

        Raises:
            DelayedVlmError: None of them has said anything; why.
        """
        if not self._parts:
            try:
                raise _why_nobody(self._failures)
            finally:
                self._failures.clear()  # through them, the error would hold itself alive
        return self._answer(tuple(self._parts), "")

    def answer_so_far(self, late: str) -> Answer | None:
        """What the cameras have said until the deadline; None when none of them has said anything.

        Args:
            late: What is to be said of those that were not asked to the end.
        """
        parts = tuple(self._parts)
        return self._answer(parts, late) if parts else None

    def _answer(self, parts: tuple[CameraAnswer, ...], late: str) -> Answer:
        said = {part.camera.name for part in parts}
        notices = tuple(
            f"camera {camera.name} is not in the answer: {self._failures.get(camera.name, late)}"
            for camera in self._asked
            if camera.name not in said
        )
        return Answer(parts, self._queue_latency, self._is_of_all, notices)


class _ListenerOfOne:
    """Tells of one camera's progress as that of an ask about all of them.

    Args:
        listener: Hears it.
        camera: The camera's name.
        before: What others have answered already.
    """

    def __init__(self, listener: ProgressListener, camera: str, before: Sequence[CameraAnswer]) -> None:
        self._listener = listener
        self._camera = camera
        self._lines = tuple(_line(part.camera.name, part.result.answer) for part in before)
        self._tokens = sum(part.result.metrics.answer_tokens for part in before)

    @property
    def wants_text(self) -> bool:
        return self._listener.wants_text

    def report(self, progress: Progress) -> None:
        lines = (*self._lines, _line(self._camera, progress.text)) if progress.text else self._lines
        self._listener.report(Progress(progress.stage, "\n".join(lines), self._tokens + progress.answer_tokens))


def _line(camera: str, text: str) -> str:
    return f"{camera}: {' '.join(text.split())}"


def _why_nobody(failures: Mapping[str, DelayedVlmError]) -> DelayedVlmError:
    others = [error for error in failures.values() if not isinstance(error, NoFramesError)]
    if others:
        return others[0]
    if len(failures) == 1:
        return next(iter(failures.values()))
    return NoFramesError("; ".join(f"camera {name}: {error}" for name, error in failures.items()))


def _under_its_name(part: CameraAnswer) -> AskMetrics:
    notices = tuple(f"camera {part.camera.name}: {notice}" for notice in part.result.metrics.warnings)
    return replace(part.result.metrics, warnings=notices)


def _nothing_seen(camera: CameraMemory) -> str:
    dropped = f" The last image was dropped: {camera.last_drop_reason}." if camera.last_drop_reason else ""
    return (
        f"no frames: camera {camera.name} has nothing in its memory.{dropped} Check that images arrive on "
        f"{camera.topic}, then ask again"
    )
