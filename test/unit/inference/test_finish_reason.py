"""Why an answer ended: complete, cut at its length limit, or stopped in a repetition."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.finish import FINISH_REASONS, finish_warnings, worst_reason
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.repetition import RepetitionStop, ends_in_loop
from delayed_vlm_ros.inference.metrics import combine_metrics
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.native import native_answer, native_generate, native_prompt_length
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from delayed_vlm_ros.scenes.render import render
from delayed_vlm_ros.scenes.scene import Scene

HALF_SECONDS = [0.5 * number for number in range(4)]
END, OTHER_END = 7, 9
LOOP = [20, 21, 22, 23, 24]


class ScriptedHead:
    """Replaces the head of a model: the answer's tokens come from a list, which starts again for each answer."""

    def __init__(self, model, script, end=(END, OTHER_END)):
        self._script, self._sound, self._step = script, model.lm_head.forward, 0
        model.generation_config.eos_token_id = end
        model.generation_config.repetition_penalty = model.generation_config.min_new_tokens = None
        model.lm_head.forward = self._forward

    def rewind(self):
        self._step = 0

    def _forward(self, hidden):
        logits = torch.zeros_like(self._sound(hidden))
        logits[..., -1, self._script[self._step % len(self._script)]] = 10.0
        self._step += 1
        return logits


@pytest.fixture
def scripted(load_tiny, make_engine):
    """Return a function that returns an engine whose answers have the given tokens, and the script's head."""

    def make(script, *, end=(END, OTHER_END), **arguments):
        tiny = load_tiny()
        own = SimpleNamespace(model=copy.deepcopy(tiny.model), processor=tiny.processor)
        head = ScriptedHead(own.model, script, list(end) if isinstance(end, tuple) else end)
        return make_engine(own, stamps=HALF_SECONDS, **arguments), head

    return make


# --- reasons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "end", "limit", "reason", "tokens"),
    [
        ([20, 21, END], (END, OTHER_END), 8, "stop", 3),
        ([20, 21, OTHER_END], (END, OTHER_END), 8, "stop", 3),
        ([20, 21, END], END, 8, "stop", 3),
        ([END], (END,), 8, "stop", 1),
        ([20, 21, END], (END,), 3, "stop", 3),  # the end token is the last one allowed
        ([20, END], (END,), 1, "length", 1),
        ([20, 21, END], (END,), 2, "length", 2),
        ([20, 21, 22, 23], None, 4, "length", 4),
        (LOOP, (END,), 200, "repetition", 64),
        (LOOP, (END,), 40, "length", 40),
    ],
)
def test_answer_has_its_finish_reason_and_warning(scripted, script, end, limit, reason, tokens):
    # given
    engine, _ = scripted(script, end=end)

    # when
    _, metrics = engine.ask("Who?", max_new_tokens=limit)

    # then
    assert (metrics["finish_reason"], metrics.answer_tokens) == (reason, tokens)
    assert metrics.warnings == finish_warnings(reason, tokens)
    assert bool(metrics.warnings) == (reason != "stop")
    assert metrics.exact


def test_warnings_state_tokens_and_remedy():
    assert finish_warnings("stop", 9) == ()
    assert "cut at 128 tokens (max_new_tokens)" in finish_warnings("length", 128)[0]
    assert "cut at 1 token (" in finish_warnings("length", 1)[0]
    assert "72 tokens" in finish_warnings("repetition", 72)[0]


def test_several_answers_have_the_worst_reason(scripted):
    # given
    assert worst_reason(FINISH_REASONS) == "repetition"
    complete = scripted([END])[0].ask("Who?")[1]
    parts = [dataclasses.replace(complete, finish_reason=reason) for reason in ("stop", "length", "stop")]

    # then
    assert combine_metrics(parts).finish_reason == "length"
    assert combine_metrics(parts[:1]).finish_reason == "stop"


# --- the repetition stop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("period", "beginning"), [(1, 0), (2, 1), (7, 17), (13, 1), (25, 17)])
def test_loop_is_stopped_and_its_tokens_begin_those_of_native(scripted, native_tokens, period, beginning):
    # given a beginning, then a loop
    script = [*range(60, 60 + beginning), *[20 + number % period for number in range(160)]]
    engine, head = scripted(script)
    frames = engine.snapshot()

    # when
    reports, control = [], AskControl()
    control.listener = SimpleNamespace(wants_text=True, report=reports.append)
    result = engine.answer(AskRequest("Who?", max_new_tokens=160), control)

    # then
    loop, metrics = max(64, 5 * period), result.metrics
    assert metrics.finish_reason == "repetition"
    assert loop <= metrics.answer_tokens <= beginning + loop + 8
    assert reports[-1].answer_tokens == metrics.answer_tokens
    head.rewind()
    tokens = native_tokens(engine, frames, 160)
    assert len(tokens) == 160
    assert result.answer == engine._text_of(tokens[: metrics.answer_tokens]).strip()


