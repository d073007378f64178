"""Compare the delayed memory with all frames of a video, both by a model on a server. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.inference.engine import Engine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.compare import similarity


@dataclass(frozen=True)
class TimedAnswer:
    """An answer of a server.

    Attributes:
        answer: Its text.
        seconds: Time from the question to the complete answer, in seconds.
        metrics: Its cost.
    """

    answer: str
    seconds: float
    metrics: AskMetrics

    def as_json(self) -> dict[str, Any]:
        """Return the answer as an object."""
        return {"answer": self.answer, "seconds": self.seconds, "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class ServerComparison:
    """One question, answered from all frames and from the delayed memory.

    Attributes:
        question: Question text.
        everything: Answer from all frames.
        delayed: Answer from the delayed memory.
    """

    question: str
    everything: TimedAnswer
    delayed: TimedAnswer

    @property
    def rows(self) -> tuple[tuple[str, str, float | None], ...]:
        """Method, answer and time in seconds of each answer."""
        return (
            ("all frames", self.everything.answer, self.everything.seconds),
            ("delayed", self.delayed.answer, self.delayed.seconds),
        )

    @property
    def metrics(self) -> AskMetrics:
        """Cost of the delayed answer."""
        return self.delayed.metrics

    @property
    def is_identical(self) -> bool:
        """Whether both answers are the same."""
        return self.everything.answer == self.delayed.answer

    @property
    def length_ratio(self) -> float:
        """Characters of the delayed answer ÷ characters of the other one."""
        return len(self.delayed.answer) / max(1, len(self.everything.answer))

    @property
    def similarity(self) -> float:
        """Similarity of both answers, 0 … 1 (``difflib``'s ratio over characters)."""
        return similarity(self.everything.answer, self.delayed.answer)

    def as_json(self) -> dict[str, Any]:
        """Return the entry that ``delayed-vlm compare --json`` prints."""
        return {
            "question": self.question,
            "everything": self.everything.as_json(),
            "delayed": self.delayed.as_json(),
            "length_ratio": self.length_ratio,
            "similarity": self.similarity,
            "identical": self.is_identical,
        }


def compare_answers(
    engine: Engine, everything: Engine, questions: Sequence[str], max_new_tokens: int
) -> Iterator[ServerComparison]:
    """Answer each question from all frames and from the delayed memory.

    Args:
        engine: Engine with the delayed memory, which holds the frames.
        everything: Engine whose memory keeps all frames.
        questions: Question texts.
        max_new_tokens: Maximum length of each answer, in tokens.

    Yields:
        Each comparison as soon as both answers are complete.
    """
    for question in questions:
        request = AskRequest(question, max_new_tokens=max_new_tokens)
        yield ServerComparison(question, _timed(everything, request), _timed(engine, request))


def _timed(engine: Engine, request: AskRequest) -> TimedAnswer:
    started = time.monotonic()
    result = engine.answer(request)
    return TimedAnswer(result.answer, time.monotonic() - started, result.metrics)
