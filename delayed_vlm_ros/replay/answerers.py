"""Ways to answer a question about a recording: the delayed memory's, and those that it has to measure up to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import KeptPair, SmartFrameManager, Snapshot
from delayed_vlm_ros.memory.frame import Frame
from delayed_vlm_ros.replay.compare import MOST_NATIVE_FRAMES
from delayed_vlm_ros.replay.native import native_answer
from delayed_vlm_ros.replay.peak_memory import peak_memory

DELAYED = "delayed"
DELAYED_UNCACHED = "delayed_uncached"
NATIVE_KEPT = "native_kept"
NATIVE_ALL = "native_all"
NEWEST_4 = "newest_4"
METHODS = (DELAYED, DELAYED_UNCACHED, NATIVE_KEPT, NATIVE_ALL, NEWEST_4)

_NEWEST_FRAMES = 4  # what SimpleStream shows to be enough for questions about now


@dataclass(frozen=True)
class MethodAnswer:
    """One method's answer to a question, and what it cost; figures are None where there is no answer.

    Attributes:
        answer: What it said; empty where it failed.
        error: Why it has no answer; empty where it has one.
        skipped: Whether it was not asked at all, for a limit of its own.
        evidence: What ``pair_key`` calls the pairs that it was given, where they are of the delayed memory.
        first_token_sec: From the ask to the answer's first token.
        total_sec: From the ask to the whole answer.
        visual_tokens: Merged visual tokens in the prompt.
        kv_length: Tokens of prompt and answer.
        frames_encoded: Frames that went through the vision encoder for it.
        frames_reused: Frames whose encoding was kept from an earlier ask.
        cached_bytes: What is kept for the next ask.
        peak_memory_bytes: The most memory while it worked: the device's, or on a CPU the process's; without what the
            delayed method keeps between its asks, except for that itself.
    """

    answer: str = ""
    error: str = ""
    skipped: bool = False
    evidence: tuple[str, ...] = ()
    first_token_sec: float | None = None
    total_sec: float | None = None
    visual_tokens: int | None = None
    kv_length: int | None = None
    frames_encoded: int | None = None
    frames_reused: int | None = None
    cached_bytes: int | None = None
    peak_memory_bytes: int | None = None


def pair_key(kept: KeptPair) -> str:
    """What a result calls a pair: one that waits for its second frame is another thing than the whole of it."""
    return str(kept.id) if kept.pair.is_complete else f"{kept.id}-first"


class Methods:
    """The chosen methods, over one recording.

    Args:
        model: The library's model.
        processor: Its processor.
        memory: The delayed memory; whoever holds it adds its frames.
        chosen: Some of ``METHODS``.
        max_pixels: As of the engine.
    """

    def __init__(
        self, model: Any, processor: Any, memory: SmartFrameManager, chosen: Sequence[str], max_pixels: int
    ) -> None:
        self._model = model
        self._processor = processor
        self._memory = memory
        self._delayed = DelayedBatchInferenceEngine(model, processor, max_pixels=max_pixels, frame_manager=memory)
        self._uncached = DelayedBatchInferenceEngine(model, processor, max_pixels=max_pixels, frame_manager=memory)
        self._chosen = tuple(method for method in METHODS if method in chosen)
        self._everything = SmartFrameManager(0, MOST_NATIVE_FRAMES) if NATIVE_ALL in chosen else None
        self._newest: deque[Frame] = deque(maxlen=_NEWEST_FRAMES)

    @property
    def cached_bytes(self) -> int:
        """What the delayed method keeps for its next ask."""
        cached = self._delayed.cached_bytes()
        return cached.features + cached.kv

    def add(self, frame: Frame) -> None:
        """Take in a frame that the delayed memory has taken."""
        self._newest.append(frame)
        if self._everything is None:
            return
        if self._everything.statistics().unique_frames < MOST_NATIVE_FRAMES:
            self._everything.add(frame.image, frame.stamp)
        else:
            self._everything = None  # it would answer about a part of the recording as if it were all

    def begin_anew(self) -> None:
        """Forget what the delayed memory has forgotten, when time has gone back."""
        self._newest.clear()
        self._delayed.reset_cache()
        if self._everything is not None:
            self._everything.clear()

    def answers(self, request: AskRequest) -> dict[str, MethodAnswer]:
        """Answer a question in every chosen way; one that fails says so in place of an answer."""
        ways: dict[str, Callable[[AskRequest], MethodAnswer]] = {
            DELAYED: lambda asked: _engine_answer(self._delayed, asked),
            DELAYED_UNCACHED: self._without_caches,
            NATIVE_KEPT: lambda asked: self._native(self._memory.snapshot(), asked, of_memory=True),
            NATIVE_ALL: self._native_all,
            NEWEST_4: lambda asked: self._native(self._newest_snapshot(), asked, of_memory=False),
        }
        return {method: self._measured(method, ways[method], request) for method in self._chosen}

    def _measured(self, method: str, way: Callable[[AskRequest], MethodAnswer], request: AskRequest) -> MethodAnswer:
        held = 0 if method == DELAYED else self.cached_bytes
        try:
            with peak_memory(self._model.device) as peak:
                answer = way(request)
        except DelayedVlmError as error:
            return MethodAnswer(error=str(error))
        except Exception as error:  # noqa: BLE001  a device that is out of memory, or a defect: the others go on
            return MethodAnswer(error=f"{type(error).__name__}: {error}")
        return replace(answer, peak_memory_bytes=None if peak.bytes is None else peak.bytes - held)

    def _without_caches(self, request: AskRequest) -> MethodAnswer:
        try:
            return replace(_engine_answer(self._uncached, request), cached_bytes=0)
        finally:
            self._uncached.reset_cache()

    def _newest_snapshot(self) -> Snapshot:
        memory = SmartFrameManager(0, _NEWEST_FRAMES)
        for frame in self._newest:
            memory.add(frame.image, frame.stamp)
        return memory.snapshot()

    def _native_all(self, request: AskRequest) -> MethodAnswer:
        if self._everything is None:
            limit = f"more than {MOST_NATIVE_FRAMES} frames were sampled, the most that native inference takes"
            return MethodAnswer(error=limit, skipped=True)
        return self._native(self._everything.snapshot(), request, of_memory=False)

    def _native(self, snapshot: Snapshot, request: AskRequest, *, of_memory: bool) -> MethodAnswer:
        native = native_answer(self._model, self._processor, snapshot, request)
        return MethodAnswer(
            answer=native.text,
            evidence=tuple(map(pair_key, snapshot)) if of_memory else (),
            first_token_sec=native.first_token_sec,
            total_sec=native.seconds,
            visual_tokens=native.visual_tokens,
            kv_length=native.kv_cache_length,
            frames_encoded=sum(kept.frame_count for kept in snapshot),
            frames_reused=0,
            cached_bytes=0,
        )


def _engine_answer(engine: DelayedBatchInferenceEngine, request: AskRequest) -> MethodAnswer:
    started = time.monotonic()
    result = engine.answer(request)
    cached = engine.cached_bytes()
    return MethodAnswer(
        answer=result.answer,
        evidence=tuple(map(pair_key, result.frames_used)),
        first_token_sec=result.metrics.time_to_first_token,
        total_sec=time.monotonic() - started,
        visual_tokens=result.metrics.visual_tokens,
        kv_length=result.metrics.kv_cache_length,
        frames_encoded=result.metrics.frames_encoded,
        frames_reused=result.metrics.frames_reused,
        cached_bytes=cached.features + cached.kv,
    )
