"""Invariant I2: on the kept frames, the engine equals the library's own one-shot video inference."""

from __future__ import annotations

import math

import pytest
import torch

from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES

EVEN_STAMPS = [0.5 * number for number in range(8)]
UNEVEN_STAMPS = [3.0, 3.4, 4.9, 5.0, 9.3, 9.9, 17.02, 17.5]
JITTERED_STAMPS = [100.001, 100.499, 101.002, 101.497, 101.998, 102.503, 103.001, 103.5]
DAYS_APART_STAMPS = [0.0, 0.5, 20_000.0, 20_000.5, 20_001.0, 20_001.5, 2_600_000.0, 2_600_000.5]

LANDSCAPE, PORTRAIT, WIDE = (84, 112), (140, 56), (56, 196)

CASES = {
    "even stamps, landscape": (0, EVEN_STAMPS, LANDSCAPE),
    "uneven stamps, portrait": (1, UNEVEN_STAMPS, PORTRAIT),
    "jittered stamps, wide": (2, JITTERED_STAMPS, WIDE),
    "key frames days apart": (0, DAYS_APART_STAMPS, LANDSCAPE),
}
FAMILIES = SUPPORTED_MODEL_TYPES


@pytest.mark.parametrize(
    ("dtype", "case"),
    [*((torch.float64, case) for case in CASES), (torch.float32, "uneven stamps, portrait")],
    ids=lambda value: str(value).removeprefix("torch."),
)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_native_over_a_history(load_tiny, make_engine, image, compare, tolerance, family, dtype, case):
    # given
    seed, stamps, size = CASES[case]
    engine = make_engine(load_tiny(family, seed=seed, dtype=dtype), stamps=stamps[:6], size=size)
    errors = {}

    def ask(stage, question, *, encodes, **limits):
        outcome = compare(engine, question, **limits)
        errors[stage] = outcome.comparison
        assert outcome.metrics.frames_encoded == encodes, stage
        return outcome

    # when
    ask("cold", "What is on the table?", encodes=6)
    ask("second question, cached prefix", "Is the door open?\nSay yes or no.", encodes=0)
    engine.add_frame(image(6, size), stamps[6])
    ask("one frame more: an odd number", "What is on the table?", encodes=1)
    ask("the odd number again", "Who?", encodes=0)
    engine.add_frame(image(7, size), stamps[7])
    ask("its partner has arrived", "Who?", encodes=2)
    late = engine.snapshot()[2:]
    ask("limited in time", "Who?", encodes=0, since=stamps[4], expect_frames=late)
    ask("unlimited again", "Where is the cup?", encodes=0)
    engine.reset()
    for number in range(3):
        engine.add_frame(image(50 + number, size), stamps[number])
    ask("after reset", "What is on the table?", encodes=3)

    # then
    different = {stage: error for stage, error in errors.items() if error.verdict(tolerance(family, dtype)) != "equal"}
    assert not different


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_native_in_a_deeper_model_with_several_vision_windows(
    load_tiny, make_engine, compare, tolerance, family
):
    # given
    tiny = load_tiny(family, dtype=torch.float64, deep=True)
    engine = make_engine(tiny, stamps=[*UNEVEN_STAMPS, 30.0], size=(196, 140))

    # when
    outcomes = [compare(engine, question) for question in ("What is on the table?", "Who?")]

    # then
    height, width, _ = engine.snapshot()[0].frames[0].shape
    patch = engine.model.config.vision_config.patch_size
    assert outcomes[0].metrics.video_grid_thw == (5, height // patch, width // patch)
    assert [outcome.comparison.verdict(tolerance(family, torch.float64)) for outcome in outcomes] == ["equal", "equal"]


@pytest.mark.parametrize("family", FAMILIES)
def test_sliding_window_and_key_frames_equal_native(load_tiny, make_engine, image, compare, tolerance, family):
    # given a memory that has evicted: old pairs of Star precede new ones of Stream, with a gap in time
    engine = make_engine(load_tiny(family, dtype=torch.float64), star_memory_size=4, stream_window_size=4)
    comparisons = []

    # when
    for number in range(13):
        engine.add_frame(image(number), 0.5 * number)
        if number % 4 == 0:
            comparisons.append(compare(engine, "What changed?").comparison)

    # then
    assert engine.frame_manager.get_statistics()["compression_ratio"] > 1
    assert [comparison.verdict(tolerance(family, torch.float64)) for comparison in comparisons] == ["equal"] * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_free_answer_equals_native_text(load_tiny, make_engine, native, family):
    # given
    engine = make_engine(load_tiny(family, seed=3), stamps=[*EVEN_STAMPS, 9.0])
    questions = ["What is on the table?", "Who?", "¿Dónde está 杯子?"]

    # when
    texts = [engine.ask(question, max_new_tokens=24)[0] for question in questions]

    # then
    expected = [native.trace(engine.model, engine.processor, engine.snapshot(), question, 24) for question in questions]
    assert texts == [trace.text for trace in expected]
    assert len(set(texts)) > 1  # the answer depends on the question


# Qwen2 checkpoints sample at so low a temperature that the best token always wins. The others really sample, but the
# engine is greedy by default.
REAL_GENERATION = {
    "qwen2_vl": {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.0},
    "qwen2_5_vl": {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05},
    "qwen3_vl": {"do_sample": False, "repetition_penalty": 1.0},
    "qwen3_5": {"do_sample": False, "repetition_penalty": 1.0},
}


@pytest.mark.parametrize("penalty", [None, 1.8])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_config_of_the_checkpoint_applies(load_tiny, make_engine, native, monkeypatch, family, penalty):
    # given
    tiny = load_tiny(family)
    for name, value in {**REAL_GENERATION[family], **({"repetition_penalty": penalty} if penalty else {})}.items():
        monkeypatch.setattr(tiny.model.generation_config, name, value)
    engine = make_engine(tiny, stamps=EVEN_STAMPS)
    question = "aaaa qqqq HHHH?"  # a penalty that counts the question's tokens avoids these

    # when
    texts = [engine.ask(question, max_new_tokens=24)[0] for _ in range(2)]

    # then
    expected = native.trace(tiny.model, tiny.processor, engine.snapshot(), question, 24).text
    assert texts == [expected, expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_of_earlier_calls_have_no_effect(load_tiny, make_engine, compare, tolerance, monkeypatch, family):
    # given
    tiny = load_tiny(family, dtype=torch.float64)
    engine = make_engine(tiny, stamps=UNEVEN_STAMPS)
    engine.ask("Who?", max_new_tokens=8)
    monkeypatch.setattr(tiny.model.model, "rope_deltas", torch.tensor([[1234]]))

    # when
    outcome = compare(engine, "Where?")

    # then
    assert outcome.comparison.verdict(tolerance(family, torch.float64)) == "equal"


@pytest.mark.parametrize("family", FAMILIES)
def test_long_gaps_are_compressed_with_a_warning(load_tiny, make_engine, compare, tolerance, family):
    # given
    engine = make_engine(load_tiny(family, dtype=torch.float64), stamps=DAYS_APART_STAMPS)

    # when
    outcome = compare(engine, "Who?")

    # then Qwen2.5-VL compresses and warns; Qwen2-VL counts pairs, and the others write the time
    assert outcome.comparison.verdict(tolerance(family, torch.float64)) == "equal"
    compressed = family == "qwen2_5_vl"
    assert any("compressed time" in warning for warning in outcome.metrics.warnings) == compressed
    is_text = family in ("qwen3_vl", "qwen3_5")
    assert any("long time" in warning for warning in outcome.metrics.warnings) == is_text


def test_new_pair_after_long_gaps_is_the_only_one_prefilled(load_tiny, make_engine, image, compare):
    # given key frames days apart, and chunks of one pair
    engine = make_engine(load_tiny(dtype=torch.float64), stamps=DAYS_APART_STAMPS, canonical=False)
    before = engine.ask("Who?", max_new_tokens=8)[1]
    # when
    for number in range(2):
        engine.add_frame(image(20 + number), 2_600_001.0 + number / 2)
    outcome = compare(engine, "Who?")
    # then
    assert outcome.comparison.verdict(1e-9) == "equal"
    assert outcome.metrics.frames_encoded == 2
    assert outcome.metrics.kv_tokens_reused >= before.visual_tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_error_is_no_larger_than_natives_own(load_tiny, make_engine, native, family):
    # given one set of weights, in bfloat16 and with the same values in float32
    squares = {"engine": [], "native": []}
    for seed in range(3):
        small = load_tiny(family, seed=seed, dtype=torch.bfloat16)
        exact = load_tiny(family, seed=seed, dtype=torch.bfloat16, upcast=True)
        engine = make_engine(small, stamps=UNEVEN_STAMPS[: 5 + seed])

        for question in ("What is on the table?", "Who is there, and where?", "Is it dark?"):
            # when
            reference = native.trace(exact.model, exact.processor, engine.snapshot(), question)
            _, forced = native.forced(engine, question, reference.tokens)
            own, _ = native.one_shot(small.model, small.processor, engine.snapshot(), question, reference.tokens)
            scale = reference.logits.std()
            squares["engine"].append((((forced.logits.float() - reference.logits) / scale) ** 2).mean())
            squares["native"].append((((own.float() - reference.logits) / scale) ** 2).mean())

    # then, in the root mean square over all logits of all questions
    engine_error, native_error = (math.sqrt(torch.stack(squares[who]).mean()) for who in ("engine", "native"))
    assert 0 < native_error < 0.2
    assert engine_error <= 1.05 * native_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_cold_and_cached_prefix_agree_bitwise(load_tiny, make_engine, native, family, dtype):
    # given
    engine = make_engine(load_tiny(family, dtype=dtype), stamps=UNEVEN_STAMPS)
    tokens = native.trace(engine.model, engine.processor, engine.snapshot(), "Who?").tokens

    # when
    _, cold = native.forced(engine, "Who?", tokens)
    result, warm = native.forced(engine, "Who?", tokens)

    # then
    assert result.metrics.frames_encoded == 0
    assert torch.equal(cold.logits, warm.logits)
    assert all(torch.equal(*both) for both in zip(cold.kv, warm.kv, strict=True))
