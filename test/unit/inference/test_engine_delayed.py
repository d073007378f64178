"""Invariants I3 and I5 at the engine: frames cost no model code, and never wait for an ask."""

from __future__ import annotations

import threading

import pytest
import torch

from delayed_vlm_ros.errors import NoFramesError
from delayed_vlm_ros.inference.local import engine as engine_module
from delayed_vlm_ros.inference.local.cache import encoding
from delayed_vlm_ros.inference.local.cache.encoding import CachedBytes
from delayed_vlm_ros.inference.request import AskRequest

HALF_SECONDS = [0.5 * number for number in range(6)]


# --- delayed: no model code until somebody asks ---------------------------------------------------------------------


class Untouchable:
    """Fails at whatever is done with it."""

    def __getattribute__(self, name):
        raise AssertionError(f"touched: {name}")

    def __call__(self, *arguments, **keywords):
        raise AssertionError("called")


def test_adding_frames_runs_no_model_code(make_engine, image):
    # given an engine whose model and processor are gone, and a watch over all of torch
    engine = make_engine()
    engine.model = engine.processor = Untouchable()
    calls = []
    watch = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.append(module))

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
        watch.remove()

    # then
    assert calls == []


def test_second_ask_does_not_see_an_image(make_engine, monkeypatch):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    monkeypatch.setattr(engine.processor, "video_processor", Untouchable())
    calls = []
    watch = engine.model.model.visual.patch_embed.register_forward_pre_hook(lambda *_: calls.append(1))

    # when
    try:
        _, metrics = engine.ask("Where?", max_new_tokens=8)
    finally:
        watch.remove()

    # then
    assert calls == []
    assert metrics.frames_encoded == 0


# --- encoded ahead --------------------------------------------------------------------------------------------------


def counted(engine):
    """Counts the pairs that go through the vision encoder, and the runs of the language model."""
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
def test_same_frames_are_encoded_ahead_once(make_engine, image, prefill):
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


def test_nothing_is_encoded_ahead_that_the_budget_would_drop(make_engine):
    # given room for the features, but not for the KV
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


# --- while an ask runs ----------------------------------------------------------------------------------------------


class Pause:
    """Holds an ask inside the model's vision encoder, or its first language layer, until it is let go."""

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


def test_frames_are_added_while_an_ask_runs(make_engine, image, native):
    # given an ask in the midst of the model
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=0, stream_window_size=6)
    asked = engine.snapshot()
    with Pause(engine.model.model.visual.patch_embed) as pause:
        thread, results = in_thread(lambda: engine.answer(AskRequest("Who?", max_new_tokens=10)))
        assert pause.entered.wait(10)

        # when every frame it works on is evicted
        for number in range(8):
            engine.add_frame(image(60 + number), 10.0 + number)
        pause.opened.set()
        thread.join(10)

    # then the answer is of its own moment
    (result,) = results
    assert [kept.id for kept in result.frames_used] == [kept.id for kept in asked]
    assert result.answer == native.trace(engine.model, engine.processor, asked, "Who?").text
    # and the next one of the new
    answer, metrics = engine.ask("Who?", max_new_tokens=10)
    assert metrics.frames_encoded == 6
    assert answer == native.trace(engine.model, engine.processor, engine.snapshot(), "Who?").text


def test_reset_while_an_ask_runs_keeps_nothing_of_it(make_engine):
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


@pytest.mark.parametrize("place", ["build_prompt", "segments_of"])
def test_reset_as_an_ask_begins_leaves_nothing_of_the_forgotten_frames(make_engine, monkeypatch, place):
    # given a reset that comes in when the ask has its frames, but has encoded nothing
    engine = make_engine(stamps=HALF_SECONDS)
    module = engine_module if place == "build_prompt" else encoding
    honest = getattr(module, place)

    def interrupted(*arguments):
        engine.reset()
        return honest(*arguments)

    monkeypatch.setattr(module, place, interrupted)

    # when
    engine.ask("Who?", max_new_tokens=8)

    # then
    assert engine.cached_bytes() == CachedBytes(0, 0)


def test_answers_stay_right_while_a_camera_runs(make_engine, image, native):
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
