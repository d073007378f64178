"""Steps of ``bench trace``: calibrate, simulate streams in virtual time, then run some in real time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup, measure_growth, measure_parts
from delayed_vlm_ros.inference.local.budget import chunk_pairs
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.memory import MemoryConfig
from lab.bench.trace import MODES, Costs, Scenario, costs_from, simulate
from lab.bench.trace_real_time import run_in_real_time

_GROWTH_CHUNKS = (1, 5, 20)  # a chunk is four pairs with 64 tokens per pair
_REAL_TIME_EVERY_SEC = 10.0
_MOST_QUESTIONS, _FEWEST_QUESTIONS = 120, 2

OnProgress = Callable[[str], None]


@dataclass(frozen=True)
class TracePlan:
    """Devices and scenarios of the benchmark.

    Attributes:
        devices: Seconds that native inference on 20 pairs takes on each simulated device.
        intervals: Seconds from question to question.
        chunks: Frames that leave the memory together.
        traced_sec: Approximate length of each simulation in seconds of virtual time.
        turns: Turns of the calibration.
        real_time_sec: Length of the real-time run of each mode in seconds; 0 disables it.
        seed: Seed of the images.
        modes: What is encoded ahead.
        duties: Largest shares of the device's time for encoding ahead; without effect on the mode ``off``.
        star: Capacity of Star memory, in frames.
        stream: Length of the Stream window, in frames.
    """

    devices: tuple[float, ...]
    intervals: tuple[float, ...]
    chunks: tuple[int, ...]
    traced_sec: float
    turns: int
    real_time_sec: float
    seed: int
    modes: tuple[str, ...] = MODES
    duties: tuple[float, ...] = (1.0,)
    star: int = MemoryConfig.star_memory_size
    stream: int = MemoryConfig.stream_window_size


def measure_trace(
    measured: BenchmarkSetup, traced: BenchmarkSetup, plan: TracePlan, on_progress: OnProgress
) -> dict[str, Any]:
    """Calibrate on one model and simulate with another.

    Args:
        measured: Model that is large enough for meaningful times.
        traced: Small model with images of the same size.
        plan: Devices and scenarios.
        on_progress: Called with the name of each step before it begins.

    Returns:
        The result that ``bench trace --json`` prints, without its shape.
    """
    random = np.random.default_rng(plan.seed)
    on_progress("calibration")
    costs = _calibrate(measured, plan.turns, random)
    devices = simulate_devices(measured, traced, plan, costs, on_progress)
    on_progress("growth")
    whole_chunk = chunk_pairs(measured.tokens_per_pair)
    growth = [measure_growth(measured, chunks * whole_chunk, random) for chunks in _GROWTH_CHUNKS]
    return {
        "costs": {name: round(value, 7) for name, value in asdict(costs).items()},
        "devices": devices,
        "growth": [asdict(one) for one in growth],
        "real_time": _run_in_real_time(measured, plan, on_progress),
    }


def simulate_devices(
    measured: BenchmarkSetup, traced: BenchmarkSetup, plan: TracePlan, costs: Costs, on_progress: OnProgress
) -> dict[str, list[dict[str, Any]]]:
    """Return the traces of every scenario by the device's seconds for 20 pairs; virtual time alone.

    Args:
        measured: Model with which the costs were measured.
        traced: Small model with images of the same size.
        plan: Devices and scenarios.
        costs: Costs of the measured model.
        on_progress: Called with the name of each scenario before it begins.
    """
    text_tokens = sum(_text_tokens(measured))
    traces: dict[str, list[dict[str, Any]]] = {}
    scenarios = product(plan.devices, plan.chunks, plan.modes, plan.duties, plan.intervals)
    for device, chunk, mode, duty, every in scenarios:
        on_progress(f"device {device:g} s, chunk {chunk}, {mode}, duty {duty:g}, a question every {every:g} s")
        questions = round(min(_MOST_QUESTIONS, max(_FEWEST_QUESTIONS, plan.traced_sec / every)))
        scaled = costs.scaled_to(device, measured.pairs, text_tokens)
        scenario = Scenario(mode, chunk, every, questions, max_duty=duty, star=plan.star, stream=plan.stream)
        trace = simulate(traced, scenario, scaled, plan.seed)
        traces.setdefault(f"{device:g}", []).append(trace.summary())
    return traces


def _run_in_real_time(measured: BenchmarkSetup, plan: TracePlan, on_progress: OnProgress) -> list[dict[str, Any]]:
    runs = []
    questions = int(plan.real_time_sec / _REAL_TIME_EVERY_SEC)
    for mode in MODES if questions else ():
        on_progress(f"real time, {mode}")
        scenario = Scenario(mode, plan.chunks[-1], _REAL_TIME_EVERY_SEC, questions, star=plan.star, stream=plan.stream)
        runs.append(run_in_real_time(measured, scenario, plan.seed))
    return runs


def _calibrate(setup: BenchmarkSetup, turns: int, random: np.random.Generator) -> Costs:
    """Return the median costs over some turns, after one turn of warm-up."""
    measure_parts(setup, random)
    before, after = _text_tokens(setup)
    pairs, tokens = setup.pairs, setup.tokens_per_pair
    runs = -(-pairs // chunk_pairs(tokens))
    found = [costs_from(measure_parts(setup, random), pairs, runs, before, pairs * tokens, after) for _ in range(turns)]
    return Costs(*(float(np.median([asdict(one)[name] for one in found])) for name in asdict(found[0])))


def _text_tokens(setup: BenchmarkSetup) -> tuple[int, int]:
    prompt = build_prompt(setup.processor, QUESTION)
    return len(prompt.before), len(prompt.after)
