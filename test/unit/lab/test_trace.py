"""Streams lived through in virtual time: what is counted, and what is waited for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from delayed_vlm_ros.benchmark.ask_cost import BenchmarkSetup
from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model
from lab.bench import trace_report
from lab.bench.trace import Costs, Habit, costs_from, live_through, stream
from lab.bench.trace_real_time import live_in_real_time
from lab.bench.trace_report import TracePlan, measure_trace

SIDE = 56
HALF = Costs(pair=0.01, run=0.004, token=0.003, native_pair=0.0225)  # about 0.5 s for 20 pairs
HABIT = Habit("off", 0, ask_every_sec=5.0, asks=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tiny")
    model, processor = make_random_model(SHAPES["tiny"], folder, SIDE * SIDE, 3, torch.float32, "cpu")
    return BenchmarkSetup(model, processor, (SIDE, SIDE), 20, canonical=True)


def trace(tiny, **changes):
    return live_through(tiny, replace(HABIT, **changes), HALF, seed=1)


def test_costs_are_those_that_the_parts_were_made_of():
    # given a device whose runs cost 0.1 s and 0.01 s a token
    parts = {"vision": 6.0, "prefill": 5 * 0.1 + 1320 * 0.01, "question": 0.1 + 30 * 0.01, "native": 20.6}
    # when
    costs = costs_from(parts, pairs=20, runs=5, system_tokens=20, video_tokens=1300, question_tokens=30)
    # then
    assert (costs.pair, costs.run, costs.token, costs.native_pair) == pytest.approx((0.3, 0.1, 0.01, 1.0))
    assert costs.native(20, 20 + 30) == pytest.approx(20.6)
    assert costs.scaled_to(0.5, 20, 50).native(20, 50) == pytest.approx(0.5)


def test_the_camera_is_sampled_twice_a_second():
    frames = stream(SIDE, np.random.default_rng(0))
    stamps = [next(frames)[0] for _ in range(20)]
    assert np.diff(stamps) == pytest.approx(0.5, abs=0.04)


def test_first_ask_is_cold_and_costs_what_is_counted(tiny):
    # when
    found = trace(tiny, asks=1)
    # then all pairs of a full memory, in one chunk, and the question
    (ask,) = found.asks
    assert ask.read_again == 1.0
    assert 0.8 < ask.ratio < 1.2
    assert found.busy > 0.0


def test_encoding_ahead_takes_the_work_out_of_the_asks(tiny):
    # when
    off, vision, full = (trace(tiny, mode=mode, asks=6) for mode in ("off", "vision", "full"))
    # then
    assert np.median([ask.ratio for ask in vision.asks]) < np.median([ask.ratio for ask in off.asks])
    assert np.mean([ask.read_again for ask in full.asks]) < np.mean([ask.read_again for ask in off.asks])
    assert full.busy > vision.busy > 0.0


def test_an_ask_waits_for_the_chunk_that_is_being_encoded(tiny):
    # given a device so slow that it is always behind, where a chunk takes many seconds
    slow = Costs(pair=5.0, run=0.004, token=0.003, native_pair=5.0)
    # when
    found = live_through(tiny, replace(HABIT, mode="vision", asks=1), slow, seed=1)
    # then it waits for the end of the second pair, and finds those two done
    (ask,) = found.asks
    assert 0.9 < ask.ratio < 1.0
    assert found.busy > 0.9


def test_whole_measurement(tiny, monkeypatch):
    # given
    monkeypatch.setattr(trace_report, "_GROWTH_CHUNKS", (1, 2))
    told = []
    # when
    found = measure_trace(tiny, tiny, TracePlan((0.5,), (5.0,), (0, 6), 15.0, 1, 0.0, 3), told.append)
    # then
    assert [(one["eviction_chunk"], one["mode"]) for one in found["devices"]["0.5"]] == [
        (chunk, mode) for chunk in (0, 6) for mode in ("off", "vision", "full")
    ]
    assert all(math.isfinite(one["p50"]) and one["p95"] is None for one in found["devices"]["0.5"])
    assert [one["pairs"] for one in found["growth"]] == [65, 129]
    assert found["growth"][1]["operations"] > found["growth"][0]["operations"]
    assert found["real_time"] == []
    assert "growth" in told


@pytest.mark.parametrize("mode", ["off", "full"])
def test_in_real_time(tiny, mode):
    found = live_in_real_time(tiny, Habit(mode, 6, 0.6, 2), 3)
    assert found["asks"] == 2
    assert 0 < found["p50"] <= found["max"]
