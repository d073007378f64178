"""One thread that owns the model: it loads it, then answers one job after the other from a bounded queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, TypeVar

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BusyError, DelayedVlmError, ModelNotReadyError
from delayed_vlm_ros.vlm.control import AskControl

Model = TypeVar("Model")
Result = TypeVar("Result")


class ModelState(Enum):
    """Where the model stands."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class _Job:
    work: Callable[[Any, AskControl], Any]
    control: AskControl
    future: Future[Any] = field(default_factory=Future)


class ModelWorker(Generic[Model]):
    """Runs jobs on a model that lives in one thread.

    Args:
        load: Makes the model; called once, in the worker's thread, when it starts.
        queue_size: How many jobs may wait besides the running one.
        unload: Called with the model, in the worker's thread, when it stops.
    """

    def __init__(
        self, load: Callable[[], Model], queue_size: int, *, unload: Callable[[Model], None] | None = None
    ) -> None:
        self._load = load
        self._unload = unload
        self._queue_size = queue_size
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="model-worker", daemon=True)
        self.state = ModelState.UNLOADED
        self.error = ""
        self.resource: Model | None = None

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is being worked on."""
        return self._running is not None

    def start(self) -> None:
        """Start the thread, and with it the loading of the model."""
        self.state = ModelState.LOADING
        self._thread.start()

    def stop(self, timeout_sec: float) -> bool:
        """Cancel the running job, refuse the waiting ones, and end the thread.

        Returns:
            Whether the thread has ended; it cannot while it is deep inside the model, and then ends by itself later.
        """
        with self._changed:
            self._stopping = True
            waiting = list(self._waiting)
            self._waiting.clear()
            running = self._running
            self._changed.notify_all()
        for job in [*waiting, running] if running else waiting:
            job.control.cancel()
            _fail(job, AskCancelledError("the ask was cancelled: the node is going down or being cleaned up"))
        if self._thread.ident is not None:
            self._thread.join(timeout_sec)
        return not self._thread.is_alive()

    def run(
        self, work: Callable[[Model, AskControl], Result], timeout_sec: float, *, control: AskControl | None = None
    ) -> Result:
        """Queue a job and wait for its result; called from any thread but the worker's.

        Args:
            work: Gets the model and the job's control, in the worker's thread.
            timeout_sec: Deadline in seconds from now, waiting included.
            control: The job's control, where the caller wants to cancel it; its deadline is set here.

        Raises:
            BusyError: The queue is full.
            ModelNotReadyError: The model could not be loaded, or is still loading when the deadline passes.
            AskTimeoutError: The deadline passed.
            AskCancelledError: The job was cancelled, or the worker stopped.
            Exception: Whatever the job raised.
        """
        control = control or AskControl()
        control.deadline = time.monotonic() + timeout_sec
        job = _Job(work, control)
        self._enqueue(job)
        try:
            if not wait([job.future], timeout=timeout_sec).done:
                self._withdraw(job)
                raise self._too_late(timeout_sec)
            result: Result = job.future.result()
            return result
        finally:
            del job  # an error's traceback holds this frame: through the job, it would hold itself alive

    def _enqueue(self, job: _Job) -> None:
        with self._changed:
            if self._stopping:
                raise AskCancelledError("the ask was refused: the node is going down or being cleaned up")
            if self.state is ModelState.FAILED:
                raise ModelNotReadyError(f"the model could not be loaded: {self.error}")
            if len(self._waiting) >= self._queue_size + (self._running is None):
                raise BusyError(f"{len(self._waiting)} asks are waiting already: ask again when some are answered")
            self._waiting.append(job)
            self._changed.notify_all()

    def _withdraw(self, job: _Job) -> None:
        job.control.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def _too_late(self, timeout_sec: float) -> DelayedVlmError:
        if self.state is ModelState.LOADING:
            return ModelNotReadyError(
                f"the model is still loading after {timeout_sec:g} s: ask again later, or allow more time"
            )
        return AskTimeoutError(
            f"no answer within {timeout_sec:g} s: allow more time, fewer tokens or fewer frames, or ask less at once"
        )

    def _work(self) -> None:
        try:
            self.resource = self._load()
        except Exception as error:  # noqa: BLE001  whatever it is, the askers must hear of it
            self._give_up(str(error) if isinstance(error, DelayedVlmError) else f"{type(error).__name__}: {error}")
            return
        self.state = ModelState.READY
        while (job := self._next()) is not None:
            try:
                job.control.check()
                _succeed(job, job.work(self.resource, job.control))
            except Exception as error:  # noqa: BLE001  it belongs to the asker
                _fail(job, error)
            finally:
                with self._changed:
                    self._running = None
                del job  # its result and its error's traceback hold frames and tensors: not while waiting for the next
        if self._unload is not None:
            self._unload(self.resource)
        self.resource = None
        self.state = ModelState.UNLOADED

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            if self._stopping:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self.error = reason
            self.state = ModelState.FAILED
            waiting = list(self._waiting)
            self._waiting.clear()
        for job in waiting:
            _fail(job, ModelNotReadyError(f"the model could not be loaded: {reason}"))


def _succeed(job: _Job, result: Any) -> None:
    with suppress(InvalidStateError):  # its asker was told something else already
        job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(error)
