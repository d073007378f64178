"""Whether the engine computes on a device what it should: a warm question as a cold one, and as native inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from delayed_vlm_ros.benchmark.ask_cost import QUESTION, BenchmarkSetup, add_pairs, filled_engine
from delayed_vlm_ros.inference.local.models.device import dtype_name
from delayed_vlm_ros.replay.native import native_generate

NATIVE_BOUNDS = {"bfloat16": 0.05, "float16": 0.01, "float32": 1e-4}
"""Largest ‖engine − native‖ ÷ ‖native‖ of the first logits, by dtype: rounding in some 70 sums one after another."""

_EARLIER_QUESTION = "Who came in?"


def check_exactness(setup: BenchmarkSetup, seed: int, tokens: int) -> dict[str, Any]:
    """Compare logits of a warm engine with those of a cold one, and with native inference.

    Args:
        setup: Model and memory.
        seed: Seed of the images.
        tokens: Length of the answers whose logits are compared.

    Returns:
        For ``second`` (a second question) and ``after_1_pair``: ``warm_equals_cold`` (bitwise, every step), and
        ``native_error`` (see ``NATIVE_BOUNDS``); the ``native_bound``, and ``is_exact``: whether all hold.
    """
    random = np.random.default_rng(seed)
    engine = filled_engine(setup, random)
    engine.ask(_EARLIER_QUESTION, max_new_tokens=tokens)
    found: dict[str, Any] = {"second": _compare(engine, tokens)}
    add_pairs(engine, setup, random, 1)  # the cold question of the comparison has left the KV of the older pairs
    found["after_1_pair"] = _compare(engine, tokens)
    bound = NATIVE_BOUNDS[dtype_name(setup.model.dtype)]
    exact = all(case["warm_equals_cold"] and case["native_error"] <= bound for case in found.values())
    return {**found, "native_bound": bound, "is_exact": exact}


def _compare(engine: Any, tokens: int) -> dict[str, Any]:
    def ask() -> None:
        engine.ask(QUESTION, max_new_tokens=tokens)

    def native() -> None:
        native_generate(engine.model, engine.processor, engine.snapshot(), QUESTION, max_new_tokens=1)

    warm = _logits(engine.model, ask)
    engine.reset_cache()
    cold = _logits(engine.model, ask)
    reference = _logits(engine.model, native)[0].float()
    is_equal = len(warm) == len(cold) == tokens and all(map(torch.equal, warm, cold))
    error = float((warm[0].float() - reference).norm() / reference.norm())
    return {"warm_equals_cold": is_equal, "native_error": float(f"{error:.3g}")}


def _logits(model: Any, work: Callable[[], None]) -> list[torch.Tensor]:
    """Return the logits of the last position of each step."""
    with _recorded_logits(model) as steps:
        work()
    return steps


@contextmanager
def _recorded_logits(model: Any) -> Iterator[list[torch.Tensor]]:
    steps: list[torch.Tensor] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _layer, _inputs, output: steps.append(output[0, -1].clone())
    )
    try:
        yield steps
    finally:
        hook.remove()
