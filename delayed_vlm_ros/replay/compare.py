"""Compare answers from the kept frames with answers from all frames of a video."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.images.video import VideoFrame
from delayed_vlm_ros.inference.engine import SceneEngine
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.memory import SmartFrameManager

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
    def rows(self) -> tuple[tuple[str, str, float | None], ...]:
        """Method, answer and time in seconds of each answer; None: not measured."""
        return (
            ("native", self.native, self.native_seconds),
            ("delayed", self.delayed, self.delayed_seconds),
            ("native, HF default positions", self.native_stock, None),
        )

    @property
    def is_identical(self) -> bool:
        """Whether the delayed answer is the native one."""
        return self.native == self.delayed

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
            "identical": self.is_identical,
        }


def similarity(one: str, other: str) -> float:
    """Return the similarity of two texts, 0 … 1; two empty texts are equal."""
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def stream_in(engine: SceneEngine, everything: SceneEngine, frames: Iterable[VideoFrame]) -> None:
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
