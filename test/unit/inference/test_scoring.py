"""Yes/no questions: packed after one prefix, each has the outcome that it has alone in the unmodified library."""

import math

import pytest
import torch

from delayed_vlm_ros.errors import AskCancelledError, BadRequestError, NoFramesError, NonFiniteError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local import engine as engine_module
from delayed_vlm_ros.inference.local import scoring
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.yes_no import AnswerForms, answer_forms, yes_no
from delayed_vlm_ros.scenes import HELD_OUT_SEEDS
from delayed_vlm_ros.scenes.render import render
from delayed_vlm_ros.scenes.scene import Scene

QUESTIONS = ["Is the door open?", "Is a person in the room, or was one there before?", "Red?", "Is it dark?"]
FORMS = AnswerForms(yes=(40, 41), no=(60, 61, 62))
STAMPS = [0.5 * number for number in range(7)]  # the last frame has no partner


@pytest.fixture
def random_forms(monkeypatch):
    """The tokenizers of random models have no words: other tokens mean yes and no."""
    monkeypatch.setattr(engine_module, "answer_forms", lambda _: FORMS)


@pytest.fixture(scope="module")
def native_margin(native):
    """Return a function that returns margin, mass, first token and the logits' spread of the unmodified library."""

    def measure(engine, question, snapshot=None):
        frames = snapshot or engine.snapshot()
        return outcome(native.one_shot(engine.model, engine.processor, frames, question, [0])[0])

    return measure


@pytest.fixture(scope="module")
def embedded_scene():
    """An engine with the embedded model and images of a synthetic room."""
    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu")
    scene = Scene.from_seed(HELD_OUT_SEEDS[0])
    for number in range(6):
        engine.add_frame(render(scene, 0.5 * number, 112, 140))
    return engine


def outcome(logits):
    log_p = logits[0].double().log_softmax(-1)
    yes, no = log_p[list(FORMS.yes)].logsumexp(0), log_p[list(FORMS.no)].logsumexp(0)
    return float(yes - no), float(yes.exp() + no.exp()), int(log_p.argmax()), float(logits.std())


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_scores_equal_those_of_the_library_alone(load_tiny, make_engine, random_forms, native_margin, family):
    # given
    engine = make_engine(load_tiny(family), stamps=STAMPS)
    # when
    result = engine.score(QUESTIONS)
    # then
    tolerance = 2e-4 if family == "qwen3_5" else 1e-5
    for question, score in zip(QUESTIONS, result.scores, strict=True):
        margin, mass, first, spread = native_margin(engine, question)
        assert abs(score.margin - margin) <= tolerance * spread, question
        assert score.p_yes == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-4)
        assert score.mass == pytest.approx(mass, rel=1e-3)
        assert score.first_token == engine.processor.tokenizer.decode([first]).strip()
    assert result.frames_used == engine.snapshot()


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_warm_scores_equal_cold_ones_bitwise(load_tiny, make_engine, image, random_forms, family, dtype):
    warm = make_engine(load_tiny(family, dtype=dtype), stamps=STAMPS)
    warm.score(QUESTIONS)
    warm.ask("What?", max_new_tokens=3)
    assert warm.score(QUESTIONS).scores == warm.score(QUESTIONS).scores
    warm.add_frame(image(7), 3.5)
    cold = make_engine(load_tiny(family, dtype=dtype), stamps=[*STAMPS, 3.5])
    assert warm.score(QUESTIONS).scores == cold.score(QUESTIONS).scores


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_packing_adds_no_error_in_bfloat16(load_tiny, make_engine, random_forms, family):
    """Rounding differs from question to question, so the errors of many are compared."""
    exact, rounded = (
        make_engine(load_tiny(family, dtype=dtype), stamps=STAMPS) for dtype in (torch.float32, torch.bfloat16)
    )
    questions = [f"Is there a {colour} {shape}?" for colour in ("red", "blue", "grey", "green") for shape in "abcdef"]
    expected = [score.margin for score in exact.score(questions).scores]
    packed = [score.margin for score in rounded.score(questions).scores]
    alone = [rounded.score([question]).scores[0].margin for question in questions]

    def error(margins):
        return math.sqrt(sum((one - other) ** 2 for one, other in zip(margins, expected, strict=True)) / len(expected))

    assert error(alone) > 0
    assert error(packed) <= 1.25 * error(alone)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packing_changes_no_outcome_for_any_size_of_a_pass(
    load_tiny, make_engine, random_forms, monkeypatch, attention
):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    monkeypatch.setattr(engine.model.config, "_attn_implementation", attention)
    packed = engine.score(QUESTIONS).scores
    for limit in (1, 60):
        monkeypatch.setattr(scoring, "_MAX_PACKED_TOKENS", limit)
        for one, other in zip(engine.score(QUESTIONS).scores, packed, strict=True):
            assert one.margin == pytest.approx(other.margin, abs=1e-5)


