"""The pairs that an answer rests on: ranked by the library's own attention, without a change of the answer."""

import copy
import time

import pytest
import torch

from delayed_vlm_ros.errors import AskCancelledError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local import evidence
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.native import native_inputs
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import STORY_QUESTIONS, STORY_SEC, story_scene

QUESTION = "What was there before the red one?"
STAMPS = [0.5 * number for number in range(9)]  # the last frame has no partner
LIBRARY_TOLERANCE = 1e-3  # of a logarithm, in float32


@pytest.fixture(scope="module")
def story():
    """An engine with the embedded model and the whole story in its memory."""
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    for number in range(int(2 * STORY_SEC)):
        engine.add_frame(render(story_scene(), 0.5 * number, 112, 140), 0.5 * number)
    return engine


def ranked(engine, question=QUESTION, control=None, **limits):
    return engine.answer(AskRequest(question, ranks_evidence=True, **limits), control)


def observed(engine, question):
    """Return the logarithms of the shares of attention that the recorder finds, of all attention layers."""
    layers = tuple(evidence._attention_layers(engine.model))
    prompt = build_prompt(engine.processor, question)
    layout = lay_out(engine.model.config, engine.processor, engine.snapshot())
    engine.precompute(prefill=True)  # only the question is recorded
    with evidence.AttentionRecorder(engine.model, evidence.HeadWeights(layers)) as recorder:
        engine.answer(AskRequest(question, max_new_tokens=1))
    return evidence.attention_log_shares(recorder, prompt, layout, engine.kept_prefix(), AskControl())


@torch.inference_mode()
def expected(engine, question, positions_of):
    """Return the same of one forward call of the library that returns its attention weights."""
    model = copy.deepcopy(engine.model)
    model.set_attn_implementation("eager")
    snapshot = engine.snapshot()
    inputs = native_inputs(engine.processor, snapshot, question)
    output = model(
        input_ids=inputs["input_ids"],
        pixel_values_videos=inputs["pixel_values_videos"],
        video_grid_thw=inputs["video_grid_thw"],
        position_ids=positions_of(model, inputs, snapshot),
        output_attentions=True,
    )
    places = (inputs["input_ids"][0] == model.config.video_token_id).nonzero().view(len(snapshot), -1)
    asked = len(build_prompt(engine.processor, question).after)
    weights = torch.stack([one[0] for one in output.attentions if one is not None])[:, :, -asked:]
    pairs = weights[..., places].sum(-1)
    return (pairs / pairs.sum(-1, keepdim=True)).log().clamp(min=evidence._SMALLEST_LOG_SHARE)


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_shares_of_attention_equal_those_of_the_library(load_tiny, make_engine, native, family):
    # given
    engine = make_engine(load_tiny(family), stamps=STAMPS)

    # when
    shares = observed(engine, QUESTION)

    # then
    reference = expected(engine, QUESTION, native.positions_of)
    assert shares.shape == reference.shape
    assert float((shares - reference).abs().max()) < LIBRARY_TOLERANCE
    assert float(shares.exp().std(-1).max()) > LIBRARY_TOLERANCE  # equal shares would prove nothing


@pytest.mark.parametrize("wrong", [lambda places: places - 1, lambda places: places.roll(1, 0)])
def test_comparison_detects_tokens_of_the_wrong_pair(load_tiny, make_engine, native, monkeypatch, wrong):
    # given
    engine = make_engine(load_tiny(), stamps=STAMPS)
    right = evidence.visual_token_indices
    monkeypatch.setattr(evidence, "visual_token_indices", lambda *arguments: wrong(right(*arguments)))

    # when, then
    difference = observed(engine, QUESTION) - expected(engine, QUESTION, native.positions_of)
    assert float(difference.abs().max()) > 10 * LIBRARY_TOLERANCE


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranking_does_not_change_the_answer(load_tiny, make_engine, native, family, dtype):
    # given
    tiny = load_tiny(family, dtype=dtype)
    plain, ranking = (make_engine(tiny, stamps=STAMPS) for _ in range(2))

    # when
    answer = plain.answer(AskRequest(QUESTION, max_new_tokens=8))
    found = ranked(ranking, max_new_tokens=8)

    # then
    assert answer.evidence == ()
    assert found.answer == answer.answer
    assert found.metrics.answer_tokens == answer.metrics.answer_tokens
    assert found.metrics.warnings == answer.metrics.warnings
    keys = [
        [one for layer in engine.kept_prefix().layers for one in native.state_of(layer)] for engine in (plain, ranking)
    ]
    assert all(torch.equal(*both) for both in zip(*keys, strict=True))
    relevance = [one.relevance for one in found.evidence]
    assert len(relevance) == 5
    assert relevance == sorted(relevance, reverse=True)
    assert 0 < sum(relevance) <= 1 + 1e-6
    assert ranked(ranking, max_new_tokens=8).evidence == found.evidence  # from cached state


def test_recorder_leaves_no_hooks(story):
    ranked(story)
    assert not any(module._forward_pre_hooks for module in story.model.modules())


@pytest.mark.parametrize(
    ("question", "first", "last"),
    [
        ("What was on the left at the start?", 0.0, 9.0),
        ("Was there a blue ball earlier?", 10.0, 18.0),
        ("How long ago did you see the blue ball?", 10.0, 18.0),
        ("What is on the right?", 20.0, STORY_SEC),
    ],
)
def test_best_pair_of_the_story_shows_what_the_question_is_about(story, question, first, last):
    best = ranked(story, question).evidence[0]
    assert first <= best.kept.stamps[0] <= best.kept.stamps[1] <= last


