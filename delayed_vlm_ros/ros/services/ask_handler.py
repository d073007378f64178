"""Submits questions to the worker and counts the outcomes. Service and action share it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BadRequestError, NoFramesError, shortened
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.inference.worker import ModelWorker
from delayed_vlm_ros.ros.output.node_report import QuestionReport
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.multi_camera_ask import Answer, CameraFailure, MultiCameraAsk
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, parse_question, parse_timeout, select_cameras
from delayed_vlm_ros.time import seconds_of


class AskHandler:
    """Validates questions, submits them to the worker and counts the outcomes. Thread-safe.

    Args:
        worker: Owner of the model.
        cameras: Cameras by name. A question without a camera name is for the first one.
        queue_size: Questions that may wait, for the report.
        now_ns: Returns the time of the node's clock, in nanoseconds.
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
        self._answered = self._failed = self._rejected = self._cancelled = 0
        self._last_error = ""
        self._last_total_latency = self._last_time_to_first_token = 0.0

    def submit(
        self,
        message: Any,
        parameters: SceneMemoryParameters,
        *,
        control: AskControl | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Future[Answer]:
        """Submit the question of an ``AskScene`` request or goal; does not wait for the answer.

        Args:
            message: Request or goal message.
            parameters: Current parameters of the node.
            control: Control to cancel the question with; None: it cannot be cancelled.
            on_progress: Called in the worker's thread with the progress; for all cameras, with the combined text. Must
                not block.

        Returns:
            The answer, or the error that prevented it. When the deadline passes, the answer of the cameras that have
            answered so far.

        Raises:
            DelayedVlmError: The question is invalid or cannot be queued.
        """
        try:
            return self._submit(message, parameters, control, on_progress)
        except Exception as error:
            self.count_error(error)
            raise

    def count_error(self, error: Exception) -> None:
        """Count a question that was not answered; also called for questions that did not reach this handler."""
        with self._counting:
            if isinstance(error, BadRequestError):
                self._rejected += 1
            elif isinstance(error, AskCancelledError):
                self._cancelled += 1
            else:
                self._failed += 1
                self._last_error = f"{type(error).__name__}: {shortened(str(error))}"

    def _submit(
        self,
        message: Any,
        parameters: SceneMemoryParameters,
        control: AskControl | None,
        on_progress: Callable[[Progress], None] | None,
    ) -> Future[Answer]:
        cameras = select_cameras(self._cameras, message.camera)
        request = parse_question(message, parameters, seconds_of(self._now_ns()))
        timeout_sec = parse_timeout(message, parameters)
        is_of_all = message.camera == ALL_CAMERAS
        outcome: Future[Answer] = Future()
        if all(camera.frame_manager.newest_stamp is None for camera in cameras):
            self._finish_empty(cameras, outcome, is_of_all=is_of_all)
            return outcome
        asking = MultiCameraAsk(request, cameras, is_of_all=is_of_all)
        self._worker.submit(
            asking.run,
            timeout_sec,
            control=control,
            client_id=message.client_id,
            on_progress=on_progress,
            on_done=partial(self._finish, asking, outcome),
        )
        return outcome

    def _finish_empty(self, cameras: Sequence[CameraMemory], outcome: Future[Answer], *, is_of_all: bool) -> None:
        """End a question whose cameras keep no frames, without waiting for the model."""
        failures = tuple(CameraFailure(camera, NoFramesError(empty_memory_message(camera))) for camera in cameras)
        if not is_of_all:
            raise failures[0].error
        answer = Answer((), 0.0, is_of_all, failures)
        self._count(answer)
        outcome.set_result(answer)

    def _finish(self, asking: MultiCameraAsk, outcome: Future[Answer], job: Future[Answer]) -> None:
        try:
            answer = _answer_of(job, asking)
            self._count(answer)
        except Exception as error:  # noqa: BLE001  the client receives any error
            self.count_error(error)
            outcome.set_exception(error)
        else:
            outcome.set_result(answer)
        finally:
            del outcome, job  # an error's traceback holds this frame; the futures would close the cycle

    def _count(self, answer: Answer) -> None:
        if answer.error is not None:
            self.count_error(answer.error)
            return
        metrics = answer.metrics
        with self._counting:
            self._answered += 1
            self._last_total_latency = metrics.total_latency
            self._last_time_to_first_token = metrics.time_to_first_token

    def report(self) -> QuestionReport:
        """Return the counters and the state of the queue."""
        status = self._worker.status
        with self._counting:
            return QuestionReport(
                answered=self._answered,
                failed=self._failed,
                rejected=self._rejected,
                cancelled=self._cancelled,
                running=status.running,
                waiting=status.waiting,
                queue_size=self._queue_size,
                last_error=self._last_error,
                last_total_latency=self._last_total_latency,
                last_time_to_first_token=self._last_time_to_first_token,
            )


def _answer_of(job: Future[Answer], asking: MultiCameraAsk) -> Answer:
    """Return the job's answer; after a timeout, the answer of the cameras that have answered."""
    try:
        return job.result()
    except AskTimeoutError as error:
        answer = asking.partial_answer(error)
        if answer is None:
            raise
        return answer
    finally:
        del job  # an error's traceback holds this frame; the future would close the cycle


def empty_memory_message(camera: CameraMemory) -> str:
    """Return the error message about a camera that keeps no frames."""
    dropped = f" (last image dropped: {camera.last_drop_reason})" if camera.last_drop_reason else ""
    return (
        f"no frames: the memory of camera {camera.name} is empty{dropped}. Check that images arrive on {camera.topic}, "
        "then retry"
    )
