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
    for name, limit in _LIMITS.items():
        logging.getLogger(name).addFilter(limit)


def report_left_out(*, is_last: bool = False) -> None:
    """Log how many messages of a minute were left out, where no further message says so.

    Args:
        is_last: Whether to report them before the minute ends.
    """
    for name, limit in _LIMITS.items():
        if limit.left_out and (is_last or limit.is_over):
            left_out = limit.start_period()
            logging.getLogger(name).warning("%d earlier messages left out", left_out)


class LogLimit(logging.Filter):
    """Passes a limited number of records a minute, each on one line; the next one says how many were left out.

    Args:
        clock: Steady clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._started = clock()
        self._records = 0

    @property
    def left_out(self) -> int:
        """Number of records left out in this minute."""
        return max(0, self._records - _MAX_RECORDS)

    @property
    def is_over(self) -> bool:
        """Whether the minute has ended."""
        return self._clock() - self._started >= _PERIOD_SEC

    def start_period(self) -> int:
        """Start another minute; return the number of records left out in the previous one."""
        left_out = self.left_out
        self._started, self._records = self._clock(), 0
        return left_out

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log a record."""
        left_out = self.start_period() if self.is_over else 0
        self._records += 1
        if self._records > _MAX_RECORDS:
            return False
        message = escaped(record.getMessage().strip())[:_MAX_CHARACTERS]
        record.args = None
        record.msg = f"{message} ({left_out} earlier messages left out)" if left_out else message
        return True


_LIMITS = {name: LogLimit() for name in _LOGGERS}  # one for all servers of the process
