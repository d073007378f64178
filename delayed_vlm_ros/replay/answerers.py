"""Answers to a question about a recording by each method, with their cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from delayed_vlm_ros.inference.engine import Engine
from delayed_vlm_ros.inference.finish import FinishReason
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.memory.frame import Frame


@dataclass(frozen=True)
class RankedPair:
    """A pair that an answer rests on.

    Attributes:
        pair: Key (``pair_key``) of the pair.
        relevance: Share of the answer that rests on it, 0..1.
    """

    pair: str
    relevance: float


@dataclass(frozen=True)
class MethodAnswer:
    """The answer of one method to a question, with its cost. Figures are None without an answer.

    Attributes:
        answer: Answer text; empty on an error.
        error: Reason for a missing answer; empty if there is an answer.
        skipped: Whether a limit of the method excludes the question; no answer is expected then.
        evidence: Keys (``pair_key``) of the kept pairs that the method received; empty for other frames.
        rests_on: The pairs that the answer rests on most, best first; empty if they were not ranked.
        first_token_sec: Time from the question to the first token, in seconds.
        total_sec: Time from the question to the complete answer, in seconds.
        visual_tokens: Merged visual tokens in the prompt.
        kv_length: Tokens of prompt and answer.
        frames_encoded: Frames that the vision encoder processed for this question.
        frames_reused: Frames whose encoding was reused from an earlier question.
        cached_bytes: Bytes kept for the next question.
        answer_tokens: Tokens of the answer.
        finish_reason: Why the answer ended: ``stop``, ``length`` or ``repetition``.
        peak_memory_bytes: Peak memory of the device, on a CPU of the process, in bytes. The cache of the ``delayed``
            method counts for that method only.
        exact: Whether the answer equals that of native inference up to rounding.
        bytes_sent: Bytes sent to a model server.
        warnings: Limitations of this answer, one sentence each.
    """

    answer: str = ""
    error: str = ""
    skipped: bool = False
    evidence: tuple[str, ...] = ()
    rests_on: tuple[RankedPair, ...] = ()
    first_token_sec: float | None = None
    total_sec: float | None = None
    visual_tokens: int | None = None
    kv_length: int | None = None
    frames_encoded: int | None = None
    frames_reused: int | None = None
    cached_bytes: int | None = None
    answer_tokens: int | None = None
    finish_reason: FinishReason | None = None
    peak_memory_bytes: int | None = None
    exact: bool | None = None
    bytes_sent: int | None = None
    warnings: tuple[str, ...] = ()


def pair_key(kept: KeptPair) -> str:
    """Return the key of a pair in a result. A pair without its second frame has a key of its own."""
    return str(kept.id) if kept.pair.is_complete else f"{kept.id}-first"


class Answerers(Protocol):
    """The methods of an evaluation, applied to one recording."""

    @property
    def cached_bytes(self) -> int:
        """Bytes that the ``delayed`` method keeps for its next question."""

    def add(self, frame: Frame) -> None:
        """Add a frame that the delayed memory has sampled."""

    def reset(self) -> None:
        """Drop all frames and caches, as the delayed memory does after a backward time jump."""

    def answer(self, request: AskRequest) -> dict[str, MethodAnswer]:
        """Answer a question by every method; a method that fails returns its error."""


def engine_answer(engine: Engine, request: AskRequest) -> MethodAnswer:
    """Return the answer of an engine, with its cost.

    Raises:
        DelayedVlmError: There is no answer.
    """
    started = time.monotonic()
    result = engine.answer(request)
    cached = engine.cached_bytes()
    return MethodAnswer(
        answer=result.answer,
        evidence=tuple(map(pair_key, result.frames_used)),
        rests_on=tuple(RankedPair(pair_key(one.kept), round(one.relevance, 4)) for one in result.evidence),
        first_token_sec=result.metrics.time_to_first_token,
        total_sec=time.monotonic() - started,
        visual_tokens=result.metrics.visual_tokens,
        kv_length=result.metrics.kv_cache_length,
        frames_encoded=result.metrics.frames_encoded,
        frames_reused=result.metrics.frames_reused,
        cached_bytes=cached.features + cached.kv,
        answer_tokens=result.metrics.answer_tokens,
        finish_reason=result.metrics.finish_reason,
        exact=result.metrics.exact,
        bytes_sent=result.metrics.bytes_sent or None,
        warnings=result.metrics.warnings,
    )
