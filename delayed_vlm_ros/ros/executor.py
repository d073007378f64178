"""An executor with few threads, in which a handler that waits for the model costs no thread.

A handler is a coroutine: it awaits an rclpy ``Future``, and ``wake`` resumes it after the future is finished. rclpy's
``MultiThreadedExecutor`` would do, but it resumes every waiting handler at each event of the node and appends it to a
list that it scans each time: with ten handlers that wait for a minute, the scan takes more time than all callbacks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException, ShutdownException, TimeoutException
from rclpy.task import Task

_RESUME_PERIOD_SEC = 0.1  # for a handler that awaits a future of rclpy, which wakes no executor


@dataclass(frozen=True)
class _Step:
    """The last step of a handler: the number of wake-ups before it, and when it ended; None while it runs."""

    wakes: int
    ended: float | None = None


class HandlerExecutor(Executor):
    """Runs callbacks in a pool of threads, and resumes waiting handlers only after ``wake``.

    ``spin_once`` raises the error of an earlier callback.

    Args:
        threads: Threads of the pool.
        context: Context of the nodes; None: the default context.
    """

    def __init__(self, threads: int, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="executor")
        self._changing = threading.Lock()
        self._wakes = 0
        self._steps: dict[Task[Any], _Step] = {}
        self._errors: deque[BaseException] = deque()

    @property
    def unfinished(self) -> int:
        """Number of handlers that run or wait."""
        return len(self._steps)

    def wake(self) -> None:
        """Resume the waiting handlers whose futures are finished. Thread-safe."""
        with self._changing:
            self._wakes += 1
        self._interrupt_wait()

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and start it in the pool.

        Args:
            timeout_sec: Longest wait in seconds; None: no limit.
        """
        if self._errors:
            raise self._errors.popleft()
        with suppress(TimeoutException, ShutdownException, ExternalShutdownException):
            handler, _, _ = self.wait_for_ready_callbacks(timeout_sec)
            if self._take_step(handler):
                self._pool.submit(self._run, handler)

    def finish_handlers(self, timeout_sec: float) -> bool:
        """Spin until no handler runs or waits; return whether that is so within the time limit, in seconds."""
        deadline = time.monotonic() + timeout_sec
        while self.unfinished and time.monotonic() < deadline:
            self.spin_once(_RESUME_PERIOD_SEC / 2)
        return not self.unfinished

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop, and wait for the callbacks that run.

        Args:
            timeout_sec: Longest wait for entities of rclpy in seconds; None: no limit.
        """
        has_ended = super().shutdown(timeout_sec)
        self._pool.shutdown()
        return has_ended

    def _take_step(self, handler: Task[Any]) -> bool:
        """Return whether the handler must run now, and mark it as running."""
        with self._changing:
            last = self._steps.get(handler)
            if last is not None:
                if last.ended is None:
                    return False
                if last.wakes == self._wakes and time.monotonic() - last.ended < _RESUME_PERIOD_SEC:
                    return False
            self._steps[handler] = _Step(self._wakes)
            return True

    def _run(self, handler: Task[Any]) -> None:
        error: BaseException | None = None
        try:
            handler()
        except BaseException as raised:  # noqa: BLE001  such as a library's panic; rclpy catches all others
            error = raised
        with self._changing:
            has_ended = error is not None or handler.done() or handler.cancelled()
            step = self._steps.pop(handler)
            if not has_ended:
                self._steps[handler] = _Step(step.wakes, time.monotonic())
            was_woken = self._wakes != step.wakes
        if has_ended:
            error = error or handler.exception()
            if error is not None:
                self._errors.append(error)
        if was_woken or error is not None:
            self._interrupt_wait()

    def _interrupt_wait(self) -> None:
        with suppress(InvalidHandle):  # after shutdown
            super().wake()
