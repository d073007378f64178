"""Streams simulated in virtual time: costs of questions, and waiting for work that is done ahead."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup
from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model
from lab.bench import trace_report
from lab.bench.trace import Costs, Scenario, costs_from, simulate, stream
from lab.bench.trace_real_time import run_in_real_time
from lab.bench.trace_report import TracePlan, measure_trace, simulate_devices

SIDE = 56
HALF = Costs(pair=0.01, run=0.004, token=0.003, native_pair=0.0225)  # about 0.5 s for 20 pairs
SCENARIO = Scenario("off", 0, question_every_sec=5.0, questions=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    model, processor = make_random_model(SHAPES["tiny"], folder, SIDE * SIDE, 3, torch.float32, "cpu")
    return BenchmarkSetup(model, processor, (SIDE, SIDE), 20, canonical=True)


def trace(tiny, **changes):
    return simulate(tiny, replace(SCENARIO, **changes), HALF, seed=1)


def test_costs_from_parts_recover_known_costs():
    # given a device whose passes cost 0.1 s and 0.01 s per token
    parts = {"vision": 6.0, "prefill": 5 * 0.1 + 1320 * 0.01, "question": 0.1 + 30 * 0.01, "native": 20.6}
    # when
    costs = costs_from(parts, pairs=20, runs=5, system_tokens=20, video_tokens=1300, question_tokens=30)
    # then
    assert (costs.pair, costs.run, costs.token, costs.native_pair) == pytest.approx((0.3, 0.1, 0.01, 1.0))
    assert costs.native(20, 20 + 30) == pytest.approx(20.6)
    assert costs.scaled_to(0.5, 20, 50).native(20, 50) == pytest.approx(0.5)


def test_stream_is_sampled_twice_per_second():
    frames = stream(SIDE, np.random.default_rng(0))
    stamps = [next(frames)[0] for _ in range(20)]
    assert np.diff(stamps) == pytest.approx(0.5, abs=0.04)


def test_first_question_is_cold_and_costs_as_much_as_native(tiny):
    # when
    found = trace(tiny, questions=1)
    # then it costs all pairs of a full memory, in one chunk, and the question
    (question,) = found.questions
    assert question.prefilled_share == 1.0
    assert 0.8 < question.ratio < 1.2
    assert found.busy > 0.0


def test_encoding_ahead_makes_questions_cheaper(tiny):
    # when
    off, vision, full = (trace(tiny, mode=mode, questions=6) for mode in ("off", "vision", "full"))
    # then
    assert np.median([one.ratio for one in vision.questions]) < np.median([one.ratio for one in off.questions])
    prefilled = [np.mean([one.prefilled_share for one in found.questions]) for found in (full, off)]
    assert prefilled[0] < prefilled[1]
    assert full.busy > vision.busy > 0.0


def test_smaller_share_for_encoding_ahead_is_kept_and_leaves_more_to_the_question(tiny):
    # when
    shares = (0.02, 0.1, 1.0)
    found = [trace(tiny, mode="full", questions=6, question_every_sec=20.0, max_duty=share) for share in shares]
    off = trace(tiny, questions=6, question_every_sec=20.0)
    # then
    extra = [one.busy - off.busy for one in found]  # a step that has begun ends, so it may exceed its share
    assert [one <= 1.1 * share for one, share in zip(extra, shares, strict=True)] == [True] * 3
    prefilled = [np.mean([one.prefilled_share for one in trace.questions]) for trace in found]
    assert prefilled == sorted(prefilled, reverse=True)
    assert prefilled[0] > prefilled[-1]


def test_question_waits_for_chunk_being_encoded(tiny):
    # given a device so slow that a chunk takes many seconds and encoding ahead never catches up
    slow = Costs(pair=5.0, run=0.004, token=0.003, native_pair=5.0)
    # when
    found = simulate(tiny, replace(SCENARIO, mode="vision", questions=1), slow, seed=1)
    # then it waits for the end of the second pair and reuses the two pairs
    (question,) = found.questions
    assert 0.9 < question.ratio < 1.0
    assert found.busy > 0.9


def test_measure_trace_runs_every_scenario(tiny, monkeypatch):
    # given
    monkeypatch.setattr(trace_report, "_GROWTH_CHUNKS", (1, 2))
    steps = []
    # when
    found = measure_trace(tiny, tiny, TracePlan((0.5,), (5.0,), (0, 6), 15.0, 1, 0.0, 3), steps.append)
    # then
    assert [(one["eviction_chunk"], one["mode"]) for one in found["devices"]["0.5"]] == [
        (chunk, mode) for chunk in (0, 6) for mode in ("off", "vision", "full")
    ]
    assert all(math.isfinite(one["p50"]) and one["p95"] is None for one in found["devices"]["0.5"])
    assert [one["pairs"] for one in found["growth"]] == [65, 129]
    assert found["growth"][1]["operations"] > found["growth"][0]["operations"]
    assert found["real_time"] == []
    assert "growth" in steps


def test_known_costs_are_simulated_for_each_share(tiny):
    # given
    plan = TracePlan((0.5,), (5.0,), (0,), 15.0, 1, 0.0, 3, modes=("full",), duties=(0.1, 1.0))
    # when
    found = simulate_devices(tiny, tiny, plan, HALF, lambda _: None)["0.5"]
    # then
    assert [(one["mode"], one["max_duty"]) for one in found] == [("full", 0.1), ("full", 1.0)]


@pytest.mark.parametrize("mode", ["off", "full"])
def test_real_time_run_answers_every_question(tiny, mode):
    found = run_in_real_time(tiny, Scenario(mode, 6, 0.6, 2), 3)
    assert found["questions"] == 2
    assert 0 < found["p50"] <= found["max"]
