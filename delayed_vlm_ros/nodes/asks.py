"""Questions on their way to the worker: checks, deadline, counters. Service and action share it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.nodes.camera_memory import CameraMemory
from delayed_vlm_ros.nodes.engines import Engines
from delayed_vlm_ros.nodes.reports import AskReport
from delayed_vlm_ros.nodes.requests import ALL_CAMERAS, cameras_named, moment
from delayed_vlm_ros.nodes.scene_memory_parameters import (
    MAX_NEW_TOKENS_LIMIT,
    MAX_TIMEOUT_SEC,
    SceneMemoryParameters,
)
from delayed_vlm_ros.nodes.stamps import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.vlm.control import AskControl
from delayed_vlm_ros.vlm.metrics import AskMetrics, in_a_row
from delayed_vlm_ros.vlm.request import AskRequest, AskResult, check_request
from delayed_vlm_ros.vlm.worker import ModelWorker


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
        parts: One for each camera that was asked and has frames to answer from; at least one.
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
        return "\n".join(f"{part.camera.name}: {part.result.answer}" for part in self.parts)

    @property
    def metrics(self) -> AskMetrics:
        """What it cost."""
        return in_a_row([part.result.metrics for part in self.parts])

    @property
    def newest_frame_age_sec(self) -> float:
        """Age of the newest frame used, in seconds; of all cameras, where it is greatest: a frozen one shows."""
        return max(part.newest_frame_age_sec for part in self.parts)

    @property
    def degraded(self) -> tuple[str, ...]:
        """In which ways it is less than it should be, besides what the engine knows."""
        of_cameras = (notice for part in self.parts for notice in part.camera.degraded)
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
    if message.max_new_tokens > MAX_NEW_TOKENS_LIMIT:
        raise BadRequestError(f"max_new_tokens is {message.max_new_tokens}: give at most {MAX_NEW_TOKENS_LIMIT}")
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


class AskDesk:
    """Takes requests to the worker, waits for the answers, and counts. Safe to use from several threads.

    Args:
        worker: Owns the model.
        cameras: By name; the first one is asked about when a request names none, all when it names ``*``.
        queue_size: Asks that may wait.
        now_ns: The node's clock, in nanoseconds.
    """

    def __init__(
        self,
        worker: ModelWorker[Engines],
        cameras: Mapping[str, CameraMemory],
        queue_size: int,
        now_ns: Callable[[], int],
    ) -> None:
        self._worker = worker
        self._cameras = cameras
        self._queue_size = queue_size
        self._now_ns = now_ns
        self._counting = threading.Lock()
        self._served = self._failed = 0
        self._last_error = ""
        self._last_total_latency = self._last_time_to_first_token = 0.0

    def ask(self, message: Any, parameters: SceneMemoryParameters) -> Answer:
        """Answer an ``AskScene`` request or goal; blocks until the answer is there or the deadline has passed.

        Raises:
            DelayedVlmError: Why there is no answer.
        """
        try:
            answer = self._ask(message, parameters)
        except Exception as error:
            with self._counting:
                self._failed += 1
                self._last_error = f"{type(error).__name__}: {error}"
            raise
        with self._counting:
            self._served += 1
            self._last_total_latency = answer.metrics.total_latency
            self._last_time_to_first_token = answer.metrics.time_to_first_token
        return answer

    def _ask(self, message: Any, parameters: SceneMemoryParameters) -> Answer:
        arrived = time.monotonic()
        asked = cameras_named(self._cameras, message.camera)
        request = ask_request(message, parameters)
        timeout_sec = ask_timeout(message, parameters)
        if all(camera.frame_manager.newest_stamp is None for camera in asked):
            raise NoFramesError(" ".join(_nothing_seen(camera) for camera in asked))

        def answer(engines: Engines, control: AskControl) -> Answer:
            queue_latency = time.monotonic() - arrived
            started_ns = self._now_ns()
            parts, missing = [], []
            for camera in asked:
                try:
                    result = engines.by_camera[camera.name].answer(request, control)
                except NoFramesError as error:
                    missing.append((camera, error))
                    continue
                newest = camera.header_of(result.frames_used[-1].stamps[1])
                parts.append(CameraAnswer(camera, result, age_sec(newest.stamp_ns, started_ns)))
            if not parts:
                raise missing[0][1]
            notices = tuple(f"camera {camera.name} is not in the answer: {error}" for camera, error in missing)
            return Answer(tuple(parts), queue_latency, message.camera == ALL_CAMERAS, notices)

        return self._worker.run(answer, timeout_sec)

    def report(self) -> AskReport:
        """How the asks go."""
        with self._counting:
            return AskReport(
                served=self._served,
                failed=self._failed,
                running=self._worker.running,
                waiting=self._worker.waiting,
                queue_size=self._queue_size,
                last_error=self._last_error,
                last_total_latency=self._last_total_latency,
                last_time_to_first_token=self._last_time_to_first_token,
            )


def age_sec(stamp_ns: int, now_ns: int) -> float:
    """Seconds from a stamp to now; 0.0 for a stamp ahead of the clock."""
    return max(0.0, (now_ns - stamp_ns) / NANOSECONDS_PER_SECOND)


def _nothing_seen(camera: CameraMemory) -> str:
    dropped = f" The last picture was dropped: {camera.last_drop_reason}." if camera.last_drop_reason else ""
    return (
        f"no frames: camera {camera.name} has nothing in its memory.{dropped} Check that pictures arrive on "
        f"{camera.topic}, then ask again"
    )
