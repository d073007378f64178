"""Answering methods: reset after a backward time jump, and the frame limit of native inference."""

import numpy as np
import pytest

from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.local.models.loading import load_model
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.replay import local_answerers
from delayed_vlm_ros.replay.local_answerers import LocalAnswerers
from delayed_vlm_ros.replay.methods import METHOD_KEYS, NATIVE_ALL, NEWEST_4

REQUEST = AskRequest("what has moved?", max_new_tokens=4)


@pytest.fixture(scope="module")
def loaded():
    return load_model(resolve_checkpoint("demo"), device="cpu")


@pytest.fixture
def make_answerers(loaded):
    def make(methods):
        memory = SmartFrameManager(4, 4)
        return memory, LocalAnswerers(loaded.model, loaded.processor, memory, methods, 200_704)

    return make


def add_frames(memory, answering, stamps):
    for stamp in stamps:
        shades = np.random.default_rng(round(stamp * 10)).integers(0, 256, (2, 2, 3), np.uint8)
        memory.add(shades.repeat(56, axis=0).repeat(56, axis=1), stamp)
        answering.add(memory.snapshot()[-1].pair.last)


def test_reset_drops_the_frames_of_every_method(make_answerers):
    # given
    memory, answering = make_answerers(METHOD_KEYS)
    add_frames(memory, answering, [10.0, 10.5, 11.0])
    before = answering.answer(REQUEST)
    # when
    memory.reset()
    answering.reset()
    empty = answering.answer(REQUEST)
    # then
    assert [answer.error for answer in before.values()] == [""] * len(METHOD_KEYS)
    assert all(answer.error for answer in empty.values())
    assert answering.cached_bytes == 0
    # when time starts again before the earlier frames
    add_frames(memory, answering, [1.0, 1.5])
    # then
    after = answering.answer(REQUEST)
    assert [answer.error for answer in after.values()] == [""] * len(METHOD_KEYS)
    assert after[NATIVE_ALL].frames_encoded == after[NEWEST_4].frames_encoded == 2


def test_native_inference_on_too_many_frames_is_skipped(make_answerers, monkeypatch):
    # given
    monkeypatch.setattr(local_answerers, "MAX_NATIVE_FRAMES", 4)
    memory, answering = make_answerers((NATIVE_ALL,))
    # then
    add_frames(memory, answering, [0.0, 0.5, 1.0, 1.5])
    assert answering.answer(REQUEST)[NATIVE_ALL].frames_encoded == 4
    add_frames(memory, answering, [2.0])
    assert answering.answer(REQUEST)[NATIVE_ALL].skipped
