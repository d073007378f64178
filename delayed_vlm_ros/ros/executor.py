"""An executor with few threads, in which a handler that waits for the model costs no thread.

A handler is a coroutine that awaits an rclpy ``Future``; ``resume`` or ``wake`` continues it after the future is
finished. rclpy's ``MultiThreadedExecutor`` resumes every waiting handler at each event of the node, and appends it each
time to a list that it scans at each event: the longer handlers wait, the slower it gets.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    MultiThreadedExecutor,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.task import Task

_SPIN_PERIOD_SEC = 0.05
_RESUME_PERIOD_SEC = 0.5  # for a handler that awaits a future of rclpy, which calls no wake


def make_executor(threads: int, *, context: Context | None = None) -> Executor:
    """Return an executor for a node whose handlers are coroutines.

    Later rclpy (Humble 3.3.21, Jazzy 7.1.9, Lyrical) resumes a handler itself when the future that it awaits is
    finished, so its own executor serves. Not run here: the tests run on rclpy 9.1 of Kilted.

    Args:
        threads: Threads for callbacks; 1 runs them in the thread that spins.
        context: Context of the nodes; None: the default context.
    """
    if threads == 1:
        return SingleThreadedExecutor(context=context)
    if hasattr(Executor, "_call_task_in_next_spin"):
        return MultiThreadedExecutor(threads, context=context)
    return HandlerExecutor(threads, context=context)


class HandlerExecutor(Executor):
    """Runs callbacks in a pool of threads, and resumes a waiting handler only after ``resume`` or ``wake``.

    ``spin_once`` raises the error of an earlier callback.

    Args:
        threads: Threads of the pool.
        context: Context of the nodes; None: the default context.
    """

    def __init__(self, threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="executor")
        self._thread = threading.local()
        self._changing = threading.Lock()
        self._waiting_since: dict[Task[Any], float | None] = {}  # of unfinished handlers; None while one runs
        self._resumed: set[Task[Any]] = set()  # resumed while running
        self._errors: deque[BaseException] = deque()

    @property
    def unfinished(self) -> int:
        """Number of handlers that run or wait."""
        return len(self._waiting_since)

    @property
    def running_handler(self) -> Task[Any] | None:
        """The handler that runs in the calling thread; None in other threads."""
        return getattr(self._thread, "handler", None)

    def resume(self, handler: Task[Any]) -> None:
        """Resume a handler after the future that it awaits is finished. Thread-safe."""
        with self._changing:
            if handler not in self._waiting_since:
                return  # it has ended
            if self._waiting_since[handler] is None:
                self._resumed.add(handler)
                return
            self._waiting_since[handler] = None
        self._submit(handler)

    def wake(self) -> None:
        """Resume all waiting handlers, and let ``spin_once`` look for new entities. Thread-safe."""
        with self._changing:
            unfinished = tuple(self._waiting_since)
        for handler in unfinished:
            self.resume(handler)
        with suppress(InvalidHandle):  # after shutdown
            super().wake()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and start it in the pool.

        Args:
            timeout_sec: Longest wait in seconds; None: no limit.
        """
        if self._errors:
            raise self._errors.popleft()
        # rclpy raises InvalidHandle when another thread destroys a subscription between collecting entities and waiting
        # for them, as in a clean-up. Errors of callbacks do not pass here.
        with suppress(TimeoutException, ShutdownException, ExternalShutdownException, InvalidHandle):
            handler, _, _ = self.wait_for_ready_callbacks(timeout_sec)
            if self._begin_step(handler):
                self._submit(handler)

    def finish_handlers(self, timeout_sec: float) -> bool:
        """Spin until no handler runs or waits; return whether that is so within the time limit, in seconds."""
        deadline = time.monotonic() + timeout_sec
        while self.unfinished and time.monotonic() < deadline:
            self.spin_once(_SPIN_PERIOD_SEC)
        return not self.unfinished

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop, and wait for the callbacks that run.

        Args:
            timeout_sec: Longest wait for entities of rclpy in seconds; None: no limit.
        """
        has_ended = super().shutdown(timeout_sec)
        self._pool.shutdown()
        return has_ended

    def _begin_step(self, handler: Task[Any]) -> bool:
        """Return whether a handler that rclpy offers must run now, and mark it as running."""
        with self._changing:
            if handler in self._waiting_since:
                since = self._waiting_since[handler]
                if since is None or time.monotonic() - since < _RESUME_PERIOD_SEC:
                    return False
            elif handler.done():  # it has ended since rclpy collected it
                return False
            self._waiting_since[handler] = None
            return True

    def _submit(self, handler: Task[Any]) -> None:
        with suppress(RuntimeError):  # after shutdown
            self._pool.submit(self._run, handler)

    def _run(self, handler: Task[Any]) -> None:
        """Take steps of the handler until it ends, or waits and was not resumed during its last step."""
        self._thread.handler = handler
        try:
            while not self._take_step(handler):
                pass
        finally:
            self._thread.handler = None

    def _take_step(self, handler: Task[Any]) -> bool:
        """Run the handler until it ends or waits; return whether this thread is done with it."""
        error: BaseException | None = None
        try:
            handler()
        except BaseException as raised:  # noqa: BLE001  such as a library's panic; rclpy catches all others
            error = raised
        has_ended = error is not None or handler.done() or handler.cancelled()
        with self._changing:
            if not has_ended and handler in self._resumed:
                self._resumed.discard(handler)
                return False
            if has_ended:
                del self._waiting_since[handler]
                self._resumed.discard(handler)
            else:
                self._waiting_since[handler] = time.monotonic()
        if has_ended:
            error = error or handler.exception()
        if error is not None:
            self._errors.append(error)
        return True