@pytest.fixture
def native_tokens():
    """Return a function that returns the tokens of transformers' own answer."""

    def answer(engine, frames, limit):
        output = native_generate(engine.model, engine.processor, frames, "Who?", max_new_tokens=limit)
        return output[0, native_prompt_length(engine.processor, engine.model, frames, "Who?") :].tolist()

    return answer


def test_loop_runs_to_the_limit_without_the_stop(scripted):
    # given
    engine, _ = scripted(LOOP, stop_repetition=False)

    # when
    _, metrics = engine.ask("Who?", max_new_tokens=200)

    # then
    assert (metrics.finish_reason, metrics.answer_tokens) == ("length", 200)


def test_loop_of_the_embedded_model_is_stopped(embedded_engine):
    # when
    text, metrics = embedded_engine().ask("What is on the left? " * 200)
    full = embedded_engine(stop_repetition=False).ask("What is on the left? " * 200)

    # then
    assert metrics.finish_reason == "repetition"
    assert full[1].finish_reason == "length"
    assert full[0].startswith(text)
    assert metrics.answer_tokens < full[1].answer_tokens == 128


@pytest.fixture
def embedded_engine():
    """Return a function that returns an engine with the embedded model and six images of a synthetic room."""

    def make(**arguments):
        engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", **arguments)
        scene = Scene.from_seed(HELD_OUT_SEEDS[0])
        for number in range(6):
            engine.add_frame(render(scene, 0.5 * number, 112, 140))
        return engine

    return make


def tokens_of(text):
    """Return one token for each word and punctuation mark."""
    words = text.replace(",", " , ").replace("|", " | ").replace("\n", " \n ").split(" ")
    return [hash(word) for word in words if word]


LEGITIMATE = {
    "a list": "red, red, blue, red, " * 3,
    "counting": ", ".join(str(number) for number in range(200)),
    "a table": "".join(f"| {row} | red | box | left |\n" for row in range(40)),
    "two alternating rows": "".join(f"| {row} | {'open' if row % 2 else 'closed'} |\n" for row in range(60)),
    "timestamps": "".join(f"at {second} s a person walks from left to right\n" for second in range(60)),
    "four equal lines": "a person walks from the left door to the right door and back to the window\n" * 4,
    "a rule": "-" + "- " * 50,
    "laughter": "ha " * 60,
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_legitimate_repetition_is_no_loop(name):
    tokens = tokens_of(LEGITIMATE[name])
    assert not any(ends_in_loop(tokens[:end]) for end in range(len(tokens) + 1))


@pytest.mark.parametrize(("period", "tokens"), [(1, 64), (5, 64), (12, 64), (13, 65), (20, 100), (40, 200)])
def test_loop_begins_at_five_repeats_and_64_tokens(period, tokens):
    # given
    answer = [-1, *(number % period for number in range(tokens))]

    # then
    assert ends_in_loop(answer)
    assert not ends_in_loop(answer[:-1])
    assert not ends_in_loop([*answer, -2])


def test_criterion_counts_the_answer_only():
    # given a prompt that repeats itself
    criterion = RepetitionStop(200)

    # then
    assert not criterion(torch.ones((1, 200 + 56), dtype=torch.int64), None).any()
    assert criterion(torch.ones((1, 200 + 64), dtype=torch.int64), None).all()
    assert criterion.stopped


# --- native answers, and questions that end early --------------------------------------------------------------------


@pytest.mark.parametrize(("script", "reason"), [([20, END], "stop"), ([20, 21, 22], "length"), ([20], "repetition")])
def test_native_answer_has_the_same_reason(scripted, script, reason):
    # given
    limit = 100 if reason == "repetition" else 2
    engine, head = scripted(script)

    # when
    native = native_answer(engine.model, engine.processor, engine.snapshot(), AskRequest("Who?", max_new_tokens=limit))
    head.rewind()
    text, metrics = engine.ask("Who?", max_new_tokens=limit)

    # then
    assert native.finish_reason == metrics.finish_reason == reason
    assert (native.text, native.answer_tokens) == (text, metrics.answer_tokens)


@pytest.mark.parametrize(("end", "error"), [("cancel", AskCancelledError), ("deadline", AskTimeoutError)])
def test_question_that_ends_during_a_loop_is_an_error(scripted, end, error):
    # given
    engine, _ = scripted(LOOP)
    control = AskControl()

    def stop_after_thirty(progress):
        if progress.answer_tokens >= 30:
            control.cancel() if end == "cancel" else setattr(control, "deadline", 0.0)

    control.listener = SimpleNamespace(wants_text=True, report=stop_after_thirty)

    # then
    with pytest.raises(error):
        engine.answer(AskRequest("Who?", max_new_tokens=400), control)
