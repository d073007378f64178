"""Exactness and cost of questions with random weights of published sizes, in parts, within a time limit."""

from __future__ import annotations

import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from delayed_vlm_ros.benchmark.ask_cost import (
    NATIVE_SETUPS,
    BenchmarkSetup,
    faster_setup,
    measure_round,
    median_interval,
    ratios,
)
from delayed_vlm_ros.benchmark.random_model import ModelShape, make_random_model
from delayed_vlm_ros.inference.local.models.device import choose_dtype
from lab.bench.exactness import check_exactness
from lab.bench.part_store import PartStore

PARTS = ("exactness", "times")
"""Parts of each shape, the most important one first."""

_TIMES = ("first_ask", "second_ask", "after_1_pair", "precomputed", *(f"native_{name}" for name in NATIVE_SETUPS))


@dataclass(frozen=True)
class GpuPlan:
    """What is measured.

    Attributes:
        pairs: Pairs in memory.
        tokens_per_pair: Merged tokens per pair; a square number.
        answer_tokens: Length of the answers.
        rounds: Rounds of times, less if the time does not suffice.
        seed: Seed of weights and images.
    """

    pairs: int = 20
    tokens_per_pair: int = 256
    answer_tokens: int = 32
    rounds: int = 7
    seed: int = 3


def describe_machine(device: str) -> dict[str, Any]:
    """Return what the results depend on: device, its memory and multiprocessors (of a MIG slice: its own), versions."""
    found: dict[str, Any] = {"device": device, "dtype": choose_dtype("auto", device)}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return {
        **found,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def measure_gpu(
    shapes: Mapping[str, ModelShape],
    plan: GpuPlan,
    device: str,
    folder: Path,
    minutes: float,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the missing parts of all shapes.

    Args:
        shapes: Sizes by name, the most important one first.
        plan: What is measured.
        device: Result of ``choose_device``.
        folder: Folder of the results of parts.
        minutes: Time limit; no part starts later.
        report: Receives a line of progress.

    Returns:
        ``machine``, ``plan``, ``shapes`` (results by shape and part), ``failed`` (error by part), ``left_out`` (parts
        without time), ``is_exact``: whether all measured parts are exact; None: none was measured.
    """
    # A comparison in float32 must not compute in TF32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    end = time.monotonic() + 60.0 * minutes
    machine = describe_machine(device)
    store = PartStore(folder, {"machine": machine, "plan": asdict(plan)})
    load = [round(one, 1) for one in os.getloadavg()]
    in_use = _memory_in_use(device)
    results: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    left_out: list[str] = []
    for number, (name, shape) in enumerate(shapes.items()):
        found = {part: store.read(f"{name}/{part}") for part in PARTS}
        missing = [part for part in PARTS if found[part] is None]
        now = time.monotonic()
        share = now + (end - now) / (len(shapes) - number)  # later shapes keep their part of the time
        for part, outcome in _measure_shape(shape, missing, plan, device, end, share):
            full_name = f"{name}/{part}"
            if outcome is None:
                left_out.append(full_name)
                report(f"{full_name}: left out, no time is left")
            elif isinstance(outcome, str):
                failed[full_name] = outcome
                report(f"{full_name}: {outcome}")
            else:
                report(f"{full_name}: measured")
                found[part] = outcome
                store.write(full_name, outcome)
        results[name] = {part: result for part, result in found.items() if result is not None}
    exact = [parts["exactness"]["is_exact"] for parts in results.values() if "exactness" in parts]
    return {
        "machine": {**machine, "load": load, "memory_in_use_bytes": in_use},
        "plan": asdict(plan),
        "shapes": results,
        "failed": failed,
        "left_out": left_out,
        "is_exact": all(exact) if exact else None,
    }


def _memory_in_use(device: str) -> int | None:
    """Return the bytes of device memory that are in use before the benchmark, by other processes and the driver."""
    if not device.startswith("cuda"):
        return None
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _measure_shape(
    shape: ModelShape, parts: Sequence[str], plan: GpuPlan, device: str, end: float, share: float
) -> Iterator[tuple[str, dict[str, Any] | str | None]]:
    """Yield each part with its result, its error, or None if the time is over."""
    setup: BenchmarkSetup | None = None
    for part in parts:
        if time.monotonic() >= end:
            yield part, None
            continue
        outcome: dict[str, Any] | str
        try:
            setup = setup or _random_setup(shape, plan, device)
            if part == "exactness":
                outcome = check_exactness(setup, plan.seed, plan.answer_tokens)
            else:
                outcome = measure_times(setup, plan, share)
            outcome["parameters"] = setup.model.num_parameters()
        except Exception as error:  # noqa: BLE001  a part that fails costs no other one, and is reported
            outcome = f"{type(error).__name__}: {error}"
        # The error above is gone with its frames, which may hold the tensors of a device that is full.
        _release_memory()
        yield part, outcome
    setup = None
    _release_memory()


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _random_setup(shape: ModelShape, plan: GpuPlan, device: str) -> BenchmarkSetup:
    side = shape.factor * math.isqrt(plan.tokens_per_pair)
    dtype = getattr(torch, choose_dtype("auto", device))
    with tempfile.TemporaryDirectory() as folder:
        model, processor = make_random_model(shape, Path(folder), side**2, plan.seed, dtype, device)
    return BenchmarkSetup(model, processor, (side, side), plan.pairs, canonical=True)


def measure_times(setup: BenchmarkSetup, plan: GpuPlan, end: float) -> dict[str, Any]:
    """Time first tokens and whole answers, one after another in each round, after a warm-up round.

    Args:
        setup: Model and memory.
        plan: Rounds and length of the answers.
        end: Time of ``time.monotonic`` after which no round starts, except the first.

    Returns:
        ``rounds``, ``native`` (the faster native set-up), the ratios of ``bench ask``, and medians with intervals:
        ``first_token_sec``, ``total_sec`` and ``decode_tokens_per_sec``, by kind of question.
    """
    random = np.random.default_rng(plan.seed)
    firsts: list[dict[str, float]] = []
    totals: list[dict[str, float]] = []
    for tokens in (1, plan.answer_tokens):  # memory is allocated and kernels are loaded
        measure_round(setup, random, tokens)
    while len(firsts) < plan.rounds and (not firsts or time.monotonic() < end):
        firsts.append(measure_round(setup, random))
        totals.append(measure_round(setup, random, plan.answer_tokens))
    bootstrap = np.random.default_rng(0)
    faster = faster_setup(firsts)
    decoded = plan.answer_tokens - 1
    rates = {
        name: [decoded / (total[key] - first[key]) for first, total in zip(firsts, totals, strict=True)]
        for name, key in (("engine", "second_ask"), ("native", f"native_{faster}"))
    }
    return {
        "rounds": len(firsts),
        "native": faster,
        **ratios(firsts),
        "first_token_sec": {name: median_interval([one[name] for one in firsts], bootstrap) for name in _TIMES},
        "total_sec": {name: median_interval([one[name] for one in totals], bootstrap) for name in _TIMES},
        "decode_tokens_per_sec": {name: median_interval(values, bootstrap) for name, values in rates.items()},
    }
