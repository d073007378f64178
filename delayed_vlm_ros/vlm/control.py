"""A handle on a running ask: its deadline, and a way to cancel it."""

from __future__ import annotations

import threading
import time

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError


class AskControl:
    """Deadline and cancellation of one ask, looked at between tokens.

    Args:
        deadline: Latest end on the clock of ``time.monotonic``, in seconds; None: no deadline.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the running job to stop; may be called from any thread."""
        self._cancelled.set()

    def remaining(self) -> float | None:
        """Seconds until the deadline, negative behind it; None without a deadline."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def check(self) -> None:
        """Return while the ask may go on.

        Raises:
            AskCancelledError: It was cancelled.
            AskTimeoutError: Its deadline has passed.
        """
        if self._cancelled.is_set():
            raise AskCancelledError("the ask was cancelled before its answer was complete")
        remaining = self.remaining()
        if remaining is not None and remaining < 0:
            raise AskTimeoutError(
                "the deadline passed before the answer was complete: allow more time, fewer tokens or fewer frames"
            )
