"""Lines of the journal for all open pages: read once for all of them, and only while a page is open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import MAX_JOURNAL_LINES, Backend
from delayed_vlm_ros.web.formatting import sentence

_PERIOD_SEC = 5.0
_COMPLETE_PERIOD_SEC = 60.0
"""Period after which all lines are read again: lines may have been removed."""


class JournalFeed:
    """The newest lines of the journal, for one event loop.

    Args:
        backend: Scene memory with the journal.
        clock: Steady clock, in seconds.

    Attributes:
        lines: The lines, oldest number first.
        error: Why they could not be read, as a sentence; empty if they could.
    """

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self.lines: tuple[JournalLine, ...] = ()
        self.error = ""
        self._backend = backend
        self._clock = clock
        self._read_at: float | None = None
        self._completed_at = 0.0
        self._is_reading = False

    async def refresh(self) -> None:
        """Read new lines, unless they were read in the last seconds."""
        now = self._clock()
        if self._is_reading or (self._read_at is not None and now - self._read_at < _PERIOD_SEC):
            return
        is_complete = self._read_at is None or now - self._completed_at >= _COMPLETE_PERIOD_SEC
        known = () if is_complete else self.lines
        self._is_reading = True
        try:
            new = await asyncio.to_thread(self._backend.journal, known[-1].id if known else 0)
        except DelayedVlmError as error:
            self.error = f"The journal is not shown completely: {sentence(error)}"
        else:
            self.error = ""
            self.lines = (*known, *new)[-MAX_JOURNAL_LINES:]
            self._completed_at = now if is_complete else self._completed_at
        finally:
            self._is_reading = False
            self._read_at = now