def test_scores_change_no_answer_and_keep_the_prefix(load_tiny, make_engine, random_forms):
    engine, other = (make_engine(load_tiny("qwen3_5"), stamps=STAMPS) for _ in range(2))
    engine.ask("What?", max_new_tokens=4)
    engine.score(QUESTIONS)
    answer, metrics = engine.ask("What else?", max_new_tokens=8)
    assert metrics.kv_tokens_reused > 0
    assert metrics.frames_encoded == 0
    assert answer == other.ask("What else?", max_new_tokens=8)[0]


def test_limits_choose_the_frames(load_tiny, make_engine, random_forms, native_margin):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    result = engine.score(QUESTIONS[:1], last_sec=1.0)
    assert [kept.stamps for kept in result.frames_used] == [kept.stamps for kept in engine.snapshot()[-2:]]
    margin, *_, spread = native_margin(engine, QUESTIONS[0], result.frames_used)
    assert abs(result.scores[0].margin - margin) <= 1e-5 * spread


def test_embedded_model_is_sure_of_its_words_and_unclear_about_other_questions(embedded_scene):
    result = embedded_scene.score(["Is there a red box?", "What colour is the box?"])
    assert result.scores[0].is_clear
    assert not result.scores[1].is_clear
    assert result.scores[1].first_token not in ("yes", "no")


def test_bad_questions_are_refused_before_anything_is_encoded(load_tiny, make_engine, random_forms):
    engine = make_engine(load_tiny("qwen2_5_vl"))
    with pytest.raises(BadRequestError, match="list of texts"):
        engine.score("Is it dark?")
    with pytest.raises(BadRequestError, match="at least one"):
        engine.score([])
    with pytest.raises(BadRequestError):
        engine.score(["Is it dark?", " "])
    with pytest.raises(NoFramesError):
        engine.score(["Is it dark?"])


def test_tokenizer_without_words_for_yes_and_no_is_refused(load_tiny, make_engine):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    with pytest.raises(BadRequestError, match="yes and no"):
        engine.score(["Is it dark?"])


def test_cancelled_scores_end_and_keep_the_frames(load_tiny, make_engine, random_forms):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    control = AskControl()
    control.cancel()
    with pytest.raises(AskCancelledError):
        engine.score(QUESTIONS, control=control)
    assert len(engine.score(QUESTIONS).scores) == len(QUESTIONS)


def test_shortage_of_memory_leaves_the_scores_unchanged(load_tiny, make_engine, random_forms, monkeypatch):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    expected = engine.score(QUESTIONS)
    forward, calls = engine.model.lm_head.forward, []

    def short_once(hidden):
        calls.append(hidden)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(hidden)

    monkeypatch.setattr(engine.model.lm_head, "forward", short_once)
    result = engine.score(QUESTIONS)
    assert result.scores == expected.scores
    assert result.is_complete
    assert len(result.metrics.warnings) == len(expected.metrics.warnings) + 1
    assert "caches" in result.metrics.warnings[-1]


def test_nan_in_the_logits_is_an_error(load_tiny, make_engine, random_forms, monkeypatch):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    head = engine.model.lm_head.forward
    monkeypatch.setattr(engine.model.lm_head, "forward", lambda hidden: head(hidden) * math.nan)
    with pytest.raises(NonFiniteError):
        engine.score(QUESTIONS)


def test_forms_are_single_tokens_in_several_spellings_and_never_both():
    vocabulary = {"yes": 1, " yes": 2, "Yes": 3, "no": 4, "No": 5, "ja": 6, "NEIN": 7, "sí": 8}
    forms = answer_forms(lambda text: [vocabulary[text]] if text in vocabulary else [90, 91])
    assert forms == AnswerForms(yes=(1, 2, 3, 6, 8), no=(4, 5, 7))
    with pytest.raises(BadRequestError):
        answer_forms(lambda _: [0])


def test_probabilities_are_stable_for_extreme_margins():
    assert yes_no(-0.0, -2000.0, "yes").p_yes == 1.0
    assert yes_no(-2000.0, -0.0, "no").p_yes == 0.0
    assert yes_no(-50.0, -0.0, "no").p_yes == pytest.approx(math.exp(-50))
    assert yes_no(math.log(0.3), math.log(0.1), "yes").p_yes == pytest.approx(0.75)
    assert not yes_no(math.log(0.3), math.log(0.1), "the").is_clear
