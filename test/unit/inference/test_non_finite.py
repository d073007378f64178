"""NaN and infinity in a model's output: reported as an error, never cached, never an answer."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from delayed_vlm_ros.errors import AskCancelledError, NonFiniteError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.local.cache import prefill as prefill_module
from delayed_vlm_ros.inference.local.cache import vision
from delayed_vlm_ros.inference.local.finite import FiniteLogits, check_finite
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.device import choose_dtype
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker

HALF_SECONDS = [0.5 * number for number in range(6)]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def own_tiny(load_tiny):
    """Return a function that returns a copy of a tiny model, whose weights may change."""

    def make(dtype=torch.float32):
        tiny = load_tiny(dtype=torch.float32)
        return SimpleNamespace(model=copy.deepcopy(tiny.model).to(dtype), processor=tiny.processor)

    return make


def weight_of(model, part):
    """Return a weight of the vision encoder, of a language layer, or of the final norm."""
    return {
        "vision": model.model.visual.merger.mlp[2].bias,
        "vision block": model.model.visual.blocks[0].attn.proj.bias,
        "embedding": model.model.language_model.embed_tokens.weight,
        "layer": model.model.language_model.layers[0].mlp.down_proj.weight,
        "last layer": model.model.language_model.layers[-1].self_attn.v_proj.bias,
        "norm": model.model.language_model.norm.weight,
    }[part]


class Poison:
    """Sets a weight to one value until removed."""

    def __init__(self, weight, value):
        self._weight, self._sound = weight, weight.detach().clone()
        with torch.no_grad():
            weight.fill_(value)

    def remove(self):
        with torch.no_grad():
            self._weight.copy_(self._sound)


def caches_are_finite(engine):
    """Return whether the cached features and the filled part of the cached KV are finite; true without any."""
    prefix = engine.kept_prefix()
    kv = (
        [] if prefix is None else [one for layer in prefix.layers if layer.length for one in (layer.keys, layer.values)]
    )
    features = list(engine._cache._features._features.values())
    return all(bool(torch.isfinite(values).all()) for values in (*kv, *features))


def set_sampling(model, sampling):
    model.generation_config.do_sample = sampling
    model.generation_config.temperature = 1e-6 if sampling else None


# --- questions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [False, True], ids=["greedy", "sampling"])
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("part", ["vision", "vision block", "layer", "last layer", "norm"])
def test_poisoned_weight_fails_the_question_and_leaves_no_trace(own_tiny, make_engine, part, value, sampling):
    # given an engine that has answered, and new frames
    tiny = own_tiny()
    set_sampling(tiny.model, sampling)
    engine = make_engine(tiny, stamps=HALF_SECONDS, sampling=sampling)
    expected = engine.ask("Who?", max_new_tokens=8)[0]
    engine.reset_cache()
    frames = engine.snapshot()

    # when
    poison = Poison(weight_of(tiny.model, part), value)
    with pytest.raises(NonFiniteError) as caught:
        engine.ask("Who?", max_new_tokens=8)

    # then
    assert "float32" in str(caught.value)
    assert engine.cached_bytes() == CachedBytes(0, 0)
    assert engine.snapshot() == frames

    # and once the cause is gone, every token of the answer is correct
    poison.remove()
    answer, metrics = engine.ask("Who?", max_new_tokens=8)
    assert answer == expected
    assert metrics.frames_encoded == len(HALF_SECONDS)
    assert caches_are_finite(engine)


@pytest.mark.parametrize("part", ["vision", "layer", "norm"])
def test_poison_after_an_answer_fails_the_next_question(own_tiny, make_engine, image, part):
    # given a cached prefix, and one more frame
    tiny = own_tiny()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    engine.add_frame(image(9), 9.0)

    # when
    poison = Poison(weight_of(tiny.model, part), NAN)

    # then at every question
    for _ in range(2):
        with pytest.raises(NonFiniteError):
            engine.ask("Where?", max_new_tokens=8)
        assert caches_are_finite(engine)
    poison.remove()
    cold = make_engine(tiny, stamps=HALF_SECONDS)
    cold.add_frame(image(9), 9.0)
    assert engine.ask("Where?", max_new_tokens=8)[0] == cold.ask("Where?", max_new_tokens=8)[0]


@pytest.mark.parametrize("part", ["vision", "layer"])
def test_float16_overflow_names_dtype_and_remedy(own_tiny, make_engine, part):
    # given weights that are valid in float32 and overflow in float16
    tiny = own_tiny()
    weight = weight_of(tiny.model, part)
    with torch.no_grad():
        weight.fill_(60000.0)
        if part == "layer":
            tiny.model.model.language_model.layers[0].mlp.up_proj.weight.mul_(1e3)
        else:
            tiny.model.model.visual.merger.mlp[2].weight.fill_(30000.0)
    sound = make_engine(tiny, stamps=HALF_SECONDS).ask("Who?", max_new_tokens=2)
    assert sound[1].answer_tokens > 0

    # when
    tiny.model.half()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    with pytest.raises(NonFiniteError) as caught:
        engine.ask("Who?", max_new_tokens=8)

    # then
    assert all(name in str(caught.value) for name in ("float16", "model.dtype", "bfloat16", "float32"))
    assert engine.cached_bytes() == CachedBytes(0, 0)


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("sampling", [False, True], ids=["greedy", "sampling"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_logits_that_fail_at_a_step_end_the_answer_there(own_tiny, make_engine, monkeypatch, step, sampling, value):
    # given a model whose head fails at one step only
    tiny = own_tiny()
    set_sampling(tiny.model, sampling)
    tiny.model.generation_config.eos_token_id = None
    engine = make_engine(tiny, stamps=HALF_SECONDS, sampling=sampling)
    sound, calls = tiny.model.lm_head.forward, []

    def fail(hidden):
        logits = sound(hidden)
        if len(calls) == step:
            logits[..., -1, 5] = value
        calls.append(step)
        return logits

    monkeypatch.setattr(tiny.model.lm_head, "forward", fail)
    control, reports = AskControl(), []
    control.listener = SimpleNamespace(wants_text=True, report=reports.append)

    # when
    with pytest.raises(NonFiniteError) as caught:
        engine.answer(AskRequest("Who?", max_new_tokens=20), control)

    # then no further token is computed, and no text of the failed step is reported
    assert len(calls) == step + 1
    assert max(progress.answer_tokens for progress in reports) == step
    assert "logits" in str(caught.value)
    assert engine.cached_bytes() == CachedBytes(0, 0)


def test_minus_infinity_of_single_tokens_is_allowed(own_tiny, make_engine, monkeypatch):
    # given
    tiny = own_tiny()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    sound = tiny.model.lm_head.forward

    def masked(hidden):
        logits = sound(hidden)
        logits[..., :5] = -INF
        return logits

    monkeypatch.setattr(tiny.model.lm_head, "forward", masked)

    # then
    assert engine.ask("Who?", max_new_tokens=8)[1].answer_tokens > 0


# --- cancelled questions, and mutants with poisoned caches -----------------------------------------------------------


class CancelledAt(AskControl):
    """Is cancelled at the nth check."""

    def __init__(self, number):
        super().__init__()
        self._left = number

    def check(self):
        self._left -= 1
        if self._left == 0:
            self.cancel()
        super().check()


@pytest.mark.parametrize("part", ["vision", "layer"])
def test_cancelled_question_caches_nothing_poisoned(own_tiny, make_engine, part):
    for check in range(1, 8):
        # given
        tiny = own_tiny()
        engine = make_engine(tiny, stamps=HALF_SECONDS)
        Poison(weight_of(tiny.model, part), NAN)

        # when
        with pytest.raises((AskCancelledError, NonFiniteError)):
            engine.answer(AskRequest("Who?", max_new_tokens=8), CancelledAt(check))

        # then
        assert caches_are_finite(engine)


@pytest.mark.parametrize("part", ["vision", "layer"])
def test_mutant_without_checks_poisons_the_caches(own_tiny, make_engine, monkeypatch, part):
    # given a mutant that neither checks before it caches nor drops its caches afterwards
    for module in (vision, prefill_module):
        monkeypatch.setattr(module, "check_finite", lambda values, name: None)
    tiny = own_tiny()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    monkeypatch.setattr(engine, "reset_cache", lambda: None)
    Poison(weight_of(tiny.model, part), NAN)

    # when
    with pytest.raises(NonFiniteError):
        engine.ask("Who?", max_new_tokens=8)

    # then
    assert not caches_are_finite(engine)


# --- precompute ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefill", [False, True], ids=["vision", "full"])
@pytest.mark.parametrize("part", ["vision", "layer"])
def test_precompute_of_a_poisoned_model_fails_and_leaves_no_trace(own_tiny, make_engine, part, prefill):
    # given
    tiny = own_tiny()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    poison = Poison(weight_of(tiny.model, part), NAN)

    # when
    if part == "layer" and not prefill:
        assert engine.precompute(prefill=prefill)  # the language model does not run
    else:
        with pytest.raises(NonFiniteError):
            engine.precompute(prefill=prefill)
        assert engine.cached_bytes() == CachedBytes(0, 0)

    # then
    assert caches_are_finite(engine)
    poison.remove()
    expected = make_engine(tiny, stamps=HALF_SECONDS).ask("Who?", max_new_tokens=8)[0]
    engine.precompute(prefill=prefill)
    assert engine.ask("Who?", max_new_tokens=8)[0] == expected


def test_worker_reports_a_poisoned_model_of_its_idle_task(own_tiny, make_engine):
    # given
    tiny = own_tiny()
    engine = make_engine(tiny, stamps=HALF_SECONDS)
    Poison(weight_of(tiny.model, "vision"), NAN)
    task = IdleTask(
        "precompute", lambda model, control: model.precompute(control, prefill=True), quiet_sec=0.0, period_sec=0.01
    )
    worker = ModelWorker(lambda: engine, 1, idle_tasks=[task])

    # when
    worker.start()
    until = time.monotonic() + 60.0
    while not worker.status.idle_errors and time.monotonic() < until:
        time.sleep(0.01)
    worker.close(10.0)

    # then
    assert "vision features" in worker.status.idle_errors["precompute"]
    assert "NaN" in worker.status.idle_errors["precompute"]
    assert engine.cached_bytes() == CachedBytes(0, 0)


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_check_finite_rejects_one_bad_element(value, dtype):
    # given
    values = torch.full((3, 4), torch.finfo(dtype).max, dtype=dtype)
    check_finite(values, "values")
    values[1, 2] = value

    # then
    with pytest.raises(NonFiniteError) as caught:
        check_finite(values, "values")
    assert str(dtype).removeprefix("torch.") in str(caught.value)
    assert ("model.dtype" in str(caught.value)) == (dtype is torch.float16)


def test_logits_flag_stays_set_and_scores_can_be_sampled():
    # given
    logits = FiniteLogits(torch.device("cpu"))
    sound = torch.tensor([[0.5, -INF, 2.0]])

    # then
    assert torch.equal(logits(None, sound), sound)
    assert not logits.failed
    assert torch.isfinite(logits(None, torch.tensor([[0.5, NAN, 2.0]]))).all()
    logits(None, sound)
    assert logits.failed


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_logits_of_only_one_bad_value_set_the_flag(value):
    logits = FiniteLogits(torch.device("cpu"))
    logits(None, torch.full((1, 3), value))
    assert logits.failed


@pytest.mark.parametrize(("supported", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_dtype_on_cuda_is_never_float16(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert choose_dtype("auto", "cuda:0") == expected


# --- load ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "remedy"), [("float16", "model.dtype"), ("float32", "download")])
def test_checkpoint_that_computes_nan_fails_the_load(checkpoint_folder, tmp_path, dtype, remedy):
    # given weights that are NaN, as damaged ones or after an overflow
    path = Path(shutil.copytree(checkpoint_folder("qwen2_5_vl"), tmp_path / "broken"))
    file = path / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("layers.0.mlp.down_proj.weight"))
    save_file({**weights, name: torch.full_like(weights[name], NAN)}, file, {"format": "pt"})
    checkpoint = resolve_checkpoint(str(path), device="cpu")

    # when
    with pytest.raises(NonFiniteError) as caught:
        load_model(checkpoint, device="cpu", dtype=dtype)

    # then
    assert all(part in str(caught.value) for part in ("broken", dtype, "NaN", remedy))
