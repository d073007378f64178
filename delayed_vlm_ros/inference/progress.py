"""Progress of a running question, from the worker's thread to the client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

TEXT_PERIOD_SEC = 0.05
"""Shortest time between two reports of growing text, in seconds."""


class Stage(IntEnum):
    """What a question is waiting for; the numbers of the action's feedback."""

    QUEUED = 0
    ENCODING = 1
    GENERATING = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a question has come.

    Attributes:
        stage: What the question is waiting for.
        text: The answer so far: cumulative, whole characters only, without leading or trailing white space.
        answer_tokens: Tokens generated so far.
    """

    stage: Stage
    text: str = ""
    answer_tokens: int = 0


class ProgressListener(Protocol):
    """Receives the progress of a question in the worker's thread."""

    @property
    def wants_text(self) -> bool:
        """Whether to report the text after the next token. A new stage is reported in any case."""

    def report(self, progress: Progress) -> None:
        """Receive progress. Must not block."""


class ThrottledListener:
    """Calls a function in the worker's thread: for every stage, and for text at most every ``TEXT_PERIOD_SEC``.

    Args:
        on_progress: The function. Must not block: the worker generates no token meanwhile.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._next_text_at = 0.0

    @property
    def wants_text(self) -> bool:
        """Whether the last text is old enough."""
        return time.monotonic() >= self._next_text_at

    def report(self, progress: Progress) -> None:
        """Call the function."""
        self._on_progress(progress)
        if progress.text:
            self._next_text_at = time.monotonic() + TEXT_PERIOD_SEC


class ProgressFeed:
    """Buffers progress until the waiting thread takes it.

    It wants no text while a report lies in the buffer: text is decoded only as often as the reader takes it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._reports: list[Progress] = []
        self._closed = False

    @property
    def wants_text(self) -> bool:
        """Whether the buffer is empty."""
        return not self._reports

    def report(self, progress: Progress) -> None:
        """Append progress to the buffer."""
        with self._changed:
            self._reports.append(progress)
            self._changed.notify_all()

    def close(self) -> None:
        """Wake the reader; later calls of ``take`` do not wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, timeout_sec: float | None = None) -> list[Progress]:
        """Remove and return all reports in the buffer, oldest first.

        Args:
            timeout_sec: Longest wait for a report, in seconds; None: until a report arrives or the feed is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._reports or self._closed, None if timeout_sec is None else max(0.0, timeout_sec)
            )
            reports, self._reports = self._reports, []
            return reports
