"""``delayed-vlm bench trace``: calibrate, live through streams in virtual time, then for a while in real time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup, measure_growth, measure_parts
from delayed_vlm_ros.inference.local.cache.prefill import chunk_pairs
from delayed_vlm_ros.inference.local.prompt import build_prompt
from lab.bench.trace import MODES, Costs, Habit, costs_from, live_through
from lab.bench.trace_real_time import live_in_real_time

_GROWTH_CHUNKS = (1, 5, 20)  # four pairs each with 64 tokens a pair
_REAL_TIME_EVERY_SEC = 10.0
_MOST_ASKS, _FEWEST_ASKS = 120, 2

Tell = Callable[[str], None]


@dataclass(frozen=True)
class TracePlan:
    """What to trace.

    Attributes:
        devices: Seconds that native inference on 20 pairs takes the devices to imagine.
        intervals: Seconds from ask to ask.
        chunks: Frames that leave the memory at once.
        traced_sec: How long to live in virtual time, about.
        turns: Turns of calibration.
        real_time_sec: How long to live in real time, in each mode; 0: not.
        seed: Of the images.
    """

    devices: tuple[float, ...]
    intervals: tuple[float, ...]
    chunks: tuple[int, ...]
    traced_sec: float
    turns: int
    real_time_sec: float
    seed: int


def measure_trace(measured: BenchmarkSetup, traced: BenchmarkSetup, plan: TracePlan, tell: Tell) -> dict[str, Any]:
    """Calibrate on one model, trace with another.

    Args:
        measured: A model large enough for its times to mean something.
        traced: A small one with images of the same size.
        plan: What to trace.
        tell: Is told what comes next.
    """
    random = np.random.default_rng(plan.seed)
    tell("calibration")
    costs = _calibrate(measured, plan.turns, random)
    traces: dict[str, list[dict[str, Any]]] = {}
    text_tokens = _text_tokens(measured)
    for device, chunk, mode, every in product(plan.devices, plan.chunks, MODES, plan.intervals):
        tell(f"a device of {device:g} s, chunk {chunk}, {mode}, an ask every {every:g} s")
        habit = Habit(mode, chunk, every, round(min(_MOST_ASKS, max(_FEWEST_ASKS, plan.traced_sec / every))))
        scaled = costs.scaled_to(device, measured.pairs, sum(text_tokens))
        traces.setdefault(f"{device:g}", []).append(live_through(traced, habit, scaled, plan.seed).summary())
    tell("growth")
    whole_chunk = chunk_pairs(measured.tokens_per_pair)
    growth = [measure_growth(measured, chunks * whole_chunk, random) for chunks in _GROWTH_CHUNKS]
    lived = []
    asks = int(plan.real_time_sec / _REAL_TIME_EVERY_SEC)
    for mode in MODES if asks else ():
        tell(f"real time, {mode}")
        lived.append(live_in_real_time(measured, Habit(mode, plan.chunks[-1], _REAL_TIME_EVERY_SEC, asks), plan.seed))
    return {
        "costs": {name: round(value, 7) for name, value in asdict(costs).items()},
        "devices": traces,
        "growth": [asdict(one) for one in growth],
        "real_time": lived,
    }


def _calibrate(setting: BenchmarkSetup, turns: int, random: np.random.Generator) -> Costs:
    """The median costs of some turns; the first, a warm-up, does not count."""
    measure_parts(setting, random)
    before, after = _text_tokens(setting)
    pairs, tokens = setting.pairs, setting.tokens_per_pair
    runs = -(-pairs // chunk_pairs(tokens))
    found = [
        costs_from(measure_parts(setting, random), pairs, runs, before, pairs * tokens, after) for _ in range(turns)
    ]
    return Costs(*(float(np.median([asdict(one)[name] for one in found])) for name in asdict(found[0])))


def _text_tokens(setting: BenchmarkSetup) -> tuple[int, int]:
    prompt = build_prompt(setting.processor, QUESTION)
    return len(prompt.before), len(prompt.after)