def test_answers_of_the_story_stay_right(story):
    assert [ranked(story, one.text).answer for one in STORY_QUESTIONS] == [one.answer for one in STORY_QUESTIONS]


def test_evidence_lies_within_the_time_limits_of_the_question(story):
    found = ranked(story, "What do you see?", since=4.0, until=9.0)
    assert found.evidence
    assert all(4.0 <= one.kept.stamps[0] <= one.kept.stamps[1] <= 9.0 for one in found.evidence)
    assert found.answer == story.answer(AskRequest("What do you see?", since=4.0, until=9.0)).answer


@pytest.mark.parametrize("frames", [1, 2])
def test_only_pair_is_the_whole_evidence(make_engine, frames):
    (only,) = ranked(make_engine(stamps=STAMPS[:frames])).evidence
    assert only.kept.frame_count == frames
    assert only.relevance == pytest.approx(1.0)


def test_long_question_and_long_answer_are_ranked(make_engine):
    found = ranked(make_engine(stamps=STAMPS), "What is there? " * 40, max_new_tokens=100, since=1.0)
    assert len(found.evidence) == 4 - 1 + 1
    assert sum(one.relevance for one in found.evidence) == pytest.approx(1.0)


def test_answer_of_one_token_is_ranked(story):
    found = ranked(story, "Was there a blue ball earlier?", max_new_tokens=1)
    assert found.metrics.answer_tokens == 1
    assert found.evidence


def test_unfamiliar_images_have_no_evidence(image):
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    for number in range(4):
        engine.add_frame(image(number, (112, 140)), 0.5 * number)
    assert ranked(engine).evidence == ()


def test_question_cancelled_while_pairs_are_ranked_ends_as_cancelled(make_engine, monkeypatch):
    # given
    engine, control = make_engine(stamps=STAMPS), AskControl()
    during_ranking(monkeypatch, control.cancel)

    # when, then
    with pytest.raises(AskCancelledError):
        ranked(engine, control=control)
    assert ranked(engine, control=AskControl()).answer == engine.answer(AskRequest(QUESTION)).answer


def during_ranking(monkeypatch, action):
    """Call a function before the attention of the first layer is computed."""
    compute = evidence.attention_log_shares

    def disturbed(*arguments):
        action()
        return compute(*arguments)

    monkeypatch.setattr(evidence, "attention_log_shares", disturbed)


def raise_error(error):
    raise error


@pytest.mark.parametrize(
    ("error", "warning"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "no evidence: the device had too little memory"),
        (AttributeError("no attribute 'q_proj'"), "no evidence: the pairs cannot be ranked (AttributeError"),
    ],
)
def test_failure_of_the_ranking_costs_the_evidence_only(make_engine, monkeypatch, error, warning):
    # given
    engine = make_engine(stamps=STAMPS)
    answer = engine.answer(AskRequest(QUESTION))
    during_ranking(monkeypatch, lambda: raise_error(error))

    # when
    found = ranked(engine)

    # then
    assert (found.answer, found.evidence) == (answer.answer, ())
    assert next(one for one in found.metrics.warnings if one not in answer.metrics.warnings).startswith(warning)
    assert engine.cached_bytes().kv > 0  # the encoded frames stay


def test_deadline_that_passes_during_the_ranking_costs_the_evidence_only(make_engine, monkeypatch):
    # given
    engine = make_engine(stamps=STAMPS)
    answer = engine.answer(AskRequest(QUESTION))
    control = AskControl(time.monotonic() + 60.0)
    during_ranking(monkeypatch, lambda: setattr(control, "deadline", time.monotonic() - 1.0))

    # when
    found = ranked(engine, control=control)

    # then
    assert (found.answer, found.evidence) == (answer.answer, ())
    assert any(one.startswith("no evidence: the deadline passed") for one in found.metrics.warnings)


def test_attention_that_is_not_a_number_is_no_evidence(make_engine, monkeypatch):
    # given
    engine = make_engine(stamps=STAMPS)
    compute = evidence._log_shares
    monkeypatch.setattr(evidence, "_log_shares", lambda *arguments: compute(*arguments) * torch.nan)

    # when
    found = ranked(engine)

    # then
    assert found.answer
    assert found.evidence == ()
    assert any("no evidence" in one and "NaN" in one for one in found.metrics.warnings)


def test_model_without_attention_layers_has_no_evidence(make_engine, monkeypatch):
    monkeypatch.setattr(evidence, "_attention_layers", lambda _: {})
    found = ranked(make_engine(stamps=STAMPS))
    assert found.answer
    assert found.evidence == ()
    assert any(one.startswith("no evidence: the model has no attention layers") for one in found.metrics.warnings)


@pytest.mark.parametrize(
    "fitted",
    [
        {"layers": [0]},
        {"layers": [99], **{group: [[0.1] * 4] for group in evidence.TOKEN_GROUPS}},
        {"layers": [0], **{group: [[0.1]] for group in evidence.TOKEN_GROUPS}},
        {"layers": [0], **{group: [[float("nan")] * 4] for group in evidence.TOKEN_GROUPS}},
        "middle",
    ],
)
def test_weights_that_do_not_fit_the_model_cost_the_evidence_only(story, monkeypatch, fitted):
    # given
    monkeypatch.setattr(story.model.config, evidence.FITTED_WEIGHTS, fitted)

    # when
    found = ranked(story, "What is on the right?")

    # then
    assert (found.answer, found.evidence) == ("a yellow cylinder", ())
    assert any(evidence.FITTED_WEIGHTS in one for one in found.metrics.warnings)


def test_second_half_of_the_layers_is_used_without_fitted_weights(load_tiny):
    assert evidence.head_weights(load_tiny(deep=True).model).layers == (2, 3, 4)
