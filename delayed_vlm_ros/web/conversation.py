"""Questions put from the page, and what has come of them. One conversation for all who look at the page."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from delayed_vlm_ros.errors import BadRequestError, BusyError
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.web.backend import AskOutcome, Backend, Question, RunningQuestion

MAX_CHARACTERS = 1000
"""Longest question, unless somebody says otherwise."""

QUESTIONS_PER_MINUTE = 20
"""Most questions within any minute, unless somebody says otherwise."""

_KEPT = 40
"""Exchanges that are remembered."""

_MINUTE_SEC = 60.0


@dataclass
class Exchange:
    """One question with its answer as far as it has come.

    Attributes:
        number: Counts the conversation's questions.
        question: The question.
        progress: How far it is.
        outcome: How it has ended; None while it has not.
        is_stopping: Whether somebody has asked it to end.
    """

    number: int
    question: Question
    progress: Progress = field(default_factory=lambda: Progress(Stage.QUEUED))
    outcome: AskOutcome | None = None
    is_stopping: bool = False


class Conversation:
    """Takes questions to the scene, one at a time and not too many, and remembers the answers. From any thread.

    Args:
        backend: Whom to ask.
        max_characters: Longest question.
        questions_per_minute: Most questions within any minute.
        clock: Seconds of a steady clock.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_characters: int,
        questions_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_characters = max_characters
        self._backend = backend
        self._questions_per_minute = questions_per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._exchanges: deque[Exchange] = deque(maxlen=_KEPT)
        self._asked_at: deque[float] = deque(maxlen=questions_per_minute)
        self._asking: RunningQuestion | None = None

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """All that are remembered, oldest first."""
        with self._lock:
            return tuple(self._exchanges)

    @property
    def running(self) -> Exchange | None:
        """The one that has not ended."""
        with self._lock:
            return self._running()

    def _running(self) -> Exchange | None:
        newest = self._exchanges[-1] if self._exchanges else None
        return newest if newest is not None and newest.outcome is None else None

    def ask(self, question: Question) -> Exchange:
        """Put a question.

        Raises:
            BadRequestError: It is empty or too long.
            BusyError: Another one is not answered yet, or too many were put within a minute.
        """
        if not question.text.strip():
            raise BadRequestError("The question is empty: say what you want to know about the scene.")
        if len(question.text) > self.max_characters:
            raise BadRequestError(
                f"The question has {len(question.text)} characters, more than {self.max_characters}: shorten it."
            )
        with self._lock:
            if self._running() is not None:
                raise BusyError("The last question is not answered yet: wait for its answer, or stop it.")
            self._count()
            exchange = Exchange(next(self._numbers), question)
            self._exchanges.append(exchange)
            self._asking = None

        def progress(step: Progress) -> None:
            exchange.progress = step

        def ended(outcome: AskOutcome) -> None:
            exchange.outcome = outcome

        asking = self._backend.ask(question, progress, ended)
        with self._lock:
            self._asking = asking
            stop_now = exchange.is_stopping
        if stop_now:
            asking.stop()
        return exchange

    def _count(self) -> None:
        now = self._clock()
        if len(self._asked_at) == self._questions_per_minute and now - self._asked_at[0] < _MINUTE_SEC:
            wait_sec = _MINUTE_SEC - (now - self._asked_at[0])
            raise BusyError(
                f"{self._questions_per_minute} questions were put within a minute, as many as may be: ask again in "
                f"{wait_sec:.0f} s."
            )
        self._asked_at.append(now)

    def stop(self) -> None:
        """Ask the running one to end; nothing happens where there is none."""
        with self._lock:
            running = self._running()
            if running is None:
                return
            running.is_stopping = True
            asking = self._asking
        if asking is not None:
            asking.stop()
