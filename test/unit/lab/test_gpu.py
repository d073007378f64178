"""The GPU benchmark on the CPU: parts, time limit, faults."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from delayed_vlm_ros.benchmark.ask_cost import measure_round
from delayed_vlm_ros.benchmark.random_model import SHAPES, make_random_model, published_shape
from delayed_vlm_ros.errors import DeviceMemoryError
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS
from lab.__main__ import app
from lab.bench import exactness, gpu
from lab.bench.gpu import PARTS, GpuPlan, measure_gpu

PLAN = GpuPlan(pairs=2, tokens_per_pair=4, answer_tokens=3, rounds=2)
TINY = {"tiny": SHAPES["tiny"]}


def measure(folder, shapes=TINY, plan=PLAN, minutes=1.0):
    return measure_gpu(shapes, plan, "cpu", folder, minutes)


@pytest.fixture
def fast_times(monkeypatch):
    monkeypatch.setattr(gpu, "measure_times", lambda *_: {"rounds": 1})


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_published_shape_has_all_parameters_of_the_model(name, tmp_path):
    model, _ = make_random_model(published_shape(name), tmp_path, 448 * 448, 3, torch.bfloat16, "meta")
    assert model.num_parameters() == PUBLISHED_MODELS[name].parameters


def test_command_measures_every_part(tmp_path):
    options = "--shape tiny --device cpu --pairs 2 --tokens-per-pair 4 --answer-tokens 3 --rounds 2 --json"
    done = CliRunner().invoke(app, ["bench", "gpu", *options.split(), "--work", str(tmp_path)])
    assert done.exit_code == 0
    result = json.loads(done.stdout)
    assert (result["failed"], result["left_out"], result["is_exact"]) == ({}, [], True)
    times = result["shapes"]["tiny"]["times"]
    assert times["rounds"] == 2
    assert {"ttft_second_ask", "decode_tokens_per_sec"} <= set(times)
    for kind in ("first_ask", "second_ask", "after_1_pair", "precomputed", "native_stock"):
        assert times["first_token_sec"][kind]["median"] > 0.0
        assert times["total_sec"][kind]["median"] > 0.0
    assert result["shapes"]["tiny"]["exactness"]["after_1_pair"]["native_error"] < 1e-5


def test_missing_gpu_is_reported_with_exit_code_2(tmp_path):
    done = CliRunner().invoke(app, ["bench", "gpu", "--device", "cuda:99", "--work", str(tmp_path)])
    assert done.exit_code == 2
    assert "'cuda:99' is not available" in done.stderr


def test_second_run_measures_only_missing_parts(tmp_path, fast_times, monkeypatch):
    first = measure(tmp_path)
    (tmp_path / "tiny_times.json").unlink()
    monkeypatch.setattr(gpu, "check_exactness", lambda *_: pytest.fail("measured again"))
    assert measure(tmp_path)["shapes"] == first["shapes"]


def test_part_of_other_settings_is_measured_again(tmp_path, fast_times, monkeypatch):
    measure(tmp_path)
    monkeypatch.setattr(gpu, "check_exactness", lambda *_: {"is_exact": True, "again": True})
    assert measure(tmp_path, plan=replace(PLAN, seed=4))["shapes"]["tiny"]["exactness"]["again"]


def test_failed_part_is_reported_and_measured_by_the_next_run(tmp_path, fast_times, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("device is full")

    with monkeypatch.context() as broken:
        broken.setattr(gpu, "check_exactness", full)
        result = measure(tmp_path)
    assert result["failed"] == {"tiny/exactness": "OutOfMemoryError: device is full"}
    assert list(result["shapes"]["tiny"]) == ["times"]
    assert result["is_exact"] is None
    assert measure(tmp_path)["is_exact"] is True


def test_parts_without_time_are_named(tmp_path):
    result = measure(tmp_path, minutes=0.0)
    assert result["left_out"] == [f"tiny/{part}" for part in PARTS]
    assert result["shapes"] == {"tiny": {}}


def test_times_end_with_their_share_of_the_time(tmp_path):
    setup = gpu._random_setup(SHAPES["tiny"], PLAN, "cpu")
    assert gpu.measure_times(setup, PLAN, end=0.0)["rounds"] == 1


def test_warm_question_with_other_logits_is_reported_with_exit_code_1(tmp_path, fast_times, monkeypatch):
    logits, calls = exactness._logits, []

    def planted(model, work):
        calls.append(work)
        steps = logits(model, work)
        return [step + 1e-6 for step in steps] if len(calls) == 1 else steps

    monkeypatch.setattr(exactness, "_logits", planted)
    options = "--shape tiny --device cpu --pairs 2 --tokens-per-pair 4 --answer-tokens 3 --json"
    done = CliRunner().invoke(app, ["bench", "gpu", *options.split(), "--work", str(tmp_path)])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["shapes"]["tiny"]["exactness"]["second"]["warm_equals_cold"] is False
    assert found["shapes"]["tiny"]["exactness"]["after_1_pair"]["warm_equals_cold"] is True
    assert "times" in found["shapes"]["tiny"]
    assert found["is_exact"] is False


def test_native_logits_of_other_images_are_reported(tmp_path, fast_times, monkeypatch):
    native = exactness.native_generate
    monkeypatch.setattr(
        exactness,
        "native_generate",
        lambda model, processor, snapshot, *rest, **options: native(model, processor, snapshot[1:], *rest, **options),
    )
    result = measure(tmp_path)
    found = result["shapes"]["tiny"]["exactness"]
    assert found["second"]["native_error"] > found["native_bound"]
    assert result["is_exact"] is False


def test_question_about_fewer_pairs_is_no_time(monkeypatch):
    setup = replace(gpu._random_setup(SHAPES["tiny"], PLAN, "cpu"), pairs=4)
    answer = DelayedBatchInferenceEngine._answer

    def short(self, request, snapshot, *rest, **options):
        if len(snapshot) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(self, request, snapshot, *rest, **options)

    monkeypatch.setattr(DelayedBatchInferenceEngine, "_answer", short)
    with pytest.raises(DeviceMemoryError, match="fewer pairs"):
        measure_round(setup, np.random.default_rng(0))
