"""Questions asked on the page and their answers. All visitors share one conversation."""

from __future__ import annotations

import itertools
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from delayed_vlm_ros.errors import BadRequestError, BusyError
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.web.backend import AskOutcome, Backend, Question, RunningQuestion

MAX_CHARACTERS = 1000
"""Default maximum length of a question, in characters."""

QUESTIONS_PER_MINUTE = 20
"""Default maximum number of questions in any minute."""

_HISTORY = 40  # exchanges
_MINUTE_SEC = 60.0


@dataclass
class Exchange:
    """A question and its answer so far.

    Attributes:
        number: Sequence number in the conversation, from 1.
        question: The question.
        progress: Latest progress.
        outcome: Result; None while the question is running.
        is_stopping: Whether a user has requested its end.
    """

    number: int
    question: Question
    progress: Progress = field(default_factory=lambda: Progress(Stage.QUEUED))
    outcome: AskOutcome | None = None
    is_stopping: bool = False


class Conversation:
    """Passes questions to the backend, one at a time and at a limited rate, and stores the answers. Thread-safe.

    Args:
        backend: Scene memory that answers.
        max_characters: Maximum length of a question, in characters.
        questions_per_minute: Maximum number of questions in any minute.
        clock: Steady clock, in seconds.
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
        self._exchanges: deque[Exchange] = deque(maxlen=_HISTORY)
        self._asked_at: deque[float] = deque(maxlen=questions_per_minute)
        self._handle: RunningQuestion | None = None

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Stored exchanges, oldest first."""
        with self._lock:
            return tuple(self._exchanges)

    @property
    def running(self) -> Exchange | None:
        """The exchange without a result; None if there is none."""
        with self._lock:
            return self._running()

    def _running(self) -> Exchange | None:
        newest = self._exchanges[-1] if self._exchanges else None
        return newest if newest is not None and newest.outcome is None else None

    def ask(self, question: Question) -> Exchange:
        """Start a question.

        Raises:
            BadRequestError: The question is empty, too long, or not valid Unicode.
            BusyError: Another question is running, or the rate limit is reached.
        """
        check_text(question.text, self.max_characters)
        with self._lock:
            if self._running() is not None:
                raise BusyError("another question is running: wait for its answer or stop it")
            self._check_rate()
            exchange = Exchange(next(self._numbers), question)
            self._exchanges.append(exchange)
            self._handle = None

        def on_progress(step: Progress) -> None:
            exchange.progress = step

        def on_done(outcome: AskOutcome) -> None:
            exchange.outcome = outcome

        handle = self._backend.ask(question, on_progress, on_done)
        with self._lock:
            self._handle = handle
            stop_now = exchange.is_stopping
        if stop_now:
            handle.stop()
        return exchange

    def _check_rate(self) -> None:
        now = self._clock()
        if len(self._asked_at) == self._questions_per_minute and now - self._asked_at[0] < _MINUTE_SEC:
            wait_sec = _MINUTE_SEC - (now - self._asked_at[0])
            raise BusyError(
                f"rate limit reached ({self._questions_per_minute} questions a minute): ask again in {wait_sec:.0f} s"
            )
        self._asked_at.append(now)

    def stop(self) -> None:
        """Request the end of the running question, if there is one."""
        with self._lock:
            running = self._running()
            if running is None:
                return
            running.is_stopping = True
            handle = self._handle
        if handle is not None:
            handle.stop()


def check_text(question: str, max_characters: int) -> None:
    """Check the text of a question.

    Args:
        question: The text.
        max_characters: Maximum length.

    Raises:
        BadRequestError: The text is empty, too long, or not valid Unicode.
    """
    if not question.strip():
        raise BadRequestError("the question is empty: type what you want to know about the scene")
    if len(question) > max_characters:
        raise BadRequestError(
            f"the question has {len(question)} characters, the maximum is {max_characters}: shorten it"
        )
    if any(unicodedata.category(character) == "Cs" for character in question):  # no message can hold them
        raise BadRequestError("the question has half of a character: type it again")
