"""Asks that end early, memory that runs out, and bytes kept between asks."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, DeviceMemoryError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.cache.encoding import CachedBytes
from delayed_vlm_ros.inference.request import AskRequest

HALF_SECONDS = [0.5 * number for number in range(6)]


class EndsAtCheck(AskControl):
    """Is cancelled, or late, when it is looked at for the nth time."""

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
def test_ask_that_ends_early_leaves_the_kept_prefix_intact(exact_engine, compare, check, late):
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
def test_first_ask_that_ends_early_does_not_spoil_the_next(exact_engine, compare, check, encodes, late):
    # given one that ends before or after vision encoding, or while it generates
    with pytest.raises(AskTimeoutError if late else AskCancelledError):
        exact_engine.answer(AskRequest("Where?", max_new_tokens=10), EndsAtCheck(check, late=late))

    # when
    outcome = compare(exact_engine, "Where?")

    # then what was complete is used
    assert outcome.metrics.frames_encoded == encodes
    assert outcome.comparison.verdict(1e-9) == "equal"


def test_limited_ask_that_ends_early_leaves_the_kept_prefix(exact_engine):
    # given
    exact_engine.ask("Who?", max_new_tokens=8)

    # when
    with pytest.raises(AskCancelledError):
        exact_engine.answer(AskRequest("Where?", last_sec=0.5), EndsAtCheck(2, late=False))

    # then
    assert exact_engine.ask("Who?", max_new_tokens=8)[1].frames_encoded == 0


@pytest.fixture
def short_of_memory(monkeypatch):
    """Lets some part of the model run out of memory; for so many calls, or for good."""

    def make(engine, place, calls=10**6):
        owner, name = {
            "vision": (engine.model.model.visual.patch_embed, "forward"),
            "prefill": (engine.model.model, "forward"),
            "generate": (engine.model, "generate"),
        }[place]
        honest = getattr(owner, name)
        left = [calls]

        def run(*arguments, **keywords):
            if left[0] == 0:
                return honest(*arguments, **keywords)
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

        monkeypatch.setattr(owner, name, run)
        return left

    return make


PLACES = ["vision", "prefill", "generate"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("asked_before", [False, True])
def test_device_out_of_memory_for_good(exact_engine, compare, image, short_of_memory, monkeypatch, place, asked_before):
    # given
    if asked_before:
        exact_engine.ask("Who?", max_new_tokens=8)
        exact_engine.add_frame(image(9), 9.0)
    frames = [kept.content_key for kept in exact_engine.snapshot()]

    # when
    short_of_memory(exact_engine, place)
    with pytest.raises(DeviceMemoryError) as caught:
        exact_engine.ask("Who?", max_new_tokens=8)
    monkeypatch.undo()

    # then it says what to do, keeps the frames, gives its own memory back, and goes on
    assert f"out of memory for {len(frames)} pairs (CUDA out of memory. Tried to allocate 20.00 GiB)" in str(
        caught.value
    )
    assert all(word in str(caught.value) for word in ("lower max_pixels", "smaller model", "frames are not lost"))
    assert [kept.content_key for kept in exact_engine.snapshot()] == frames
    assert exact_engine.cached_bytes() == CachedBytes(0, 0)
    assert compare(exact_engine, "Who?").comparison.verdict(1e-9) == "equal"


@pytest.mark.parametrize("place", PLACES)
def test_memory_that_suffices_without_the_caches(exact_engine, native, short_of_memory, place):
    # given
    expected = native.trace(exact_engine.model, exact_engine.processor, exact_engine.snapshot(), "Who?", 8).text
    short_of_memory(exact_engine, place, calls=1)

    # when
    result = exact_engine.answer(AskRequest("Who?", max_new_tokens=8))

    # then
    assert result.answer == expected
    assert result.metrics.warnings == ("device memory was short: what was kept of earlier asks has been dropped",)
    assert result.metrics.exact


@pytest.mark.parametrize("place", PLACES)
def test_memory_that_suffices_for_half_of_the_frames(exact_engine, native, short_of_memory, image, place):
    # given
    exact_engine.add_frame(image(9), 9.0)
    exact_engine.add_frame(image(10), 9.5)
    asked = exact_engine.snapshot()
    short_of_memory(exact_engine, place, calls=2)

    # when
    result = exact_engine.answer(AskRequest("Who?", max_new_tokens=8))

    # then it is the answer for those, which it names
    used = result.frames_used
    assert len(asked) == 4
    assert len(used) == 2
    assert used[-1].id == asked[-1].id
    assert used[0].importance == max(kept.importance for kept in asked[:-1])
    assert result.metrics.warnings[-1] == (
        "device memory was short: answered from 2 of 4 kept pairs, the newest and most important"
    )
    assert result.answer == native.trace(exact_engine.model, exact_engine.processor, used, "Who?", 8).text
    # and the next one is about all of them again
    assert exact_engine.answer(AskRequest("Who?", max_new_tokens=8)).metrics.warnings == ()


def test_caches_of_every_camera_go_before_any_frame_is_left_out(make_engine, load_tiny, short_of_memory):
    # given two cameras' engines on one device, each with something kept
    engines = {}

    def forget_all():
        for engine in engines.values():
            engine.reset_cache()

    tiny = load_tiny(dtype=torch.float64)
    for name in ("front", "rear"):
        engines[name] = make_engine(tiny, stamps=HALF_SECONDS, on_oom=forget_all)
        engines[name].ask("Who?", max_new_tokens=8)
    expected = engines["front"].ask("Where?", max_new_tokens=8)[0]
    assert engines["rear"].cached_bytes() != CachedBytes(0, 0)

    # when the device has room for one camera's ask, if nothing else is kept there
    short_of_memory(engines["front"], "generate", calls=1)
    result = engines["front"].answer(AskRequest("Where?", max_new_tokens=8))

    # then
    assert engines["rear"].cached_bytes() == CachedBytes(0, 0)
    assert result.answer == expected
    assert result.frames_used == engines["front"].snapshot()
    assert result.metrics.warnings == ("device memory was short: what was kept of earlier asks has been dropped",)
    assert engines["rear"].ask("Who?", max_new_tokens=8)[1].frames_encoded == 6


def test_error_of_a_full_device_holds_no_tensors(exact_engine, monkeypatch):
    # given an ask that has some when it fails
    held = []
    visual = exact_engine.model.model.visual
    see = visual.patch_embed.forward

    def note(pixels):
        held.append(weakref.ref(pixels))
        output = see(pixels)
        held.append(weakref.ref(output))
        return output

    def out_of_memory(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(visual.patch_embed, "forward", note)
    monkeypatch.setattr(exact_engine.model.model, "forward", out_of_memory)

    # when
    with pytest.raises(DeviceMemoryError) as caught:
        exact_engine.ask("Who?", max_new_tokens=8)

    # then even while the caller holds on to the error, and tries again with less
    assert len(held) >= 2
    assert [reference() for reference in held] == [None] * len(held)
    assert "Tried to allocate" in str(caught.value.__cause__)


# --- bytes kept between asks ----------------------------------------------------------------------------------------


def live_tensor_bytes():
    gc.collect()
    storages = {}
    for candidate in gc.get_objects():
        if type(candidate) is torch.Tensor:
            storage = candidate.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_reported_bytes_are_all_that_an_ask_leaves_behind(make_engine):
    # given an engine that has asked, so that nothing is new
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


def test_kept_bytes_do_not_grow_with_asks(make_engine):
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


def test_kept_bytes_are_those_of_the_newest_prefix_only(make_engine, image):
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


def test_release_gives_the_model_back(make_engine):
    # given
    engine = make_engine(stamps=HALF_SECONDS)
    engine.ask("Who?", max_new_tokens=8)

    # when
    engine.release()

    # then
    assert engine.model is None
    assert engine.cached_bytes() == CachedBytes(0, 0)
    assert len(engine.snapshot()) == 3
