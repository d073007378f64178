"""One thread that owns the model: it loads it, then answers one job after the other from a bounded, fair queue.

While nobody asks it may work ahead, and after a long while give the model back, to load it again for the next job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BusyError, DelayedVlmError, ModelNotReadyError
from delayed_vlm_ros.inference.control import CANCELLED, AskControl
from delayed_vlm_ros.inference.progress import Progress, ProgressFeed
from delayed_vlm_ros.inference.queue import FairQueue

Model = TypeVar("Model")
Result = TypeVar("Result")

_TOLD_EVERY_SEC = 0.05  # who reads a growing text needs it no more often


class ModelState(Enum):
    """Where the model stands."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[Any, AskControl], Any]
    control: AskControl
    future: Future[Any] = field(default_factory=Future)


@dataclass(frozen=True)
class IdleTask(Generic[Model]):
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
        idle_task: What to do while nobody asks; None: nothing.
        unload_after_idle_sec: Seconds without a job after which the model is unloaded; None: never.

    Attributes:
        state: Where the model stands.
        error: Why it could not be loaded; empty when it could.
        idle_error: Why working ahead has ended; empty when it has not.
        resource: The model while it is loaded.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        queue_size: int,
        *,
        unload: Callable[[Model], None] | None = None,
        idle_task: IdleTask[Model] | None = None,
        unload_after_idle_sec: float | None = None,
    ) -> None:
        self._load = load
        self._unload = unload
        self._queue_size = queue_size
        self._work_ahead = idle_task
        self._unload_after_idle_sec = unload_after_idle_sec
        self._waiting: FairQueue[_Job] = FairQueue()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._running_ahead: AskControl | None = None
        self._quiet_since = self._ahead_at = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="model-worker", daemon=True)
        self.state = ModelState.UNLOADED
        self.error = ""
        self.idle_error = ""
        self.resource: Model | None = None

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is being worked on."""
        return self._running is not None

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop; to be looked at by a ``load`` that has to wait for something."""
        return self._stopping

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
            waiting = self._waiting.clear()
            running = self._running
            self._end_work_ahead()
            self._changed.notify_all()
        for job in [*waiting, running] if running else waiting:
            _fail(job, AskCancelledError("the ask was cancelled: the node is going down or being cleaned up"))
            job.control.cancel()
        if self._thread.ident is not None:
            self._thread.join(timeout_sec)
        return not self._thread.is_alive()

    def run(
        self,
        work: Callable[[Model, AskControl], Result],
        timeout_sec: float,
        *,
        control: AskControl | None = None,
        client_id: str = "",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Queue a job and wait for its result; called from any thread but the worker's.

        Args:
            work: Gets the model and the job's control, in the worker's thread.
            timeout_sec: Deadline in seconds from now, waiting included.
            control: The job's control, where the caller wants to cancel it; its deadline and listener are set here.
            client_id: For whom: those who differ in it share the queue evenly.
            told: Called in this thread with what the job tells of its progress: new stages, and text while it grows,
                at most twenty times a second.

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
        if on_progress is not None:
            feed = control.listener = ProgressFeed()
            job.future.add_done_callback(lambda _: feed.end())
        self._enqueue(job, client_id)
        try:
            control.when_cancelled(partial(self._withdraw, job))
            if on_progress is not None:
                _report(on_progress, feed, job)
            if not wait([job.future], timeout=control.remaining()).done:
                raise self._too_late(timeout_sec)
            result: Result = job.future.result()
            return result
        finally:
            if not job.future.done():  # nobody waits for it any more
                control.cancel()
            control.when_cancelled(None)
            del job  # an error's traceback holds this frame: through the job, it would hold itself alive

    def _enqueue(self, job: _Job, client_id: str) -> None:
        with self._changed:
            if self._stopping:
                raise AskCancelledError("the ask was refused: the node is going down or being cleaned up")
            if self.state is ModelState.FAILED:
                raise ModelNotReadyError(f"the model could not be loaded: {self.error}")
            evicted = self._waiting.offer(client_id, job, self._queue_size + (self._running is None))
            waiting = len(self._waiting)
            self._end_work_ahead()
            self._changed.notify_all()
        if evicted is job:
            raise BusyError(f"{waiting} asks are waiting already: ask again when some are answered")
        if evicted is not None:
            _fail(
                evicted,
                BusyError(
                    f"{waiting} asks are waiting, of others who ask less than you: ask again when some are answered"
                ),
            )

    def _end_work_ahead(self) -> None:
        if self._running_ahead is not None:
            self._running_ahead.cancel()

    def _withdraw(self, job: _Job) -> None:
        """Make room for others, and let its client_id go, when a job is cancelled; a running one stops by itself."""
        with self._changed:
            self._waiting.remove(job)
        _fail(job, AskCancelledError(CANCELLED))

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
                    self._running = self._waiting.take()
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
        if self.resource is not None and self._work_ahead is not None and not self.idle_error:
            due[_Step.WORK_AHEAD] = max(self._quiet_since + self._work_ahead.quiet_sec, self._ahead_at)
        return due

    def _bring_up(self) -> bool:
        """Load the model; gives whether it is there."""
        self.state = ModelState.LOADING
        self.error = ""
        try:
            self.resource = self._load()
        except BaseException as error:  # noqa: BLE001  whatever it is, the askers must hear of it
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
        except BaseException as error:  # noqa: BLE001  the next job may still be able to load it again
            self.error = f"the model could not be unloaded: {_text_of(error)}"
        finally:
            self.state = ModelState.UNLOADED

    def _do_job(self) -> None:
        job = self._running
        assert job is not None  # noqa: S101  for the type checker
        try:
            job.control.check()
            _succeed(job, job.work(self.resource, job.control))
        except Exception as error:  # noqa: BLE001  it belongs to the client_id
            _fail(job, error)
        except BaseException as error:  # noqa: BLE001  such as a panic in a library, which must not end this thread
            _fail(job, RuntimeError(_text_of(error)).with_traceback(error.__traceback__))
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
        except BaseException as error:  # noqa: BLE001  asks must go on; the error is reported
            self.idle_error = _text_of(error)
        finally:
            with self._changed:
                self._running_ahead = None
            self._ahead_at = time.monotonic() + ahead.period_sec

    def _refuse_all(self, state: ModelState) -> None:
        """Tell all who wait that the model could not be loaded."""
        with self._changed:
            self.state = state
            waiting = [self._running, *self._waiting.clear()]
            self._running = None
        for job in waiting:
            if job is not None:
                _fail(job, ModelNotReadyError(f"the model could not be loaded: {self.error}"))


def _report(on_progress: Callable[[Progress], None], feed: ProgressFeed, job: _Job) -> None:
    """Pass a job's progress on until it is done or its deadline has passed."""
    while (remaining := job.control.remaining() or 0.0) > 0:
        for progress in feed.take(remaining):
            on_progress(progress)
        if job.future.done():
            break
        wait([job.future], timeout=min(remaining, _TOLD_EVERY_SEC))
    for progress in feed.take(0.0):  # the stages of a job that was quick
        on_progress(progress)


def _text_of(error: BaseException) -> str:
    return str(error) if isinstance(error, DelayedVlmError) else f"{type(error).__name__}: {error}"


def _succeed(job: _Job, result: Any) -> None:
    with suppress(InvalidStateError):  # its client_id was told something else already
        job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):
        job.future.set_exception(error)
