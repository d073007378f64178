"""What nodes, the page and the watches use of an engine, which computes on this machine or asks a server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.inference.yes_no import ScoreResult
from delayed_vlm_ros.memory import SmartFrameManager, Snapshot


@dataclass(frozen=True, slots=True)
class CachedBytes:
    """Bytes kept between questions, by storage.

    Attributes:
        features: Bytes of vision features; of a remote engine, of compressed frames.
        kv: Bytes of all prefixes: keys, values and recurrent states.
    """

    features: int
    kv: int


class Engine(Protocol):
    """Answers questions about one camera's memory. Only one thread may use it at a time."""

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a question about the kept frames, or about other ``frames`` of this camera.

        Raises:
            DelayedVlmError: There is no answer.
        """

    def score(
        self,
        questions: Sequence[str],
        *,
        window_sec: float | None = None,
        frames: Snapshot | None = None,
        control: AskControl | None = None,
    ) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the newest frames, or about other ``frames``.

        Raises:
            DelayedVlmError: There are no scores.
        """

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:
        """Encode new frames before the next question; ``prefill`` includes the language model.

        Returns:
            Whether anything was encoded.

        Raises:
            DelayedVlmError: The work was cancelled, or the device ran out of memory.
        """

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the encoded windows of all other lengths, in seconds."""

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes kept between questions."""

    def reset_cache(self) -> None:
        """Drop everything computed for earlier questions."""

    def close(self) -> None:
        """Release the model or the connection."""


class SceneEngine(Engine, Protocol):
    """An engine with the memory of one camera, as Python programs use it."""

    @property
    def frame_manager(self) -> SmartFrameManager:
        """The memory."""

    def add_frame(self, image: Any, timestamp: float) -> str:
        """Add an image to the memory.

        Raises:
            ImageError: The image cannot be used, or its stamp is not newer than the last one.
        """

    def ask(self, question: str, *, max_new_tokens: int | None = None) -> tuple[str, AskMetrics]:
        """Return the answer to a question about the kept frames, and its metrics.

        Raises:
            DelayedVlmError: There is no answer.
        """
