"""Bound of the messages that visitors can cause in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_LOGGERS = ("uvicorn.error", "nicegui", "engineio.server", "socketio.server", "asyncio")
_MAX_RECORDS = 10
_PERIOD_SEC = 60.0


def limit_server_log() -> None:
    """Let each logger of the page's server log at most ten messages a minute in this process."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(LogLimit())


class LogLimit(logging.Filter):
    """Passes a limited number of records in each minute; the next one says how many were left out.

    Args:
        clock: Steady clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._started = clock()
        self._records = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        if self._clock() - self._started >= _PERIOD_SEC:
            self._note_left_out(record)
            self._started, self._records = self._clock(), 0
        self._records += 1
        return self._records <= _MAX_RECORDS

    def _note_left_out(self, record: logging.LogRecord) -> None:
        left_out = self._records - _MAX_RECORDS
        if left_out > 0:
            record.msg, record.args = f"{record.getMessage()} ({left_out} earlier messages left out)", None
