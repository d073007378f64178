"""Accuracy of the embedded model's answers about minutes of a stream, by the pairs that a memory kept of it.

Every memory shows the model as many pairs as this project's memory keeps, so the number of visual tokens is equal.
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
from lab.bench.asked_scenes import bootstrap_weights
from lab.bench.room_streams import KINDS_OF, LIVELY, RoomStream, draw_stream
from lab.bench.strategies import MEMORY, Newest, Reservoir, SeenFrame, Strategy, Uniform

NEWEST = "newest"
STREAM_ONLY = "Stream alone"

_OTHERS: dict[str, Callable[[int], Strategy]] = {NEWEST: Newest, "uniform": Uniform, "reservoir": Reservoir}
_LONGEST_ANSWER = 32
_NO_FEATURES = np.zeros(0, np.float32)


@dataclass(frozen=True)
class AnswerPlan:
    """Streams, memory sizes and questions of the benchmark.

    Attributes:
        room: One of ``room_streams.ROOMS``.
        minutes: Length of a stream in minutes.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        importance_threshold: Importance from which a frame is a key frame.
        per_kind: Largest number of questions of each kind about a stream.
    """

    room: str = LIVELY
    minutes: float = 3.0
    star_memory_size: int = MemoryConfig.star_memory_size
    stream_window_size: int = MemoryConfig.stream_window_size
    importance_threshold: float = 0.6
    per_kind: int = 2

    def memory(self) -> SmartFrameManager:
        """Return an empty memory, built as the node builds it.

        Raises:
            ConfigurationError: The sizes are not valid.
        """
        return MemoryConfig(self.star_memory_size, self.stream_window_size, self.importance_threshold).build()


@dataclass(frozen=True)
class GradedAnswer:
    """A question and the grade of its answer.

    Attributes:
        group: Group of the question, a key of ``KINDS_OF``.
        kind: Kind of the question, as ``scenes.questions`` names it.
        expected: The correct answer.
        is_correct: Whether the model's answer equals the correct one exactly.
        is_answerable: Whether the kept pairs show the answer to an observer who misreads none of them.
    """

    group: str
    kind: str
    expected: str
    is_correct: bool
    is_answerable: bool


@dataclass(frozen=True)
class StreamAnswers:
    """Answers from one memory about one stream.

    Attributes:
        pairs: Pairs that the memory kept.
        visual_tokens: Visual tokens that the model received.
        answers: The graded answers; every memory gets the same questions.
    """

    pairs: int
    visual_tokens: int
    answers: tuple[GradedAnswer, ...]


def ask_stream(engine: DelayedBatchInferenceEngine, seed: int, plan: AnswerPlan) -> dict[str, StreamAnswers]:
    """Show a stream to every memory and ask the questions of each.

    Args:
        engine: Engine with the model that answers.
        seed: Seed of the stream.
        plan: Plan of the benchmark.

    Returns:
        The answers by name of the memory.
    """
    frames = plan.star_memory_size + plan.stream_window_size
    stream = draw_stream(seed, plan.room, plan.minutes, frames // FRAMES_PER_PAIR, plan.per_kind)
    memory = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=plan.memory())
    for image, stamp in zip(stream.images, stream.stamps, strict=True):
        memory.add_frame(image, stamp)
    kept = memory.snapshot()
    chosen = {name: _chosen_by(make(len(kept)), stream) for name, make in _OTHERS.items()}
    chosen[STREAM_ONLY] = _pair_numbers(one for one in kept if one.in_stream)
    answers = {MEMORY: _answers(memory, stream, _pair_numbers(kept))}
    for name, pairs in chosen.items():
        answers[name] = _answers(_engine_with(engine, stream, pairs), stream, pairs)
    return answers


def _pair_numbers(kept: Iterable[KeptPair]) -> list[int]:
    return [one.pair.first.number // FRAMES_PER_PAIR for one in kept]  # frames are numbered from 1


def _chosen_by(strategy: Strategy, stream: RoomStream) -> list[int]:
    for number, image in enumerate(stream.images):
        strategy.add(SeenFrame(number, image, _NO_FEATURES))
    return strategy.kept()


def _engine_with(
    engine: DelayedBatchInferenceEngine, stream: RoomStream, pairs: Sequence[int]
) -> DelayedBatchInferenceEngine:
    holding = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=keep_everything())
    for pair in pairs:
        for number in range(FRAMES_PER_PAIR * pair, FRAMES_PER_PAIR * (pair + 1)):
            holding.add_frame(stream.images[number], stream.stamps[number])
    return holding


def _answers(engine: DelayedBatchInferenceEngine, stream: RoomStream, pairs: Sequence[int]) -> StreamAnswers:
    answers, tokens = [], 0
    for group, questions in stream.questions.items():
        for one in questions:
            result = engine.answer(AskRequest(one.question.text, max_new_tokens=_LONGEST_ANSWER))
            tokens = result.metrics.visual_tokens
            expected = one.question.answer
            answerable = stream.is_answerable_from(pairs, one)
            answers.append(GradedAnswer(group, one.question.kind, expected, result.answer == expected, answerable))
    return StreamAnswers(len(pairs), tokens, tuple(answers))


def ask_all(
    engine: DelayedBatchInferenceEngine, checkpoint: tuple[str, str], seeds: Sequence[int], plan: AnswerPlan, jobs: int
) -> Iterator[tuple[int, dict[str, StreamAnswers]]]:
    """Ask about the streams of all seeds; yield the answers to each stream as soon as they are ready.

    Args:
        engine: Engine that answers if there is one process.
        checkpoint: Name and device of the model that each of several processes loads.
        seeds: Seeds of the streams.
        plan: Plan of the benchmark.
        jobs: Number of processes.
    """
    if jobs == 1:
        return ((seed, ask_stream(engine, seed, plan)) for seed in seeds)
    return map_in_processes(partial(_ask_in_worker, plan=plan), seeds, jobs, _load_in_worker, checkpoint)


_worker_engines: list[DelayedBatchInferenceEngine] = []  # one in each worker process


def _load_in_worker(model: str, device: str) -> None:
    torch.set_num_threads(1)  # each worker uses one core
    _worker_engines.append(DelayedBatchInferenceEngine.from_pretrained(model, device=device))


def _ask_in_worker(seed: int, plan: AnswerPlan) -> dict[str, StreamAnswers]:
    return ask_stream(_worker_engines[0], seed, plan)


def answers_json(runs: Mapping[int, Mapping[str, StreamAnswers]], seed: int = 0) -> dict[str, Any]:
    """Return all figures by memory.

    Args:
        runs: For each stream, the answers from each memory.
        seed: Seed of the bootstrap.
    """
    streams = [runs[one] for one in sorted(runs)]
    weights = bootstrap_weights(len(streams), seed)
    return {
        "seeds": [min(runs), max(runs) + 1],
        "most_frequent": _most_frequent(streams),
        "strategies": {name: _memory_json(name, streams, weights) for name in streams[0]},
    }


def _memory_json(name: str, streams: Sequence[Mapping[str, StreamAnswers]], weights: NDArray[np.int64]) -> Any:
    mine = [stream[name] for stream in streams]
    groups = {}
    for group in KINDS_OF:
        questions, correct, answerable = _counts(mine, group)
        if not questions.sum():
            continue
        groups[group] = {
            "questions": int(questions.sum()),
            "accuracy": _resampled(correct, questions, weights),
            "answerable": round(float(answerable.sum() / questions.sum()), 4),
        }
        others = {
            other: _counts([stream[other] for stream in streams], group)[1] for other in streams[0] if other != name
        }
        groups[group]["over"] = {
            other: _resampled(correct - theirs, questions, weights) for other, theirs in others.items()
        }
    by_kind: dict[str, list[GradedAnswer]] = {}
    for answer in (one for stream in mine for one in stream.answers):
        by_kind.setdefault(answer.kind, []).append(answer)
    return {
        "pairs": round(float(np.mean([one.pairs for one in mine])), 2),
        "visual_tokens": round(float(np.mean([one.visual_tokens for one in mine])), 1),
        "groups": groups,
        "kinds": {
            kind: {
                "questions": len(answers),
                "accuracy": round(sum(one.is_correct for one in answers) / len(answers), 4),
                "answerable": round(sum(one.is_answerable for one in answers) / len(answers), 4),
            }
            for kind, answers in by_kind.items()
        },
    }


def _counts(streams: Sequence[StreamAnswers], group: str) -> NDArray[np.int64]:
    """Return questions, correct answers and answerable questions of each stream, ``(3, streams)``."""
    of_group = [[one for one in stream.answers if one.group == group] for stream in streams]
    rows = [
        (len(some), sum(one.is_correct for one in some), sum(one.is_answerable for one in some)) for some in of_group
    ]
    counts: NDArray[np.int64] = np.array(rows, np.int64).T
    return counts


def _resampled(values: NDArray[np.int64], questions: NDArray[np.int64], weights: NDArray[np.int64]) -> dict[str, float]:
    """Return a share with its 95 % bootstrap interval over streams; questions about one stream are not independent."""
    shares = weights @ values / np.maximum(1, weights @ questions)
    low, high = np.quantile(shares, [0.025, 0.975])
    return {
        "mean": round(float(values.sum() / questions.sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _most_frequent(streams: Sequence[Mapping[str, StreamAnswers]]) -> dict[str, float]:
    """Return by kind the accuracy of always giving the most frequent correct answer."""
    counts: dict[str, Counter[str]] = {}
    for one in streams:
        for answer in next(iter(one.values())).answers:
            counts.setdefault(answer.kind, Counter())[answer.expected] += 1
    return {kind: round(max(found.values()) / found.total(), 4) for kind, found in counts.items()}
