"""Waiting for conditions and measuring times on busy machines."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from fork_server import ForkedProcess

# Limit for conditions that come true unless something is broken.
PATIENCE_SEC = 120.0

_POLL_PERIOD_SEC = 0.02


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], timeout_sec: float = PATIENCE_SEC) -> Any:
    """Return the condition's first true value.

    Args:
        condition: Function, called many times a second.
        what: Description for the error message, or a function that returns it.
        timeout_sec: Longest time to wait, in seconds.

    Raises:
        AssertionError: The condition did not become true in time.
    """
    deadline = time.monotonic() + timeout_sec
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_sec} s: {what() if callable(what) else what}")
        time.sleep(_POLL_PERIOD_SEC)
    return value


class _Control(threading.Thread):
    """Repeats a small task to measure how busy the machine is."""

    shortest_sec = float("inf")  # of all tasks in this process: some run undisturbed on any machine

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._closing = threading.Event()
        self._tasks = 0
        self._seconds = 0.0

    def run(self) -> None:
        began = before = time.perf_counter()
        while not self._closing.is_set():
            sum(range(5000))
            now = time.perf_counter()
            _Control.shortest_sec = min(_Control.shortest_sec, now - before)
            self._tasks += 1
            self._seconds = now - began
            before = now

    def slowdown(self) -> float:
        """Stop it. Return how many times longer its tasks took than on an idle machine."""
        self._closing.set()
        self.join()
        return max(1.0, self._seconds / (self._tasks * self.shortest_sec)) if self._tasks else 1.0


class Stopwatch:
    """Context manager that measures how much slower this machine is than when idle.

    Its control thread always ends with it; left running, it would slow down all later tests.

    Attributes:
        slowdown: After exit, the factor by which everything took longer; 1.0 on an idle machine.
    """

    slowdown = 1.0

    def __enter__(self) -> Stopwatch:
        self._control = _Control()
        self._control.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.slowdown = self._control.slowdown()


def end_process(
    process: subprocess.Popen[Any] | ForkedProcess, number: int, *, times: int = 1, pause_sec: float = 0.02
) -> tuple[int, float]:
    """Send a signal to a process and wait for its end.

    Limits in seconds refer to an idle machine. On a busy machine everything takes longer, including a control thread
    that only counts. So the measured time is divided by the slowdown of that thread.

    Args:
        process: The process.
        number: The signal.
        times: Number of signals to send.
        pause_sec: Pause between two signals, in seconds.

    Returns:
        Exit code, and seconds until the end, corrected for the load of the machine.
    """
    with Stopwatch() as watch:
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(pause_sec)
        code = process.wait(PATIENCE_SEC)
        seconds = time.monotonic() - began
    return code, seconds / watch.slowdown
