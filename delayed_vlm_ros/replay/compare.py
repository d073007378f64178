"""Delayed encoding of the kept frames beside native video inference on all frames of the same video."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.replay.native import native_answer

MOST_NATIVE_FRAMES = 768  # what the models' own video processors take at most


@dataclass(frozen=True)
class Comparison:
    """One question, answered both ways.

    Attributes:
        question: Plain text.
        native: Answer of native inference on all frames, with the positions of true time.
        native_seconds: From images to text.
        native_stock: Answer of native inference with the library's own positions.
        delayed: Answer of the delayed memory.
        delayed_seconds: From the ask to text.
        metrics: Of the delayed answer.
    """

    question: str
    native: str
    native_seconds: float
    native_stock: str
    delayed: str
    delayed_seconds: float
    metrics: AskMetrics

    @property
    def length_ratio(self) -> float:
        """Characters of the delayed answer ÷ those of the native one."""
        return len(self.delayed) / max(1, len(self.native))

    @property
    def similarity(self) -> float:
        """How much of both answers is the same text, 0 … 1 (``difflib``'s ratio over characters)."""
        return similarity(self.native, self.delayed)

    def as_json(self) -> dict[str, Any]:
        """As ``delayed-vlm compare --json`` prints it."""
        return {
            "question": self.question,
            "native": {"answer": self.native, "seconds": self.native_seconds},
            "native_stock_positions": {
                "answer": self.native_stock,
                "similarity_to_native": similarity(self.native, self.native_stock),
            },
            "delayed": {"answer": self.delayed, "seconds": self.delayed_seconds, "metrics": dict(self.metrics)},
            "length_ratio": self.length_ratio,
            "similarity": self.similarity,
            "identical": self.native == self.delayed,
        }


def similarity(one: str, other: str) -> float:
    """Share of two texts that is the same, 0 … 1; two empty ones are the same."""
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def stream_in(
    engine: DelayedBatchInferenceEngine, everything: DelayedBatchInferenceEngine, frames: Iterable[VideoFrame]
) -> None:
    """Give each frame to the delayed memory and to one that keeps all.

    Raises:
        BadRequestError: There are more frames than native inference takes.
    """
    for number, frame in enumerate(frames, start=1):
        if number > MOST_NATIVE_FRAMES:
            raise BadRequestError(
                f"the video gives more than {MOST_NATIVE_FRAMES} frames, the most that native inference takes: lower "
                "--sample-fps, or cut the video"
            )
        engine.add_frame(frame.image, frame.stamp)
        everything.add_frame(frame.image, frame.stamp)


def keep_everything() -> SmartFrameManager:
    """A memory that forgets nothing of a video that native inference can take."""
    return SmartFrameManager(star_memory_size=0, stream_window_size=MOST_NATIVE_FRAMES)


def compare_answers(
    engine: DelayedBatchInferenceEngine,
    everything: DelayedBatchInferenceEngine,
    questions: Sequence[str],
    max_new_tokens: int,
) -> Iterable[Comparison]:
    """Answer each question both ways.

    Args:
        engine: The delayed memory, frames in it.
        everything: The memory that kept all frames; only its frames are used.
        questions: Plain text each.
        max_new_tokens: Length limit of each answer.

    Yields:
        Each comparison when it is done.
    """
    frames = everything.snapshot()
    for question in questions:
        request = AskRequest(question, max_new_tokens=max_new_tokens)
        native = native_answer(engine.model, engine.processor, frames, request)
        stock = native_answer(engine.model, engine.processor, frames, request, stock_positions=True)
        started = time.monotonic()
        result = engine.answer(request)
        delayed_seconds = time.monotonic() - started
        yield Comparison(
            question, native.text, native.seconds, stock.text, result.answer, delayed_seconds, result.metrics
        )
