"""Invariants I3 and I5 at the engine: frames run no model code, and never wait for a question."""

from __future__ import annotations

import threading

import pytest
import torch

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.local import engine as engine_module
from delayed_vlm_ros.inference.local.cache import encoding
from delayed_vlm_ros.inference.request import AskRequest

HALF_SECONDS = [0.5 * number for number in range(6)]


# --- delayed: no model code before a question -----------------------------------------------------------------------


class Untouchable:
    """Fails on every access."""

    def __getattribute__(self, name):
        raise AssertionError(f"touched: {name}")

    def __call__(self, *arguments, **keywords):
        raise AssertionError("called")


def test_adding_frames_runs_no_model_code(make_engine, image):
    # given an engine without model and processor, and a hook on all torch modules
    engine = make_engine()
    engine.model = engine.processor = Untouchable()
    calls = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.append(module))

    # when
    try:
        for number in range(60):
            engine.add_frame(image(number // 7), 0.5 * number)
            engine.snapshot()
            engine.cached_bytes()
        engine.frame_manager.get_statistics()
        engine.reset()
        engine.add_frame(image(0))
    finally:
        hook.remove()

    # then
    assert calls == []


def test_second_question_encodes_no_image(make_engine, monkeypatch):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    monkeypatch.setattr(engine.processor, "video_processor", Untouchable())
    calls = []
    hook = engine.model.model.visual.patch_embed.register_forward_pre_hook(lambda *_: calls.append(1))

    # when
    try:
        _, metrics = engine.ask("Where?", max_new_tokens=8)
    finally:
        hook.remove()

    # then
    assert calls == []
    assert metrics.frames_encoded == 0


# --- precompute -----------------------------------------------------------------------------------------------------


def counted(engine):
    """Return lists of the pairs per vision encoder run and of the language model runs, filled by hooks."""
    pairs, runs = [], []
    merged = engine.model.config.vision_config.spatial_merge_size**2
    height, width = engine.snapshot()[0].frames[0].shape[:2]
    patches = (height // 28) * (width // 28) * merged
    engine.model.model.visual.patch_embed.register_forward_pre_hook(
        lambda _, inputs: pairs.append(len(inputs[0]) // patches)
    )
    engine.model.model.language_model.register_forward_pre_hook(lambda *_: runs.append(1))
    return pairs, runs


@pytest.mark.parametrize("prefill", [False, True])
def test_precompute_encodes_the_same_frames_once(make_engine, image, prefill):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    pairs, runs = counted(engine)
    # when
    assert engine.precompute(prefill=prefill)
    # then
    assert (sum(pairs), bool(runs)) == (3, prefill)
    assert not engine.precompute(prefill=prefill)
    assert sum(pairs) == 3
    engine.add_frame(image(9), 3.0)
    assert engine.precompute(prefill=prefill)
    assert sum(pairs) == 4


def test_precompute_skips_what_the_budget_would_evict(make_engine):
    # given a budget for the features, but not for the KV
    budget = make_engine(memory_budget_mb=1e3)._budget
    sufficient = make_engine(stamps=HALF_SECONDS, memory_budget_mb=1e3)
    tight = make_engine(stamps=HALF_SECONDS, memory_budget_mb=(budget.pixels + 2e5) / 1e6)
    # when
    sufficient.precompute(prefill=True)
    pairs, runs = counted(tight)
    assert tight.precompute(prefill=True)
    assert not tight.precompute(prefill=True)
    # then
    assert (sum(pairs), runs) == (3, [])
    assert tight.cached_bytes() == CachedBytes(sufficient.cached_bytes().features, 0)
    assert sufficient.cached_bytes().kv > 0


# --- during a question ----------------------------------------------------------------------------------------------


class Pause:
    """Holds a question inside a module of the model until ``opened`` is set."""

    def __init__(self, module):
        self.entered, self.opened = threading.Event(), threading.Event()
        self._hook = module.register_forward_pre_hook(self._wait)

    def _wait(self, *_):
        self.entered.set()
        assert self.opened.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.opened.set()
        self._hook.remove()


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_frames_are_added_while_a_question_runs(make_engine, image, native):
    # given a question inside the model
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=0, stream_window_size=6)
    asked = engine.snapshot()
    with Pause(engine.model.model.visual.patch_embed) as pause:
        thread, results = in_thread(lambda: engine.answer(AskRequest("Who?", max_new_tokens=10)))
        assert pause.entered.wait(10)

        # when every frame of the question is evicted
        for number in range(8):
            engine.add_frame(image(60 + number), 10.0 + number)
        pause.opened.set()
        thread.join(10)

    # then the answer uses the frames of its own snapshot
    (result,) = results
    assert [kept.id for kept in result.frames_used] == [kept.id for kept in asked]
    assert result.answer == native.trace(engine.model, engine.processor, asked, "Who?").text
    # and the next one uses the new frames
    answer, metrics = engine.ask("Who?", max_new_tokens=10)
    assert metrics.frames_encoded == 6
    assert answer == native.trace(engine.model, engine.processor, engine.snapshot(), "Who?").text


def test_reset_while_a_question_runs_keeps_nothing_of_it(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    with Pause(engine.model.model.visual.patch_embed) as pause:
        thread, results = in_thread(lambda: engine.ask("Who?", max_new_tokens=8))
        assert pause.entered.wait(10)

        # when
        engine.reset()
        pause.opened.set()
        thread.join(10)

    # then
    assert len(results) == 1
    assert engine.cached_bytes() == CachedBytes(0, 0)
    with pytest.raises(NoFramesError):
        engine.ask("Who?")


@pytest.mark.parametrize("function", ["build_prompt", "segments_of"])
def test_reset_at_the_start_of_a_question_keeps_nothing_of_it(make_engine, monkeypatch, function):
    # given a reset after the question has taken its snapshot, before it encodes anything
    engine = make_engine(stamps=HALF_SECONDS)
    module = engine_module if function == "build_prompt" else encoding
    original = getattr(module, function)

    def interrupted(*arguments):
        engine.reset()
        return original(*arguments)

    monkeypatch.setattr(module, function, interrupted)

    # when
    engine.ask("Who?", max_new_tokens=8)

    # then
    assert engine.cached_bytes() == CachedBytes(0, 0)


def test_answers_equal_native_while_a_camera_runs(make_engine, image, native):
    # given
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=4, stream_window_size=4)
    stop = threading.Event()

    def camera():
        number = 0
        while not stop.wait(0.002):
            engine.add_frame(image(number % 9), 10.0 + 0.5 * number)
            number += 1

    thread, _ = in_thread(camera)

    # when
    try:
        results = [engine.answer(AskRequest("Who?", max_new_tokens=8)) for _ in range(6)]
    finally:
        stop.set()
        thread.join(10)

    # then
    for result in results:
        assert result.answer == native.trace(engine.model, engine.processor, result.frames_used, "Who?", 8).text
        metrics = result.metrics
        used = sum(kept.frame_count for kept in result.frames_used)
        assert metrics.frames_encoded + metrics.frames_reused == used
