"""One thread that owns the model: it loads it, then answers one job after the other from a bounded queue.

While nobody asks it may work ahead, and after a long while give the model back, to load it again for the next job.
"""

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


@dataclass(frozen=True)
class WorkAhead(Generic[Model]):
    """What a worker does while nobody asks.

    Attributes:
        work: Gets the model and a control, which is cancelled as soon as a job comes; called again and again, so it
            returns at once where there is nothing to do. Not called any more once it has failed.
        quiet_sec: Seconds without a job before it begins.
        period_sec: Seconds between two calls.
    """

    work: Callable[[Model, AskControl], Any]
    quiet_sec: float
    period_sec: float = 0.1


class _Step(Enum):
    """What the worker does next."""

    JOB = 1
    WORK_AHEAD = 2
    UNLOAD = 3
    END = 4


class ModelWorker(Generic[Model]):
    """Runs jobs on a model that lives in one thread.

    Args:
        load: Makes the model; called in the worker's thread, when it starts and, after an unloading, for the next job.
        queue_size: How many jobs may wait besides the running one.
        unload: Called with the model, in the worker's thread, when it stops or has been idle for long.
        work_ahead: What to do while nobody asks; None: nothing.
        unload_after_idle_sec: Seconds without a job after which the model is unloaded; None: never.

    Attributes:
        state: Where the model stands.
        error: Why it could not be loaded; empty when it could.
        error_ahead: Why working ahead has ended; empty when it has not.
        resource: The model while it is loaded.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        queue_size: int,
        *,
        unload: Callable[[Model], None] | None = None,
        work_ahead: WorkAhead[Model] | None = None,
        unload_after_idle_sec: float | None = None,
    ) -> None:
        self._load = load
        self._unload = unload
        self._queue_size = queue_size
        self._work_ahead = work_ahead
        self._unload_after_idle_sec = unload_after_idle_sec
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._running_ahead: AskControl | None = None
        self._quiet_since = self._ahead_at = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="model-worker", daemon=True)
        self.state = ModelState.UNLOADED
        self.error = ""
        self.error_ahead = ""
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
            self._end_work_ahead()
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
            self._end_work_ahead()
            self._changed.notify_all()

    def _end_work_ahead(self) -> None:
        if self._running_ahead is not None:
            self._running_ahead.cancel()

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
        if not self._bring_up():
            self._refuse_all(ModelState.FAILED)
            return
        while (step := self._next()) is not _Step.END:
            if step is _Step.UNLOAD:
                self._put_down()
            elif step is _Step.WORK_AHEAD:
                self._do_ahead()
            elif self.resource is not None or self._bring_up():
                self._do_job()
            else:  # the device may have room again for the next one
                self._refuse_all(ModelState.UNLOADED)
        self._put_down()

    def _next(self) -> _Step:
        """Wait until there is something to do; takes a job that is due."""
        with self._changed:
            while True:
                if self._stopping:
                    return _Step.END
                if self._waiting:
                    self._running = self._waiting.popleft()
                    return _Step.JOB
                now = time.monotonic()
                due = self._due_when_idle()
                for step, when in due.items():
                    if when <= now:
                        self._running_ahead = AskControl() if step is _Step.WORK_AHEAD else None
                        return step
                self._changed.wait(min(due.values()) - now if due else None)

    def _due_when_idle(self) -> dict[_Step, float]:
        """When to do what, should no job come before, on the clock of ``time.monotonic``."""
        due: dict[_Step, float] = {}
        if self.resource is not None and self._unload_after_idle_sec is not None:
            due[_Step.UNLOAD] = self._quiet_since + self._unload_after_idle_sec
        if self.resource is not None and self._work_ahead is not None and not self.error_ahead:
            due[_Step.WORK_AHEAD] = max(self._quiet_since + self._work_ahead.quiet_sec, self._ahead_at)
        return due

    def _bring_up(self) -> bool:
        """Load the model; gives whether it is there."""
        self.state = ModelState.LOADING
        self.error = ""
        try:
            self.resource = self._load()
        except Exception as error:  # noqa: BLE001  whatever it is, the askers must hear of it
            self.error = _text_of(error)
            return False
        self.state = ModelState.READY
        self._quiet_since = time.monotonic()
        return True

    def _put_down(self) -> None:
        """Unload the model, if it is there."""
        model, self.resource = self.resource, None
        try:
            if model is not None and self._unload is not None:
                self._unload(model)
        except Exception as error:  # noqa: BLE001  the next job may still be able to load it again
            self.error = f"the model could not be unloaded: {_text_of(error)}"
        finally:
            self.state = ModelState.UNLOADED

    def _do_job(self) -> None:
        job = self._running
        assert job is not None  # noqa: S101  for the type checker
        try:
            job.control.check()
            _succeed(job, job.work(self.resource, job.control))
        except Exception as error:  # noqa: BLE001  it belongs to the asker
            _fail(job, error)
        finally:
            with self._changed:
                self._running = None
            self._quiet_since = time.monotonic()
            del job  # an error's traceback holds this frame: through the job, it would hold itself alive

    def _do_ahead(self) -> None:
        model, control, ahead = self.resource, self._running_ahead, self._work_ahead
        assert model is not None  # noqa: S101  for the type checker, as the others
        assert control is not None  # noqa: S101
        assert ahead is not None  # noqa: S101
        try:
            ahead.work(model, control)
        except AskCancelledError:
            pass  # a job has come
        except Exception as error:  # noqa: BLE001  asks must go on; the error is reported
            self.error_ahead = _text_of(error)
        finally:
            with self._changed:
                self._running_ahead = None
            self._ahead_at = time.monotonic() + ahead.period_sec

    def _refuse_all(self, state: ModelState) -> None:
        """Tell all who wait that the model could not be loaded."""
        with self._changed:
            self.state = state
            waiting = [self._running, *self._waiting]
            self._waiting.clear()
            self._running = None
        for job in waiting:
            if job is not None:
                _fail(job, ModelNotReadyError(f"the model could not be loaded: {self.error}"))


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, DelayedVlmError) else f"{type(error).__name__}: {error}"


def _succeed(job: _Job, result: Any) -> None:
    with suppress(InvalidStateError):  # its asker was told something else already
        job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(error)
