"""How many questions about minutes of a stream the embedded model answers right, by which pairs a memory kept of it.

Every memory shows the model as many pairs as this one keeps, so the visual tokens are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delayed_vlm_ros.benchmark.process_pool import map_in_processes
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import KeptPair, MemoryConfig, SmartFrameManager
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.replay.compare import keep_everything
from lab.bench.answer_streams import KINDS_OF, LIVELY, AskedStream, draw_stream
from lab.bench.strategies import (
    MEMORY,
    Newest,
    Reservoir,
    SeenFrame,
    Strategy,
    Uniform,
)

NEWEST = "newest"
STREAM_ONLY = "Stream alone"

_OTHERS: dict[str, Callable[[int], Strategy]] = {NEWEST: Newest, "uniform": Uniform, "reservoir": Reservoir}
_LONGEST_ANSWER = 32
_RESAMPLES = 4000
_NO_FEATURES = np.zeros(0, np.float32)


@dataclass(frozen=True)
class AnswerPlan:
    """What is asked of which memory.

    Attributes:
        room: One of ``answer_streams.ROOMS``.
        minutes: Length of a stream.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        importance_threshold: Importance from which a frame is a key frame.
        per_kind: Questions of each kind about a stream, at most.
    """

    room: str = LIVELY
    minutes: float = 3.0
    star_memory_size: int = 20
    stream_window_size: int = 20
    importance_threshold: float = 0.6
    per_kind: int = 2

    def memory(self) -> SmartFrameManager:
        """An empty one, as the node would make it.

        Raises:
            ConfigurationError: Its sizes cannot work.
        """
        return MemoryConfig(self.star_memory_size, self.stream_window_size, self.importance_threshold).build()


@dataclass(frozen=True)
class JudgedAnswer:
    """A question and whether it was answered right.

    Attributes:
        group: What it is about.
        kind: As the simulation names it.
        answer: The right one.
        is_right: Whether the model gave it, to the letter.
        is_told: Whether the kept pairs tell it, to somebody who misreads nothing.
    """

    group: str
    kind: str
    answer: str
    is_right: bool
    is_told: bool


@dataclass(frozen=True)
class StreamAnswers:
    """One memory's answers about one stream.

    Attributes:
        pairs: That it kept.
        visual_tokens: That the model got.
        judged: Its answers; every memory is asked the same.
    """

    pairs: int
    visual_tokens: int
    judged: tuple[JudgedAnswer, ...]


def ask_stream(engine: DelayedBatchInferenceEngine, seed: int, plan: AnswerPlan) -> dict[str, StreamAnswers]:
    """Show a stream to every memory and ask each.

    Args:
        engine: Whose model answers.
        seed: Of the stream.
        plan: How.

    Returns:
        The answers, by the memory's name.
    """
    frames = plan.star_memory_size + plan.stream_window_size
    stream = draw_stream(seed, plan.room, plan.minutes, frames // FRAMES_PER_PAIR, plan.per_kind)
    memory = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=plan.memory())
    for image, stamp in zip(stream.images, stream.stamps, strict=True):
        memory.add_frame(image, stamp)
    kept = memory.snapshot()
    chosen = {name: _chosen_by(make(len(kept)), stream) for name, make in _OTHERS.items()}
    chosen[STREAM_ONLY] = _numbers(one for one in kept if one.in_stream)
    answers = {MEMORY: _answers(memory, stream, _numbers(kept))}
    for name, pairs in chosen.items():
        answers[name] = _answers(_engine_with(engine, stream, pairs), stream, pairs)
    return answers


def _numbers(kept: Iterable[KeptPair]) -> list[int]:
    return [one.pair.first.number // FRAMES_PER_PAIR for one in kept]  # frames are numbered from 1


def _chosen_by(strategy: Strategy, stream: AskedStream) -> list[int]:
    for number, image in enumerate(stream.images):
        strategy.add(SeenFrame(number, image, _NO_FEATURES))
    return strategy.kept()


def _engine_with(
    engine: DelayedBatchInferenceEngine, stream: AskedStream, pairs: Sequence[int]
) -> DelayedBatchInferenceEngine:
    holding = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
    for pair in pairs:
        for number in range(FRAMES_PER_PAIR * pair, FRAMES_PER_PAIR * (pair + 1)):
            holding.add_frame(stream.images[number], stream.stamps[number])
    return holding


def _answers(engine: DelayedBatchInferenceEngine, stream: AskedStream, pairs: Sequence[int]) -> StreamAnswers:
    judged, tokens = [], 0
    for group, questions in stream.questions.items():
        for one in questions:
            result = engine.answer(AskRequest(one.question.text, max_new_tokens=_LONGEST_ANSWER))
            tokens = result.metrics.visual_tokens
            right = result.answer == one.question.answer
            told = stream.is_told_by(pairs, one)
            judged.append(JudgedAnswer(group, one.question.kind, one.question.answer, right, told))
    return StreamAnswers(len(pairs), tokens, tuple(judged))


def ask_all(
    engine: DelayedBatchInferenceEngine, checkpoint: tuple[str, str], seeds: Sequence[int], plan: AnswerPlan, jobs: int
) -> Iterator[tuple[int, dict[str, StreamAnswers]]]:
    """Ask about every seed's stream, over so many processes, each with the model; answers come as they are ready.

    Args:
        engine: Whose model answers where there is one process.
        checkpoint: For several: the model's name, and where it runs.
        seeds: Of the streams.
        plan: How.
        jobs: Processes.
    """
    if jobs == 1:
        return ((seed, ask_stream(engine, seed, plan)) for seed in seeds)
    return map_in_processes(partial(_ask_here, plan=plan), seeds, jobs, _load, checkpoint)


_engines: list[DelayedBatchInferenceEngine] = []  # of this worker's process: one


def _load(model: str, device: str) -> None:
    torch.set_num_threads(1)  # the others have their own work
    _engines.append(DelayedBatchInferenceEngine.from_pretrained(model, device=device))


def _ask_here(seed: int, plan: AnswerPlan) -> dict[str, StreamAnswers]:
    return ask_stream(_engines[0], seed, plan)


def answers_json(runs: Mapping[int, Mapping[str, StreamAnswers]], seed: int = 0) -> dict[str, Any]:
    """All figures, by memory.

    Args:
        runs: For each stream, the answers of each memory.
        seed: Of the resampling.
    """
    streams = [runs[one] for one in sorted(runs)]
    random = np.random.default_rng(seed)
    weights = random.multinomial(len(streams), np.full(len(streams), 1.0 / len(streams)), _RESAMPLES)
    return {
        "seeds": [min(runs), max(runs) + 1],
        "most_frequent": _most_frequent(streams),
        "strategies": {name: _memory_json(name, streams, weights) for name in streams[0]},
    }


def _memory_json(name: str, streams: Sequence[Mapping[str, StreamAnswers]], weights: NDArray[np.int64]) -> Any:
    mine = [stream[name] for stream in streams]
    groups = {}
    for group in KINDS_OF:
        asked, right, told = _counts(mine, group)
        if not asked.sum():
            continue
        groups[group] = {
            "asked": int(asked.sum()),
            "accuracy": _resampled(right, asked, weights),
            "told": round(float(told.sum() / asked.sum()), 4),
        }
        if NEWEST in streams[0] and name != NEWEST:
            theirs = _counts([stream[NEWEST] for stream in streams], group)[1]
            groups[group]["over_newest"] = _resampled(right - theirs, asked, weights)
    by_kind: dict[str, list[JudgedAnswer]] = {}
    for judged in (one for stream in mine for one in stream.judged):
        by_kind.setdefault(judged.kind, []).append(judged)
    return {
        "pairs": round(float(np.mean([one.pairs for one in mine])), 2),
        "visual_tokens": round(float(np.mean([one.visual_tokens for one in mine])), 1),
        "groups": groups,
        "kinds": {
            kind: {
                "asked": len(judged),
                "accuracy": round(sum(one.is_right for one in judged) / len(judged), 4),
                "told": round(sum(one.is_told for one in judged) / len(judged), 4),
            }
            for kind, judged in by_kind.items()
        },
    }


def _counts(answers: Sequence[StreamAnswers], group: str) -> NDArray[np.int64]:
    """For each stream, questions asked, answered right and told by the pairs: ``(3, streams)``."""
    of_group = [[one for one in stream.judged if one.group == group] for stream in answers]
    rows = [(len(some), sum(one.is_right for one in some), sum(one.is_told for one in some)) for some in of_group]
    return np.array(rows, np.int64).T


def _resampled(values: NDArray[np.int64], asked: NDArray[np.int64], weights: NDArray[np.int64]) -> dict[str, float]:
    """A share with its 95 % bootstrap interval over streams: questions about one stream are no independent ones."""
    shares = weights @ values / np.maximum(1, weights @ asked)
    low, high = np.quantile(shares, [0.025, 0.975])
    return {
        "mean": round(float(values.sum() / asked.sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _most_frequent(streams: Sequence[Mapping[str, StreamAnswers]]) -> dict[str, float]:
    """By kind, what always giving the most frequent right answer would get."""
    answers: dict[str, Counter[str]] = {}
    for one in streams:
        for judged in next(iter(one.values())).judged:
            answers.setdefault(judged.kind, Counter())[judged.answer] += 1
    return {kind: round(max(counts.values()) / counts.total(), 4) for kind, counts in answers.items()}
