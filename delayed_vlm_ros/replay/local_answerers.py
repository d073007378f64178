"""Answer a question by each method with a model on this machine: the delayed memory and the baselines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager, Snapshot
from delayed_vlm_ros.memory.frame import Frame
from delayed_vlm_ros.replay.answerers import MethodAnswer, engine_answer, pair_key
from delayed_vlm_ros.replay.compare import MAX_NATIVE_FRAMES
from delayed_vlm_ros.replay.methods import (
    DELAYED,
    DELAYED_UNCACHED,
    METHOD_KEYS,
    NATIVE_ALL,
    NATIVE_KEPT,
    NEWEST_4,
)
from delayed_vlm_ros.replay.native import native_answer
from delayed_vlm_ros.replay.peak_memory import peak_memory

_NEWEST_FRAMES = 4  # SimpleStream shows that four frames suffice for questions about the present


class LocalAnswerers:
    """The chosen methods with a model on this machine, applied to one recording.

    Args:
        model: Model of transformers.
        processor: Processor of the model.
        memory: Memory of the delayed methods. The caller adds its frames.
        methods: Some of ``METHOD_KEYS``.
        max_pixels: Maximum pixels per frame of the engines.
    """

    def __init__(
        self, model: Any, processor: Any, memory: SmartFrameManager, methods: Sequence[str], max_pixels: int
    ) -> None:
        self._model = model
        self._processor = processor
        self._memory = memory
        self._cached = DelayedBatchInferenceEngine(model, processor, max_pixels=max_pixels, frame_manager=memory)
        self._uncached = DelayedBatchInferenceEngine(model, processor, max_pixels=max_pixels, frame_manager=memory)
        self._methods = tuple(method for method in METHOD_KEYS if method in methods)
        self._all_frames = SmartFrameManager(0, MAX_NATIVE_FRAMES) if NATIVE_ALL in methods else None
        self._newest: deque[Frame] = deque(maxlen=_NEWEST_FRAMES)

    @property
    def cached_bytes(self) -> int:
        """Bytes that the ``delayed`` method keeps for its next question."""
        cached = self._cached.cached_bytes()
        return cached.features + cached.kv

    def add(self, frame: Frame) -> None:
        """Add a frame that the delayed memory has sampled."""
        self._newest.append(frame)
        if self._all_frames is None:
            return
        if self._all_frames.statistics().unique_frames < MAX_NATIVE_FRAMES:
            self._all_frames.add(frame.image, frame.stamp)
        else:
            self._all_frames = None  # an answer from part of the recording would look like one from all of it

    def reset(self) -> None:
        """Drop all frames and caches, as the delayed memory does after a backward time jump."""
        self._newest.clear()
        self._cached.reset_cache()
        if self._all_frames is not None:
            self._all_frames.reset()

    def answer(self, request: AskRequest) -> dict[str, MethodAnswer]:
        """Answer a question by every chosen method; a method that fails returns its error."""
        answerers: dict[str, Callable[[AskRequest], MethodAnswer]] = {
            DELAYED: lambda request: engine_answer(self._cached, replace(request, ranks_evidence=True)),
            DELAYED_UNCACHED: self._answer_uncached,
            NATIVE_KEPT: lambda request: self._answer_natively(self._memory.snapshot(), request, is_evidence=True),
            NATIVE_ALL: self._answer_from_all_frames,
            NEWEST_4: lambda request: self._answer_natively(self._newest_snapshot(), request, is_evidence=False),
        }
        return {method: self._measure(method, answerers[method], request) for method in self._methods}

    def _measure(
        self, method: str, answerer: Callable[[AskRequest], MethodAnswer], request: AskRequest
    ) -> MethodAnswer:
        cached_bytes = 0 if method == DELAYED else self.cached_bytes
        try:
            with peak_memory(self._model.device) as peak:
                answer = answerer(request)
        except DelayedVlmError as error:
            return MethodAnswer(error=str(error))
        except Exception as error:  # noqa: BLE001  out of device memory, or a defect: the other methods continue
            return MethodAnswer(error=f"{type(error).__name__}: {error}")
        return replace(answer, peak_memory_bytes=None if peak.bytes is None else peak.bytes - cached_bytes)

    def _answer_uncached(self, request: AskRequest) -> MethodAnswer:
        try:
            return replace(engine_answer(self._uncached, request), cached_bytes=0)
        finally:
            self._uncached.reset_cache()

    def _newest_snapshot(self) -> Snapshot:
        memory = SmartFrameManager(0, _NEWEST_FRAMES)
        for frame in self._newest:
            memory.add(frame.image, frame.stamp)
        return memory.snapshot()

    def _answer_from_all_frames(self, request: AskRequest) -> MethodAnswer:
        if self._all_frames is None:
            reason = f"more than {MAX_NATIVE_FRAMES} frames were sampled, the limit of native inference"
            return MethodAnswer(error=reason, skipped=True)
        return self._answer_natively(self._all_frames.snapshot(), request, is_evidence=False)

    def _answer_natively(self, snapshot: Snapshot, request: AskRequest, *, is_evidence: bool) -> MethodAnswer:
        native = native_answer(self._model, self._processor, snapshot, request)
        return MethodAnswer(
            answer=native.text,
            evidence=tuple(map(pair_key, snapshot)) if is_evidence else (),
            first_token_sec=native.first_token_sec,
            total_sec=native.seconds,
            visual_tokens=native.visual_tokens,
            kv_length=native.kv_cache_length,
            frames_encoded=sum(kept.frame_count for kept in snapshot),
            frames_reused=0,
            cached_bytes=0,
            answer_tokens=native.answer_tokens,
            finish_reason=native.finish_reason,
            exact=True,
        )
