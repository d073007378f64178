"""Deadline, cancellation and progress of one question."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError
from delayed_vlm_ros.inference.progress import Progress, ProgressListener

CANCELLED = "the question was cancelled before its answer was complete"


class AskControl:
    """Handle on one question, checked between tokens.

    Args:
        deadline: Latest end of the answer, in seconds on the clock of ``time.monotonic``; None: no deadline.

    Attributes:
        listener: Receives progress in the thread that works on the question; None: no progress is reported.
        ran_out_of_memory: Whether memory was short while the question was answered, even if a retry succeeded.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.listener: ProgressListener | None = None
        self.ran_out_of_memory = False
        self._cancelled = threading.Event()
        self._on_cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Stop the question at its next check. Thread-safe."""
        self._cancelled.set()
        on_cancel = self._on_cancel
        if on_cancel is not None:
            on_cancel()

    @property
    def is_cancelled(self) -> bool:
        """Whether the question was cancelled."""
        return self._cancelled.is_set()

    def set_on_cancel(self, on_cancel: Callable[[], None] | None) -> None:
        """Set the function that ``cancel`` calls, in the canceller's thread; None: no function.

        The function is called immediately if the question is already cancelled. It may be called twice.
        """
        self._on_cancel = on_cancel
        if on_cancel is not None and self.is_cancelled:
            on_cancel()

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, negative after it; None without a deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise if the question must stop.

        Raises:
            AskCancelledError: The question was cancelled.
            AskTimeoutError: The deadline has passed.
        """
        if self.is_cancelled:
            raise AskCancelledError(CANCELLED)
        remaining = self.remaining()
        if remaining is not None and remaining < 0:
            raise AskTimeoutError(
                "the deadline passed before the answer was complete: allow more time, fewer tokens or fewer frames"
            )

    @property
    def wants_text(self) -> bool:
        """Whether to report the text after the next token."""
        listener = self.listener
        return listener is not None and listener.wants_text

    def report(self, progress: Progress) -> None:
        """Pass progress to the listener, unless the question was cancelled."""
        listener = self.listener
        if listener is not None and not self.is_cancelled:
            listener.report(progress)
