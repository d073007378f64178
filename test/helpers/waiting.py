"""Waiting for what must happen, and measuring it, on machines that may have little time for these tests."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

# For what happens sooner or later unless something is broken. Nobody waits that long where all is well.
PATIENCE_SEC = 120.0

_LOOK_EVERY_SEC = 0.02


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], timeout_sec: float = PATIENCE_SEC) -> Any:
    """The condition's first true value.

    Args:
        condition: Looked at many times a second.
        what: What is waited for; may be a function, to tell how things stand in the end.
        timeout_sec: How long to wait for it.

    Raises:
        AssertionError: It did not become true in time.
    """
    deadline = time.monotonic() + timeout_sec
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_sec} s: {what() if callable(what) else what}")
        time.sleep(_LOOK_EVERY_SEC)
    return value


class _Control(threading.Thread):
    """Does the same small piece of work over and over, to see how much of it this machine gets done."""

    shortest_sec = float("inf")  # of all pieces ever: some always run undisturbed, however busy the machine is

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ending = threading.Event()
        self._pieces = 0
        self._seconds = 0.0

    def run(self) -> None:
        began = before = time.perf_counter()
        while not self._ending.is_set():
            sum(range(5000))
            now = time.perf_counter()
            _Control.shortest_sec = min(_Control.shortest_sec, now - before)
            self._pieces += 1
            self._seconds = now - began
            before = now

    def slowdown(self) -> float:
        """End it; gives how many times longer its work took than on a machine with nothing else to do."""
        self._ending.set()
        self.join()
        return max(1.0, self._seconds / (self._pieces * self.shortest_sec)) if self._pieces else 1.0


class Stopwatch:
    """Within it, tells how much slower this machine is than at its best, while others keep it busy.

    Its control ends with it, whatever happens within: left running, it would take half of the time of all tests after.
    """

    slowdown = 1.0  # once it has ended: by which factor everything took longer; 1 on a quiet machine

    def __enter__(self) -> Stopwatch:
        self._control = _Control()
        self._control.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.slowdown = self._control.slowdown()


def end_process(
    process: subprocess.Popen, number: int, *, times: int = 1, pause_sec: float = 0.02
) -> tuple[int, float]:
    """Send a process a signal and wait for its end.

    A promise of an end within seconds is one about a machine that has time for it. Where others keep this one busy,
    everything takes longer, a control that does nothing but count included; so the time is divided by the factor by
    which the control was slower in that very time than at its best. On a quiet machine the factor is 1.

    Args:
        process: It.
        number: The signal.
        times: How often to send it.
        pause_sec: Between two of them.

    Returns:
        Exit code, and seconds until the end at this machine's full speed.
    """
    with Stopwatch() as watch:
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(pause_sec)
        code = process.wait(PATIENCE_SEC)
        seconds = time.monotonic() - began
    return code, seconds / watch.slowdown
