"""A handle on a running ask: its deadline, a way to cancel it, and who hears how far it has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError
from delayed_vlm_ros.inference.progress import Progress, ProgressListener

CANCELLED = "the ask was cancelled before its answer was complete"


class AskControl:
    """Deadline and cancellation of one ask, looked at between tokens.

    Args:
        deadline: Latest end on the clock of ``time.monotonic``, in seconds; None: no deadline.

    Attributes:
        listener: Hears of the ask's progress, in the thread that works on it; None: nobody does.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.listener: ProgressListener | None = None
        self._cancelled = threading.Event()
        self._when_cancelled: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Ask the running job to stop; may be called from any thread."""
        self._cancelled.set()
        when_cancelled = self._when_cancelled
        if when_cancelled is not None:
            when_cancelled()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled it."""
        return self._cancelled.is_set()

    def when_cancelled(self, act: Callable[[], None] | None) -> None:
        """What to do once it is cancelled, at once if it is already, in the canceller's thread; None: nothing.

        It may be done twice.
        """
        self._when_cancelled = act
        if act is not None and self.is_cancelled:
            act()

    def remaining(self) -> float | None:
        """Seconds until the deadline, negative behind it; None without a deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Return while the ask may go on.

        Raises:
            AskCancelledError: It was cancelled.
            AskTimeoutError: Its deadline has passed.
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
        """Whether to tell of the next token."""
        listener = self.listener
        return listener is not None and listener.wants_text

    def report(self, progress: Progress) -> None:
        """Say how far the ask has come, to whoever listens."""
        if self.listener is not None:
            self.listener.report(progress)
