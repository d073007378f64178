"""What checks of watches cost: relative to decoded answers, to native inference, and on a moving scene."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.yes_no import AnswerForms
from delayed_vlm_ros.replay.native import native_generate

WATCHES = 20
"""Watches of one group."""

_FRAME_SEC = 0.5
_CHECK_FRAMES = 2  # frames between two checks of a moving scene: 1 Hz
_CHECK_REPEATS = 5
_MOVING_CHECKS = 16
_RANDOM_FORMS = AnswerForms(yes=(40, 41), no=(60, 61))  # tokenizers of random models have no words
_COLOURS = ("red", "green", "blue", "yellow", "purple", "white", "black")
_SHAPES = ("box", "ball", "cone")


@dataclass(frozen=True)
class WatchCostPlan:
    """What is measured.

    Attributes:
        setup: Model, and pairs in memory.
        window_sec: Length of the window of watches on a moving scene, in seconds.
        answer_tokens: Lengths of the decoded answers to compare with, in tokens; an answer may end earlier.
        has_random_weights: Whether the model has random weights.
    """

    setup: BenchmarkSetup
    window_sec: float
    answer_tokens: tuple[int, ...]
    has_random_weights: bool


def questions() -> list[str]:
    """Return as many different questions as there are watches."""
    return [f"is there a {colour} {shape}?" for shape in _SHAPES for colour in _COLOURS][:WATCHES]


def question_tokens(setup: BenchmarkSetup) -> int:
    """Return the tokens after the prefix of the longest question."""
    return max(len(build_prompt(setup.processor, question).after) for question in questions())


def measure_round(plan: WatchCostPlan, random: np.random.Generator) -> dict[str, float]:
    """Time each kind of check once.

    Returns:
        Times in seconds: ``native`` (first token, unmodified Hugging Face), ``one_watch`` and ``watches`` (all of them;
        prefix ready, median of several checks), ``answers_N`` (as many warm questions with answers of N tokens), and
        for a moving scene ``moving_native``, ``moving_first``, ``moving_steady`` (median while the start of the window
        rests), ``moving_step`` (median where it moves) and ``moving_mean`` (all but the first).
    """
    setup = plan.setup
    engine = _filled(plan, random)
    asked = questions()
    native = _seconds(
        setup,
        lambda: native_generate(engine.model, engine.processor, engine.snapshot(), asked[0], max_new_tokens=1),
    )
    engine.ask(asked[0], max_new_tokens=1)  # the prefix is ready now
    times = {
        "native": native,
        "one_watch": _check_seconds(setup, engine, asked[:1]),
        "watches": _check_seconds(setup, engine, asked),
    }
    for tokens in plan.answer_tokens:
        times[f"answers_{tokens}"] = _seconds(setup, lambda: _ask_all(engine, asked, tokens))  # noqa: B023
    return times | _moving(plan, random)


def _moving(plan: WatchCostPlan, random: np.random.Generator) -> dict[str, float]:
    """Time checks while frames arrive, from the first one on."""
    setup = plan.setup
    engine = _filled(plan, random)
    asked = questions()
    began = _now(setup)
    result = engine.score(asked, window_sec=plan.window_sec)
    first = _now(setup) - began
    steady: list[float] = []
    steps: list[float] = []
    for check in range(_MOVING_CHECKS):
        _add(engine, setup, random, 2 * setup.pairs + check * _CHECK_FRAMES, _CHECK_FRAMES)
        start = result.frames_used[0].stamps[0]
        began = _now(setup)
        result = engine.score(asked, window_sec=plan.window_sec)
        seconds = _now(setup) - began
        (steady if result.frames_used[0].stamps[0] == start else steps).append(seconds)
    kept = result.frames_used
    native = _seconds(setup, lambda: native_generate(engine.model, engine.processor, kept, asked[0], max_new_tokens=1))
    return {
        "moving_native": native,
        "moving_first": first,
        "moving_steady": float(np.median(steady)),
        "moving_step": float(np.median(steps)),
        "moving_mean": float(np.mean(steady + steps)),
    }


def _filled(plan: WatchCostPlan, random: np.random.Generator) -> DelayedBatchInferenceEngine:
    # The memory has spare capacity, so that a new pair evicts none.
    engine = plan.setup.engine(star_memory_size=0, stream_window_size=4 * plan.setup.pairs + 2 * _MOVING_CHECKS)
    if plan.has_random_weights:
        engine._answer_forms = _RANDOM_FORMS  # noqa: SLF001  the engine finds none in a tokenizer without words
    _add(engine, plan.setup, random, 0, 2 * plan.setup.pairs)
    return engine


def _add(
    engine: DelayedBatchInferenceEngine, setup: BenchmarkSetup, random: np.random.Generator, first: int, frames: int
) -> None:
    for number in range(first, first + frames):
        engine.add_frame(random.integers(0, 256, (*setup.image, 3), dtype=np.uint8), number * _FRAME_SEC)


def _ask_all(engine: DelayedBatchInferenceEngine, asked: Sequence[str], tokens: int) -> None:
    for question in asked:
        engine.ask(question, max_new_tokens=tokens)


def _check_seconds(setup: BenchmarkSetup, engine: DelayedBatchInferenceEngine, asked: Sequence[str]) -> float:
    return float(np.median([_seconds(setup, lambda: engine.score(asked)) for _ in range(_CHECK_REPEATS)]))


def _seconds(setup: BenchmarkSetup, work: Callable[[], Any]) -> float:
    began = _now(setup)
    work()
    return _now(setup) - began


def _now(setup: BenchmarkSetup) -> float:
    """Return processor time on a CPU, which other programs do not change, and the time on a device."""
    if setup.model.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(setup.model.device)
    return time.perf_counter()


def measure(plan: WatchCostPlan, runs: int, seed: int) -> Iterator[dict[str, float]]:
    """Yield ``runs`` rounds of times after one warm-up round."""
    random = np.random.default_rng(seed)
    measure_round(plan, random)
    for _ in range(runs):
        yield measure_round(plan, random)


def cost_json(rounds: Sequence[Mapping[str, float]], answer_tokens: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return the medians over the rounds: of the ratios within a round, and of the times in seconds."""
    ratios = {
        f"watches_over_answers_{tokens}": [one["watches"] / one[f"answers_{tokens}"] for one in rounds]
        for tokens in answer_tokens
    }
    ratios["one_more_over_native"] = [
        (one["watches"] - one["one_watch"]) / (WATCHES - 1) / one["native"] for one in rounds
    ]
    for name in ("first", "steady", "step", "mean"):
        ratios[f"moving_{name}_over_native"] = [one[f"moving_{name}"] / one["moving_native"] for one in rounds]
    return {
        "ratios": {name: round(float(np.median(values)), 4) for name, values in ratios.items()},
        "median_sec": {name: round(float(np.median([one[name] for one in rounds])), 4) for name in rounds[0]},
    }
