"""The thread that owns the model: it loads the model and answers questions one after another from a fair queue.

``ModelWorker.submit`` does not block; ``ModelWorker.run`` waits for the result. Both share queue, deadlines and
cancellation. One further thread watches the deadlines of all questions, queued and running.

After a shortage of memory a new thread takes over: some libraries (oneDNN) let every later call in a thread fail in
which one has failed.
"""

from __future__ import annotations

import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any, Generic, TypeVar

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BusyError,
    DelayedVlmError,
    DeviceMemoryError,
    ModelNotReadyError,
)
from delayed_vlm_ros.inference.control import CANCELLED, AskControl
from delayed_vlm_ros.inference.duty import DutyLimit
from delayed_vlm_ros.inference.progress import (
    TEXT_PERIOD_SEC,
    Progress,
    ProgressFeed,
    ProgressListener,
    ThrottledListener,
)
from delayed_vlm_ros.inference.queue import FairQueue

Model = TypeVar("Model")
Result = TypeVar("Result")

_LOGGER = logging.getLogger(__name__)

_MAX_DOUBLINGS = 3  # of the pause of the idle task after shortages
_STACK_BYTES = 8 << 20  # of a thread, by default on Linux


class ModelState(Enum):
    """State of the model."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class WorkerStatus(Generic[Model]):
    """State of a worker at one time. Safe to read from any thread.

    Attributes:
        state: State of the model.
        model: The model while it is loaded, else None.
        error: Why the model could not be loaded or unloaded, also while it is loaded once more; empty otherwise.
        idle_errors: Why idle tasks have ended, by the tasks' names; empty while none has.
        running: Whether a question is being answered.
        waiting: Questions in the queue.
    """

    state: ModelState = ModelState.UNLOADED
    model: Model | None = None
    error: str = ""
    idle_errors: Mapping[str, str] = field(default_factory=dict)
    running: bool = False
    waiting: int = 0


@dataclass(frozen=True)
class IdleTask(Generic[Model]):
    """Work that a worker does while no question waits.

    Attributes:
        name: Name of the work.
        work: Called again and again with the model and a control, which is cancelled when a question arrives. Returns
            immediately when nothing is left to do. Not called again after it has failed; after a shortage of memory,
            not before a question has been answered or ``retry_sec`` have passed, doubled with each shortage up to eight
            times.
        quiet_sec: Time without a question before the first call, in seconds.
        period_sec: Time between two calls, in seconds.
        retry_sec: Time before the first call after a shortage of memory, in seconds.
        needs_model: Whether the model must be loaded for the work, and stay loaded; None: never. Call
            ``ModelWorker.wake`` when it has changed.
        max_duty: Largest share of the time that the work may take, above 0 and up to 1: after each call the task rests
            for the remaining share.
    """

    name: str
    work: Callable[[Model, AskControl], Any]
    quiet_sec: float
    period_sec: float = 0.1
    retry_sec: float = 60.0
    needs_model: Callable[[], bool] | None = None
    max_duty: float = 1.0


@dataclass(slots=True, eq=False)
class _IdleState(Generic[Model]):
    """An idle task with what the worker knows about it; times are on the clock of ``time.monotonic``."""

    task: IdleTask[Model]
    at: float = 0.0  # of the next call, at the earliest
    waits: bool = False  # for memory
    shortages: int = 0  # in succession
    error: str = ""
    duty: DutyLimit = field(init=False)

    def __post_init__(self) -> None:
        self.duty = DutyLimit(self.task.max_duty)

    @property
    def has_ended(self) -> bool:
        return bool(self.error) and not self.waits

    @property
    def needs_model(self) -> bool:
        return self.task.needs_model is not None and not self.has_ended and self.task.needs_model()


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[Any, AskControl], Any]
    timeout_sec: float
    control: AskControl
    future: Future[Any] = field(default_factory=Future)


class _Step(Enum):
    JOB = 1
    IDLE_TASK = 2
    LOAD = 3
    UNLOAD = 4
    CLOSE = 5


class ModelWorker(Generic[Model]):
    """Runs jobs on a model that lives in one thread. Thread-safe.

    Args:
        load: Returns the model. Called in the worker's thread, after ``start`` and for the next job after an unload.
        queue_size: Jobs that may wait in addition to the running one.
        unload: Called with the model in the worker's thread, on ``close`` and after a long idle time.
        idle_tasks: Kinds of work while no job waits; the one that has been due for longest comes first.
        unload_after_idle_sec: Time without a job after which the model is unloaded, in seconds; None: never.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        queue_size: int,
        *,
        unload: Callable[[Model], None] | None = None,
        idle_tasks: Sequence[IdleTask[Model]] = (),
        unload_after_idle_sec: float | None = None,
    ) -> None:
        self._load = load
        self._unload = unload
        self._queue_size = queue_size
        self._idle_states = [_IdleState(task) for task in idle_tasks]
        self._unload_after_idle_sec = unload_after_idle_sec
        self._changed = threading.Condition()  # guards the attributes below
        self._queue: FairQueue[_Job] = FairQueue()
        self._running: _Job | None = None
        self._idle: tuple[_IdleState[Model], AskControl] | None = None  # the running or the next idle task
        self._quiet_since = self._load_at = 0.0
        self._ran_out_of_memory = False  # in the present thread
        self._has_run_short = False  # in an earlier thread
        self._closing = False
        self._status: WorkerStatus[Model] = WorkerStatus()
        self._thread = threading.Thread(target=self._work, name="model-worker", daemon=True)
        self._deadlines = threading.Thread(target=self._watch_deadlines, name="model-worker-deadlines", daemon=True)

    @property
    def status(self) -> WorkerStatus[Model]:
        """State of the worker now. Later changes replace the object as a whole."""
        return self._status

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` was called. A ``load`` that waits for a resource checks this."""
        return self._closing

    @property
    def has_run_short(self) -> bool:
        """Whether memory has been short at any time since ``start``."""
        return self._has_run_short or self._ran_out_of_memory

    def wake(self) -> None:
        """Look again whether an idle task needs the model."""
        with self._changed:
            self._changed.notify_all()

    def report_load_error(self, error: BaseException) -> None:
        """Report why a ``load`` that is still at work has failed so far; questions that end meanwhile have it.

        Args:
            error: Exception of the first attempt.
        """
        self._set_status(error=_describe(error))

    def start(self) -> None:
        """Start the threads and begin to load the model."""
        self._set_status(state=ModelState.LOADING)
        self._thread.start()
        self._deadlines.start()

    def close(self, timeout_sec: float) -> bool:
        """Cancel the running job, refuse the queued ones and end the threads.

        Args:
            timeout_sec: Longest wait for the worker's thread, in seconds.

        Returns:
            Whether the thread has ended. A thread deep inside the model ends, and unloads the model, later.
        """
        with self._changed:
            self._closing = True
            unfinished = self._queue.clear()
            if self._running is not None:
                unfinished.append(self._running)
            self._interrupt_idle_task()
            self._set_status()
            self._changed.notify_all()
        for job in unfinished:
            _fail(job, AskCancelledError("the question was cancelled: the model is being shut down"))
            job.control.cancel()
        if self._thread.ident is not None:  # a worker that is closing starts no other thread
            self._thread.join(timeout_sec)
        return not self._thread.is_alive()

    def submit(
        self,
        work: Callable[[Model, AskControl], Result],
        timeout_sec: float,
        *,
        control: AskControl | None = None,
        client_id: str = "",
        on_progress: Callable[[Progress], None] | None = None,
        on_done: Callable[[Future[Result]], None] | None = None,
    ) -> Future[Result]:
        """Queue a job and return immediately. The worker must have been started.

        The future is finished exactly once: with the result, with the job's error, or with ``AskTimeoutError``,
        ``ModelNotReadyError``, ``AskCancelledError`` or ``BusyError`` as documented at ``run``. The deadline holds in
        the queue, while the model loads, and while another job runs. Cancel through ``control``, not the future.

        Args:
            work: Called with the model and the job's control in the worker's thread.
            timeout_sec: Deadline in seconds from now, waiting included.
            control: Control to cancel the job with; its deadline is set here, and its listener with ``on_progress``.
                None: a new one.
            client_id: Client that asks. Clients share the queue evenly.
            on_progress: Called in the worker's thread with each new stage, and with growing text at most twenty times
                a second. Must not block. An error in it fails the job. The last call may come just after ``on_done``
                when the job ends by its deadline or by cancellation.
            on_done: Called once with the finished future, in the thread that finishes it: usually the worker's, else
                that of the deadlines, of the canceller, of ``close``, or of a client whose job evicts this one. It may
                be called before ``submit`` returns. Must not block. An error in it is logged.

        Returns:
            The job's future. ``on_done`` is not called when ``submit`` itself raises.

        Raises:
            BusyError: The queue is full.
            ModelNotReadyError: The model could not be loaded, or the worker was not started.
            AskCancelledError: The worker is closing.
        """
        listener = None if on_progress is None else ThrottledListener(on_progress)
        return self._submit(work, timeout_sec, control or AskControl(), client_id, listener, on_done)

    def run(
        self,
        work: Callable[[Model, AskControl], Result],
        timeout_sec: float,
        *,
        control: AskControl | None = None,
        client_id: str = "",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Queue a job and wait for its result. Must not be called in the worker's thread.

        Args:
            work: Called with the model and the job's control in the worker's thread.
            timeout_sec: Deadline in seconds from now, waiting included.
            control: Control to cancel the job with; its deadline is set here, and its listener with ``on_progress``.
                None: a new one.
            client_id: Client that asks. Clients share the queue evenly.
            on_progress: Called in this thread with each new stage, and with growing text at most twenty times a second.
                An error in it cancels the job.

        Raises:
            BusyError: The queue is full, or a client with fewer waiting jobs took the job's position.
            ModelNotReadyError: The model could not be loaded, is still loading at the deadline, or the worker was not
                started.
            AskTimeoutError: The deadline passed.
            AskCancelledError: The job was cancelled, or the worker is closing.
            Exception: Any error of the job.
        """
        control = control or AskControl()
        feed = None if on_progress is None else ProgressFeed()
        future = self._submit(
            work, timeout_sec, control, client_id, feed, None if feed is None else lambda _: feed.close()
        )
        try:
            if on_progress is not None and feed is not None:
                _forward_progress(on_progress, feed, future)
            return future.result()
        finally:
            if not future.done():  # this thread no longer waits for the result
                control.cancel()
            del future  # an error's traceback holds this frame; the future would close the cycle

    def _submit(
        self,
        work: Callable[[Model, AskControl], Result],
        timeout_sec: float,
        control: AskControl,
        client_id: str,
        listener: ProgressListener | None,
        on_done: Callable[[Future[Result]], None] | None,
    ) -> Future[Result]:
        control.deadline = time.monotonic() + timeout_sec
        if listener is not None:
            control.listener = listener
        job = _Job(work, timeout_sec, control)
        job.future.add_done_callback(lambda _: control.set_on_cancel(None))
        if on_done is not None:
            job.future.add_done_callback(partial(_call_logged, on_done))
        self._enqueue(job, client_id)
        control.set_on_cancel(partial(self._withdraw, job))
        if job.future.done():  # finished before the function was set
            control.set_on_cancel(None)
        return job.future

    def _enqueue(self, job: _Job, client_id: str) -> None:
        with self._changed:
            if self._closing:
                raise AskCancelledError("the question was refused: the model is being shut down")
            if self._thread.ident is None:
                raise ModelNotReadyError("the model is not loaded: start the worker first")
            if self._status.state is ModelState.FAILED:
                raise ModelNotReadyError(f"cannot load the model: {self._status.error}")
            evicted = self._queue.offer(client_id, job, self._queue_size + (self._running is None))
            waiting = len(self._queue)
            self._interrupt_idle_task()
            self._set_status()
            self._changed.notify_all()
        if evicted is job:
            raise BusyError(f"queue full ({waiting} waiting): retry later")
        if evicted is not None:
            _fail(
                evicted,
                BusyError(
                    f"queue full ({waiting} waiting); clients with fewer pending questions go first: retry later"
                ),
            )

    def _interrupt_idle_task(self) -> None:
        if self._idle is not None:
            self._idle[1].cancel()

    def _withdraw(self, job: _Job) -> None:
        """Free the position of a cancelled job and finish its future; a running job stops at its next check."""
        with self._changed:
            self._queue.remove(job)
            self._set_status()
        _fail(job, AskCancelledError(CANCELLED))

    def _set_status(self, **changes: Any) -> None:
        with self._changed:
            self._status = replace(self._status, running=self._running is not None, waiting=len(self._queue), **changes)

    # Deadlines ------------------------------------------------------------------------------------------------------

    def _watch_deadlines(self) -> None:
        while not self._closing:
            for job in self._wait_for_late_jobs():
                _fail(job, self._timeout_error(job.timeout_sec))
                job.control.cancel()
                del job  # the next wait may be long

    def _wait_for_late_jobs(self) -> list[_Job]:
        """Wait for the next deadline or change; dequeue and return the unfinished jobs whose deadline has passed."""
        with self._changed:
            late, next_sec = self._late_jobs()
            if late:
                for job in late:
                    self._queue.remove(job)
                self._set_status()
            elif not self._closing:
                self._changed.wait(next_sec)
            return late

    def _late_jobs(self) -> tuple[list[_Job], float | None]:
        """Return the late jobs, and the seconds until the next deadline of the others; None if there are none."""
        late, next_sec = [], None
        for job in (*self._queue, *((self._running,) if self._running else ())):
            remaining = job.control.remaining()
            if job.future.done() or remaining is None:
                continue
            if remaining <= 0:
                late.append(job)
            else:
                next_sec = remaining if next_sec is None else min(next_sec, remaining)
        return late, next_sec

    def _timeout_error(self, timeout_sec: float) -> DelayedVlmError:
        status = self._status
        if status.state is ModelState.LOADING and status.error:
            return ModelNotReadyError(f"cannot load the model yet: {status.error}")
        if status.state is ModelState.LOADING:
            return ModelNotReadyError(
                f"the model is still loading after {timeout_sec:g} s: retry later, or allow more time"
            )
        return AskTimeoutError(
            f"no answer within {timeout_sec:g} s: allow more time, fewer tokens or fewer frames, or send fewer "
            "questions in parallel"
        )

    # The worker's thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if not self._try_load() and not self._ran_out_of_memory:
            self._refuse_all(ModelState.FAILED)
            return
        if self._status.model is None:
            self._refuse_all(ModelState.UNLOADED)
        self._serve(self._next_step())

    def _serve(self, step: _Step) -> None:
        while step is not _Step.CLOSE:
            if self._ran_out_of_memory and self._hand_over(step):
                return
            if step is _Step.UNLOAD:
                self._try_unload()
            elif step is _Step.IDLE_TASK:
                self._run_idle_task()
            elif step is _Step.LOAD:
                self._load_for_idle_task()
            elif self._status.model is not None or self._try_load():
                self._run_job()
            else:  # the device may have enough memory again for the next job
                self._refuse_all(ModelState.UNLOADED)
            step = self._next_step()
        self._try_unload()

    def _hand_over(self, step: _Step) -> bool:
        """Continue with a step in a new thread. Return whether there is one: while memory is short there is none."""
        with self._changed:
            if self._closing:
                return False
            try:
                # The new thread starts threads for the computation. OpenMP ends the process if it cannot.
                mmap.mmap(-1, _STACK_BYTES * (1 + (os.cpu_count() or 1))).close()
                thread = threading.Thread(target=self._serve, args=(step,), name=self._thread.name, daemon=True)
                self._ran_out_of_memory, self._has_run_short = False, True
                thread.start()
            except (OSError, MemoryError, RuntimeError):
                self._ran_out_of_memory = True
                return False
            self._thread = thread
            return True

    def _next_step(self) -> _Step:
        """Wait for the next step; dequeue the job of a ``JOB`` step."""
        with self._changed:
            while True:
                if self._closing:
                    return _Step.CLOSE
                if self._queue:
                    self._running = self._queue.take()
                    self._set_status()
                    return _Step.JOB
                now = time.monotonic()
                schedule = self._idle_schedule()
                step = min(schedule, key=schedule.__getitem__, default=None)
                if step is not None and schedule[step] <= now:
                    if step is _Step.IDLE_TASK:
                        self._idle = self._next_idle_task(), AskControl()
                    return step
                self._changed.wait(None if step is None else schedule[step] - now)

    def _idle_schedule(self) -> dict[_Step, float]:
        """Return the due times of the steps without a job, in seconds on the clock of ``time.monotonic``."""
        is_needed = any(state.needs_model for state in self._idle_states)
        if self._status.model is None:
            return {_Step.LOAD: self._load_at} if is_needed else {}
        due: dict[_Step, float] = {}
        if self._unload_after_idle_sec is not None and not is_needed:
            due[_Step.UNLOAD] = self._quiet_since + self._unload_after_idle_sec
        if not all(state.has_ended for state in self._idle_states):
            due[_Step.IDLE_TASK] = self._due(self._next_idle_task())
        return due

    def _next_idle_task(self) -> _IdleState[Model]:
        return min((state for state in self._idle_states if not state.has_ended), key=self._due)

    def _due(self, state: _IdleState[Model]) -> float:
        return max(self._quiet_since + state.task.quiet_sec, state.at, state.duty.rests_until)

    def _load_for_idle_task(self) -> None:
        if not self._try_load():
            self._refuse_all(ModelState.UNLOADED)
            self._load_at = time.monotonic() + max(state.task.retry_sec for state in self._idle_states)

    def _try_load(self) -> bool:
        self._set_status(state=ModelState.LOADING, error="")
        try:
            model = self._load()
        except BaseException as error:  # noqa: BLE001  clients receive any error, a library's panic included
            self._ran_out_of_memory = isinstance(error, (DeviceMemoryError, MemoryError))
            self._set_status(error=_describe(error))
            return False
        self._quiet_since = time.monotonic()
        self._set_status(state=ModelState.READY, model=model, error="")
        return True

    def _try_unload(self) -> None:
        model, error_text = self._status.model, self._status.error
        self._set_status(model=None)
        try:
            if model is not None and self._unload is not None:
                self._unload(model)
        except BaseException as error:  # noqa: BLE001  the next job may still be able to load the model
            error_text = f"cannot unload the model: {_describe(error)}"
        finally:
            self._set_status(state=ModelState.UNLOADED, error=error_text)

    def _run_job(self) -> None:
        job = self._running
        assert job is not None  # noqa: S101  for the type checker
        try:
            job.control.check()
            result = job.work(self._status.model, job.control)
        except MemoryError as error:
            self._clear_running(job)
            _fail(job, _memory_error(error))
        except Exception as error:  # noqa: BLE001  the client receives it
            self._clear_running(job)
            _fail(job, error)
        except BaseException as error:  # noqa: BLE001  such as a library's panic, which must not end this thread
            self._clear_running(job)
            _fail(job, RuntimeError(_describe(error)).with_traceback(error.__traceback__))
        else:
            for state in self._idle_states:
                self._resume_idle_task(state)
            self._clear_running(job)
            _succeed(job, result)
        finally:
            del job  # an error's traceback holds this frame; the job would close the cycle

    def _resume_idle_task(self, state: _IdleState[Model]) -> None:
        if state.waits:
            state.waits, state.shortages, state.at, state.error = False, 0, 0.0, ""
            self._set_idle_errors()

    def _set_idle_errors(self) -> None:
        self._set_status(idle_errors={state.task.name: state.error for state in self._idle_states if state.error})

    def _clear_running(self, job: _Job) -> None:
        self._ran_out_of_memory = self._ran_out_of_memory or job.control.ran_out_of_memory
        with self._changed:
            self._running = None
            self._quiet_since = time.monotonic()
            self._set_status()

    def _run_idle_task(self) -> None:
        model = self._status.model
        assert model is not None  # noqa: S101  for the type checker, as the next one
        assert self._idle is not None  # noqa: S101
        state, control = self._idle
        pause_sec = state.task.period_sec
        began = time.monotonic()
        try:
            state.task.work(model, control)
        except AskCancelledError:
            pass  # a job has arrived
        except BaseException as error:  # noqa: BLE001  questions must still be answered; the status has the error
            state.waits = isinstance(error, (DeviceMemoryError, MemoryError))
            state.error = _describe(error)
            pause_sec = state.task.retry_sec * 2 ** min(state.shortages, _MAX_DOUBLINGS)
            state.shortages += 1
            self._set_idle_errors()
        else:
            self._resume_idle_task(state)
        finally:
            self._ran_out_of_memory = self._ran_out_of_memory or control.ran_out_of_memory
            with self._changed:
                self._idle = None
            ended = time.monotonic()
            state.duty.add(ended - began, ended)
            state.at = ended + pause_sec

    def _refuse_all(self, state: ModelState) -> None:
        with self._changed:
            refused = self._queue.clear()
            if self._running is not None:
                refused.append(self._running)
            self._running = None
            self._set_status(state=state)
            error = self._status.error
        for job in refused:
            _fail(job, ModelNotReadyError(f"cannot load the model: {error}"))


def _forward_progress(on_progress: Callable[[Progress], None], feed: ProgressFeed, future: Future[Any]) -> None:
    """Call the function with the job's progress until its future is done."""
    while not future.done():
        for progress in feed.take():
            on_progress(progress)
        wait([future], timeout=TEXT_PERIOD_SEC)
    for progress in feed.take(0.0):  # the stages of a quick job
        on_progress(progress)


def _call_logged(on_done: Callable[[Future[Any]], None], future: Future[Any]) -> None:
    try:
        on_done(future)
    except BaseException:  # a library's panic must not end the worker's thread
        _LOGGER.exception("the callback of a finished question failed")


def _memory_error(error: MemoryError) -> DeviceMemoryError:
    cause = str(error) or type(error).__name__
    return DeviceMemoryError(
        f"the process ran out of memory ({cause}): lower max_pixels or the memory sizes, or use a smaller model. The "
        "memory keeps its frames"
    )


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, DelayedVlmError) else f"{type(error).__name__}: {error}"


def _succeed(job: _Job, result: Any) -> None:
    with suppress(InvalidStateError):  # finished already, by its deadline or cancellation
        job.future.set_result(result)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):  # finished already
        job.future.set_exception(error)
