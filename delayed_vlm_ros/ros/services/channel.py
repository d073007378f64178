"""Passes reports from other threads to a waiting handler, which is a coroutine of the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from rclpy.node import Node
from rclpy.task import Future as RosFuture

from delayed_vlm_ros.ros.executor import HandlerExecutor

Report = TypeVar("Report")


class Channel(Generic[Report]):
    """Passes reports to one coroutine. ``put`` and ``close`` are thread-safe.

    Args:
        resume: Resumes the coroutine; called after the future that it awaits is finished.
    """

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._changing = threading.Lock()
        self._reports: list[Report] = []
        self._closed = False
        self._changed: RosFuture[None] = RosFuture()

    def put(self, report: Report) -> None:
        """Add a report. Does not block."""
        with self._changing:
            self._reports.append(report)
            changed = self._changed
        self._notify(changed)

    def close(self) -> None:
        """End the channel after the reports that it holds."""
        with self._changing:
            self._closed = True
            changed = self._changed
        self._notify(changed)

    def _notify(self, changed: RosFuture[None]) -> None:
        if not changed.done():  # rclpy of Lyrical refuses a second result
            changed.set_result(None)
        self._resume()

    async def take(self) -> list[Report]:
        """Wait for reports and return them, oldest first; empty after the end of the channel."""
        while True:
            with self._changing:
                if self._reports or self._closed:
                    reports, self._reports = self._reports, []
                    return reports
                changed = self._changed = RosFuture()
            await changed


def resume_running_handler(node: Node) -> Callable[[], None]:
    """Return a thread-safe function that resumes the handler that runs in this thread.

    Args:
        node: Node of the handler.
    """
    executor = node.executor
    if isinstance(executor, HandlerExecutor) and executor.running_handler is not None:
        return partial(executor.resume, executor.running_handler)
    return executor.wake if executor is not None else lambda: None
