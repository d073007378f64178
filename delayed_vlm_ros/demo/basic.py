"""The four stages of a delayed memory: stream in, ask, ask again from cache, add frames and ask."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.inference.engine import SceneEngine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskRequest, Evidence
from delayed_vlm_ros.replay.video_frames import all_but_last

LATER_FRAMES = 10
STAGES = ("stream in", "ask", "ask again, from cache", f"add {LATER_FRAMES} frames and ask")


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question with its answer.

    Attributes:
        question: Text of the question.
        answer: Answer of the engine.
        metrics: Metrics of the answer.
        evidence: The pairs that the answer rests on most, best first.
    """

    question: str
    answer: str
    metrics: AskMetrics
    evidence: tuple[Evidence, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``delayed-vlm basic --json`` prints."""
        evidence = [
            {"id": one.kept.id, "stamp": one.kept.stamps[0], "relevance": round(one.relevance, 4)}
            for one in self.evidence
        ]
        return {"question": self.question, "answer": self.answer, "metrics": dict(self.metrics), "evidence": evidence}


@dataclass(frozen=True)
class Stage:
    """One of the four stages.

    Attributes:
        name: Name of the stage, one of ``STAGES``.
        seconds: Duration, including the question, in seconds.
        frames_added: Number of frames added to memory.
        answer: Answered question; None for a stage without one.
    """

    name: str
    seconds: float
    frames_added: int
    answer: AnsweredQuestion | None

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``delayed-vlm basic --json`` prints."""
        return {"name": self.name, "seconds": self.seconds, "frames_added": self.frames_added}


def run_stages(
    engine: SceneEngine, frames: Iterable[VideoFrame], questions: Sequence[str], max_new_tokens: int
) -> Iterator[Stage]:
    """Run the four stages.

    Args:
        engine: Engine with an empty memory.
        frames: Sampled frames of the video; the last ten are held back for the last stage.
        questions: Three questions.
        max_new_tokens: Maximum length of each answer, in tokens.

    Yields:
        Each stage when it is complete.

    Raises:
        NoFramesError: The video has too few frames.
    """
    held: deque[VideoFrame] = deque()

    def stage(name: str, new_frames: Iterable[VideoFrame], question: str | None) -> Stage:
        started = time.monotonic()
        added = 0
        for frame in new_frames:
            engine.add_frame(frame.image, frame.stamp)
            added += 1
        answered = None
        if question is not None:
            request = AskRequest(question, max_new_tokens=max_new_tokens, ranks_evidence=True)
            result = engine.answer(request)
            answered = AnsweredQuestion(question, result.answer, result.metrics, result.evidence)
        return Stage(name, time.monotonic() - started, added, answered)

    first = stage(STAGES[0], all_but_last(frames, LATER_FRAMES, held), None)
    if first.frames_added == 0:
        raise NoFramesError(
            f"too few frames: the video has {len(held)}, and the last stage needs {LATER_FRAMES} of them; use a longer "
            "video, or raise --sample-fps"
        )
    yield first
    yield stage(STAGES[1], (), questions[0])
    yield stage(STAGES[2], (), questions[1])
    yield stage(STAGES[3], held, questions[2])
