"""Bound of the messages in the log that visitors cause, and of their text: browsers report errors to the server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from delayed_vlm_ros.text import escaped

_LOGGERS = ("uvicorn.error", "nicegui", "engineio.server", "socketio.server", "asyncio")
_MAX_RECORDS = 10
_PERIOD_SEC = 60.0
_MAX_CHARACTERS = 1000


def limit_server_log() -> None:
    """Let each logger of the page's server log at most ten messages a minute in this process."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(LogLimit())


class LogLimit(logging.Filter):
    """Passes a limited number of records in each minute, each on one line; the next one says how many were left out.

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
        left_out = 0
        if self._clock() - self._started >= _PERIOD_SEC:
            left_out = max(0, self._records - _MAX_RECORDS)
            self._started, self._records = self._clock(), 0
        self._records += 1
        if self._records > _MAX_RECORDS:
            return False
        message = escaped(record.getMessage().strip())[:_MAX_CHARACTERS]
        record.args = None
        record.msg = f"{message} ({left_out} earlier messages left out)" if left_out else message
        return True
