"""Compare delayed encoding of the kept frames with native video inference on all frames of a video."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
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

MAX_NATIVE_FRAMES = 768  # frame limit of the models' own video processors


@dataclass(frozen=True)
class Comparison:
    """One question, answered natively and from the delayed memory.

    Attributes:
        question: Question text.
        native: Answer of native inference on all frames, with position ids of true time.
        native_seconds: Time of native inference from images to text, in seconds.
        native_stock: Answer of native inference on all frames, with Hugging Face's default position ids.
        delayed: Answer of the delayed memory.
        delayed_seconds: Time of the delayed memory from question to text, in seconds.
        metrics: Metrics of the delayed answer.
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
        """Characters of the delayed answer ÷ characters of the native one."""
        return len(self.delayed) / max(1, len(self.native))

    @property
    def similarity(self) -> float:
        """Similarity of the delayed and the native answer, 0 … 1 (``difflib``'s ratio over characters)."""
        return similarity(self.native, self.delayed)

    def as_json(self) -> dict[str, Any]:
        """Return the entry that ``delayed-vlm compare --json`` prints."""
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
    """Return the similarity of two texts, 0 … 1; two empty texts are equal."""
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def stream_in(
    engine: DelayedBatchInferenceEngine, everything: DelayedBatchInferenceEngine, frames: Iterable[VideoFrame]
) -> None:
    """Add each frame to the delayed memory and to a memory that keeps all frames.

    Raises:
        BadRequestError: There are more frames than native inference accepts.
    """
    for number, frame in enumerate(frames, start=1):
        if number > MAX_NATIVE_FRAMES:
            raise BadRequestError(
                f"the video has more than {MAX_NATIVE_FRAMES} frames, the limit of native inference: lower "
                "--sample-fps, or cut the video"
            )
        engine.add_frame(frame.image, frame.stamp)
        everything.add_frame(frame.image, frame.stamp)


def keep_everything() -> SmartFrameManager:
    """Return a memory that keeps every frame of a video that native inference accepts."""
    return SmartFrameManager(star_memory_size=0, stream_window_size=MAX_NATIVE_FRAMES)


def compare_answers(
    engine: DelayedBatchInferenceEngine,
    everything: DelayedBatchInferenceEngine,
    questions: Sequence[str],
    max_new_tokens: int,
) -> Iterator[Comparison]:
    """Answer each question natively and from the delayed memory.

    Args:
        engine: Engine with the delayed memory, which holds the frames.
        everything: Engine whose memory keeps all frames; only its frames are used.
        questions: Question texts.
        max_new_tokens: Maximum length of each answer, in tokens.

    Yields:
        Each comparison as soon as both answers are complete.
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
