"""How far a running ask has come: from the worker's thread to the one that waits for the answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Stage(IntEnum):
    """What an ask is waiting for; the numbers of the action's feedback."""

    QUEUED = 0
    ENCODING = 1
    GENERATING = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ask has come.

    Attributes:
        stage: What it is waiting for.
        text: The answer so far: cumulative, whole characters only, without white space around it.
        answer_tokens: Tokens generated so far.
    """

    stage: Stage
    text: str = ""
    answer_tokens: int = 0


class ProgressListener(Protocol):
    """Hears of an ask's progress, in the worker's thread."""

    @property
    def wants_text(self) -> bool:
        """Whether to be told of the next token; a new stage is told in any case."""

    def report(self, progress: Progress) -> None:
        """Take it; returns at once."""


class ProgressFeed:
    """Holds what is told until the one who waits takes it.

    It wants no text while something lies here: so text is made as often as somebody has time to read it, and not for
    every token.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._news: list[Progress] = []
        self._ended = False

    @property
    def wants_text(self) -> bool:
        """Whether all that was told is taken."""
        return not self._news

    def report(self, progress: Progress) -> None:
        """Put it here."""
        with self._changed:
            self._news.append(progress)
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self, timeout_sec: float) -> list[Progress]:
        """What has been told since the last call, oldest first.

        Args:
            timeout_sec: How long to wait for anything at all; not at all once the feed has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._ended, max(0.0, timeout_sec))
            news, self._news = self._news, []
            return news
