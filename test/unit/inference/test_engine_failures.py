"""Questions that end early, device memory that runs out, and bytes kept between questions."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, DeviceMemoryError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.finish import finish_warnings
from delayed_vlm_ros.inference.request import AskRequest

HALF_SECONDS = [0.5 * number for number in range(6)]


def warnings_of(result):
    """Return the warnings of an answer, without that it was cut: the untrained model does not end its answers."""
    metrics = result.metrics
    cut = finish_warnings(metrics.finish_reason, metrics.answer_tokens)
    return tuple(warning for warning in metrics.warnings if warning not in cut)


class EndsAtCheck(AskControl):
    """Is cancelled, or past its deadline, at the nth check."""

    def __init__(self, number, *, late):
        super().__init__()
        self._left, self._late = number, late

    def check(self):
        self._left -= 1
        if self._left == 0:
            if self._late:
                self.deadline = 0.0
            else:
                self.cancel()
        super().check()


@pytest.fixture
def exact_engine(make_engine, load_tiny):
    return make_engine(load_tiny(dtype=torch.float64), stamps=HALF_SECONDS)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("check", [1, 2, 6])
def test_question_that_ends_early_leaves_the_cached_prefix_intact(exact_engine, compare, check, late):
    # given
    exact_engine.ask("Who?", max_new_tokens=8)
    kept = exact_engine.cached_bytes()

    # when a second one ends after some of its tokens
    with pytest.raises(AskTimeoutError if late else AskCancelledError):
        exact_engine.answer(AskRequest("Where?", max_new_tokens=10), EndsAtCheck(check, late=late))

    # then
    assert exact_engine.cached_bytes() == kept
    outcome = compare(exact_engine, "Where?")
    assert outcome.metrics.frames_encoded == 0
    assert outcome.comparison.verdict(1e-9) == "equal"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("check", "encodes"), [(1, 6), (2, 4), (4, 0), (8, 0)])
def test_first_question_that_ends_early_leaves_valid_state_for_the_next(exact_engine, compare, check, encodes, late):
    # given a question that ends before or after vision encoding, or during generation
    with pytest.raises(AskTimeoutError if late else AskCancelledError):
        exact_engine.answer(AskRequest("Where?", max_new_tokens=10), EndsAtCheck(check, late=late))

    # when
    outcome = compare(exact_engine, "Where?")

    # then complete work is reused
    assert outcome.metrics.frames_encoded == encodes
    assert outcome.comparison.verdict(1e-9) == "equal"


def test_limited_question_that_ends_early_leaves_the_cached_prefix(exact_engine):
    # given
    exact_engine.ask("Who?", max_new_tokens=8)

    # when
    with pytest.raises(AskCancelledError):
        exact_engine.answer(AskRequest("Where?", last_sec=0.5), EndsAtCheck(2, late=False))

    # then
    assert exact_engine.ask("Who?", max_new_tokens=8)[1].frames_encoded == 0


@pytest.fixture
def short_of_memory(monkeypatch):
    """Return a function that makes a part of the model run out of memory, for a number of calls or for good."""

    def make(engine, stage, calls=10**6):
        owner, name = {
            "vision": (engine.model.model.visual.patch_embed, "forward"),
            "prefill": (engine.model.model, "forward"),
            "generate": (engine.model, "generate"),
        }[stage]
        original = getattr(owner, name)
        left = [calls]

        def run(*arguments, **keywords):
            if left[0] == 0:
                return original(*arguments, **keywords)
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

        monkeypatch.setattr(owner, name, run)
        return left

    return make


STAGES = ["vision", "prefill", "generate"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("asked_before", [False, True])
def test_permanent_oom_raises_and_keeps_the_frames(
    exact_engine, compare, image, short_of_memory, monkeypatch, stage, asked_before
):
    # given
    if asked_before:
        exact_engine.ask("Who?", max_new_tokens=8)
        exact_engine.add_frame(image(9), 9.0)
    frames = [kept.content_key for kept in exact_engine.snapshot()]

    # when
    short_of_memory(exact_engine, stage)
    with pytest.raises(DeviceMemoryError) as caught:
        exact_engine.ask("Who?", max_new_tokens=8)
    monkeypatch.undo()

    # then the error has the remedy, the frames stay, the caches are freed, and the next question works
    assert f"out of memory for {len(frames)} pairs (CUDA out of memory. Tried to allocate 20.00 GiB)" in str(
        caught.value
    )
    assert all(word in str(caught.value) for word in ("max_pixels", "memory sizes", "smaller model"))
    assert [kept.content_key for kept in exact_engine.snapshot()] == frames
    assert exact_engine.cached_bytes() == CachedBytes(0, 0)
    assert compare(exact_engine, "Who?").comparison.verdict(1e-9) == "equal"


@pytest.mark.parametrize("stage", STAGES)
def test_oom_is_solved_by_dropping_the_caches(exact_engine, native, short_of_memory, stage):
    # given
    expected = native.trace(exact_engine.model, exact_engine.processor, exact_engine.snapshot(), "Who?", 8).text
    short_of_memory(exact_engine, stage, calls=1)

    # when
    result = exact_engine.answer(AskRequest("Who?", max_new_tokens=8))

    # then
    assert result.answer == expected
    assert warnings_of(result) == ("device memory was short: the caches of earlier questions were dropped",)
    assert result.metrics.exact


@pytest.mark.parametrize("stage", STAGES)
def test_oom_is_solved_by_answering_from_half_of_the_pairs(exact_engine, native, short_of_memory, image, stage):
    # given
    exact_engine.add_frame(image(9), 9.0)
    exact_engine.add_frame(image(10), 9.5)
    asked = exact_engine.snapshot()
    short_of_memory(exact_engine, stage, calls=2)

    # when
    result = exact_engine.answer(AskRequest("Who?", max_new_tokens=8))

    # then the answer is the one for those pairs, and lists them
    used = result.frames_used
    assert len(asked) == 4
    assert len(used) == 2
    assert used[-1].id == asked[-1].id
    assert used[0].importance == max(kept.importance for kept in asked[:-1])
    assert warnings_of(result)[-1] == (
        "device memory was short: answered from 2 of 4 kept pairs, the newest and most important"
    )
    assert result.answer == native.trace(exact_engine.model, exact_engine.processor, used, "Who?", 8).text
    # and the next question uses all pairs again
    assert warnings_of(exact_engine.answer(AskRequest("Who?", max_new_tokens=8))) == ()


def test_oom_drops_the_caches_of_all_cameras_before_any_frame(make_engine, load_tiny, short_of_memory):
    # given the engines of two cameras on one device, each with cached state
    engines = {}

    def reset_all():
        for engine in engines.values():
            engine.reset_cache()

    tiny = load_tiny(dtype=torch.float64)
    for name in ("front", "rear"):
        engines[name] = make_engine(tiny, stamps=HALF_SECONDS, on_oom=reset_all)
        engines[name].ask("Who?", max_new_tokens=8)
    expected = engines["front"].ask("Where?", max_new_tokens=8)[0]
    assert engines["rear"].cached_bytes() != CachedBytes(0, 0)

    # when the device has memory for one camera's question, but not for the caches
    short_of_memory(engines["front"], "generate", calls=1)
    result = engines["front"].answer(AskRequest("Where?", max_new_tokens=8))

    # then
    assert engines["rear"].cached_bytes() == CachedBytes(0, 0)
    assert result.answer == expected
    assert result.frames_used == engines["front"].snapshot()
    assert warnings_of(result) == ("device memory was short: the caches of earlier questions were dropped",)
    assert engines["rear"].ask("Who?", max_new_tokens=8)[1].frames_encoded == 6


def test_oom_error_holds_no_tensors(exact_engine, monkeypatch):
    # given a question that holds tensors when it fails
    held = []
    visual = exact_engine.model.model.visual
    embed = visual.patch_embed.forward

    def record(pixels):
        held.append(weakref.ref(pixels))
        output = embed(pixels)
        held.append(weakref.ref(output))
        return output

    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(visual.patch_embed, "forward", record)
    monkeypatch.setattr(exact_engine.model.model, "forward", out_of_memory)

    # when
    with pytest.raises(DeviceMemoryError) as caught:
        exact_engine.ask("Who?", max_new_tokens=8)

    # then also while the caller holds the error
    assert len(held) >= 2
    assert [reference() for reference in held] == [None] * len(held)
    assert "Tried to allocate" in str(caught.value.__cause__)


# --- bytes kept between questions -----------------------------------------------------------------------------------


def live_tensor_bytes():
    gc.collect()
    storages = {}
    for candidate in gc.get_objects():
        if type(candidate) is torch.Tensor:
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_cached_bytes_equal_all_tensors_left_by_a_question(make_engine):
    # given an engine that has answered once
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    engine.reset_cache()
    before = live_tensor_bytes()

    # when
    engine.ask("Who?", max_new_tokens=8)

    # then
    kept = engine.cached_bytes()
    assert kept.kv > 0
    assert live_tensor_bytes() - before == kept.kv + kept.features
    engine.reset_cache()
    assert live_tensor_bytes() == before
    assert engine.cached_bytes() == CachedBytes(0, 0)


def test_cached_bytes_do_not_grow_with_questions(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)
    kept, before = engine.cached_bytes(), live_tensor_bytes()

    # when
    for number in range(6):
        engine.ask(f"Question {number}? " * (number + 1), max_new_tokens=8 + number)
        engine.ask("Who?", max_new_tokens=8, last_sec=1.0)

    # then
    assert engine.cached_bytes() == kept
    assert live_tensor_bytes() == before


def test_cached_bytes_are_those_of_the_newest_prefix_only(make_engine, image):
    # given a memory of bounded size
    engine = make_engine(stamps=HALF_SECONDS, star_memory_size=0, stream_window_size=6)
    sizes = []

    # when
    for number in range(5):
        engine.ask("Who?", max_new_tokens=8)
        sizes.append((engine.cached_bytes().kv, live_tensor_bytes()))
        for frame in range(2):
            engine.add_frame(image(number), 10.0 + 2 * number + frame)

    # then
    assert len(set(sizes)) == 1


def test_close_releases_the_model(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)

    # when
    engine.close()

    # then
    assert engine.model is None
    assert engine.cached_bytes() == CachedBytes(0, 0)
    assert len(engine.snapshot()) == 3
