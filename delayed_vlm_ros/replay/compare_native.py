"""Compare the delayed memory with native video inference, by a model on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.compare import Comparison
from delayed_vlm_ros.replay.native import native_answer


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
