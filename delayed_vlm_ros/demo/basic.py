"""The basic course of a delayed memory: stream in, ask, ask again from cache, add frames, ask."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.replay.video_frames import all_but_last

LATER_FRAMES = 10
STAGES = ("stream in", "ask", "ask again, from cache", f"add {LATER_FRAMES} frames and ask")


@dataclass(frozen=True)
class AskRecord:
    """A question with its answer and what it cost."""

    question: str
    answer: str
    metrics: AskMetrics

    def as_json(self) -> dict[str, Any]:
        """As ``delayed-vlm basic --json`` prints it."""
        return {"question": self.question, "answer": self.answer, "metrics": dict(self.metrics)}


@dataclass(frozen=True)
class Stage:
    """One of the four stages.

    Attributes:
        name: One of ``STAGES``.
        seconds: How long it took, the ask included.
        frames_added: Frames added to memory in it.
        ask: The ask in it, if it has one.
    """

    name: str
    seconds: float
    frames_added: int
    ask: AskRecord | None

    def as_json(self) -> dict[str, Any]:
        """As ``delayed-vlm basic --json`` prints it."""
        return {"name": self.name, "seconds": self.seconds, "frames_added": self.frames_added}


def basic_course(
    engine: DelayedBatchInferenceEngine, frames: Iterable[VideoFrame], questions: Sequence[str], max_new_tokens: int
) -> Iterator[Stage]:
    """Go through the four stages.

    Args:
        engine: With an empty memory.
        frames: The video's sampled frames; the last ten are kept back for the last stage.
        questions: Three of them.
        max_new_tokens: Length limit of each answer.

    Yields:
        Each stage when it is done.

    Raises:
        NoFramesError: The video gives too few frames.
    """
    held: deque[VideoFrame] = deque()

    def stage(name: str, new_frames: Iterable[VideoFrame], question: str | None) -> Stage:
        started = time.monotonic()
        added = 0
        for frame in new_frames:
            engine.add_frame(frame.image, frame.stamp)
            added += 1
        record = None
        if question is not None:
            answer, metrics = engine.ask(question, max_new_tokens=max_new_tokens)
            record = AskRecord(question, answer, metrics)
        return Stage(name, time.monotonic() - started, added, record)

    first = stage(STAGES[0], all_but_last(frames, LATER_FRAMES, held), None)
    if first.frames_added == 0:
        raise NoFramesError(
            f"too few frames: the video gives {len(held)}, and {LATER_FRAMES} of them are for the last stage. Take a "
            "longer video, or raise --sample-fps"
        )
    yield first
    yield stage(STAGES[1], (), questions[0])
    yield stage(STAGES[2], (), questions[1])
    yield stage(STAGES[3], held, questions[2])
