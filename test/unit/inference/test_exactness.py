"""Invariant I1: caches change nothing, for any history of events.

``EXACT_HISTORIES`` sets the number of histories: 15 in ``make test``, 60 in ``test-slow``, 1000 in ``test-exact``.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor

import delayed_vlm_ros
from delayed_vlm_ros.errors import AskCancelledError, NoFramesError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local import budget as budget_module
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.inference.yes_no import AnswerForms

HISTORIES = int(os.environ.get("EXACT_HISTORIES", "15"))
QUESTIONS = ("Who?", "What is on the table?", "Where is the red box?")
SIZES = ((84, 112), (112, 84))
TOKENS = 4

additions = st.tuples(st.just("add"), st.integers(1, 5), st.integers(0, 7))
pauses = st.tuples(st.just("pause"), st.sampled_from([0.3, 3.0, 20.0]))
marks = st.tuples(st.just("mark"), st.integers(0, 4))
questions = st.tuples(st.just("ask"), st.sampled_from(QUESTIONS), st.sampled_from([None, None, 1.0, 4.0]))
scores = st.tuples(st.just("score"), st.sampled_from([None, 1.0, 2.0, 3.0]))
others = st.sampled_from(
    [
        ("reset",),
        ("other size",),
        ("reset cache",),
        ("precompute features",),
        ("precompute prefill",),
        *(("cancel", check) for check in (1, 2, 3)),
    ]
)
histories = st.lists(
    st.one_of(additions, additions, pauses, marks, questions, questions, scores, others), min_size=3, max_size=14
)


class EndsAtCheck(AskControl):
    """Is cancelled at the nth check."""

    def __init__(self, number):
        super().__init__()
        self._left = number

    def check(self):
        self._left -= 1
        if self._left == 0:
            self.cancel()
        super().check()


@pytest.fixture(scope="session")
def embedded():
    """The embedded checkpoint."""
    folder = Path(delayed_vlm_ros.__file__).parent / "demo" / "tiny_scene"
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    return SimpleNamespace(model=model, processor=AutoProcessor.from_pretrained(folder))


def _with_forms(engine):
    """Let any tokens mean yes and no: the tokenizers of random models have no words."""
    engine._answer_forms = AnswerForms(yes=(40, 41), no=(60, 61, 62))
    return engine


class History:
    """An engine that replays a history, and its comparison with a cold engine."""

    def __init__(self, make_engine, tiny, image, native, *, canonical):
        self._make = lambda **more: _with_forms(make_engine(tiny, canonical=canonical, **more))
        self.engine = self._make(star_memory_size=4, stream_window_size=6)
        self._image, self._native = image, native
        self._time, self._size = 0.0, SIZES[0]
        self.compared = 0

    def replay(self, name, *details):
        getattr(self, "_" + name.replace(" ", "_"))(*details)

    def _add(self, count, first):
        for number in range(count):
            self.engine.add_frame(self._image(first + number, self._size), self._time)
            self._time += 0.5

    def _pause(self, seconds):
        self._time += seconds

    def _mark(self, index):
        """Mark one pair, and unmark the one marked before."""
        memory = self.engine.frame_manager
        for kept in memory.snapshot():
            if kept.marked:
                memory.unmark(kept.id)
        for kept in memory.snapshot()[index : index + 1]:
            memory.mark(kept.id)

    def _reset(self):
        self.engine.reset()

    def _other_size(self):
        self.engine.reset()
        self._size = SIZES[1 - SIZES.index(self._size)]

    def _reset_cache(self):
        self.engine.reset_cache()

    def _precompute_features(self):
        self.engine.precompute(prefill=False)

    def _precompute_prefill(self):
        self.engine.precompute(prefill=True)

    def _cancel(self, check):
        if self.engine.snapshot():
            with suppress(AskCancelledError):
                self.engine.answer(AskRequest("Who?", max_new_tokens=2), EndsAtCheck(check))

    def _ask(self, question, last_sec):
        if not self.engine.snapshot():
            return
        cold = self._make(frame_manager=self.engine.frame_manager)
        limits = {} if last_sec is None else {"last_sec": last_sec}
        request = AskRequest(question, max_new_tokens=TOKENS, **limits)
        try:
            answer = cold.answer(request)
        except NoFramesError:  # the only pair began before the limit
            with pytest.raises(NoFramesError):
                self.engine.answer(request)
            return
        tokens = self.engine.processor.tokenizer(answer.answer or "no", add_special_tokens=False).input_ids[:TOKENS]
        cold.reset_cache()
        _, expected = self._native.forced(cold, question, tokens, **limits)
        _, actual = self._native.forced(self.engine, question, tokens, **limits)
        self.compared += 1
        self.compare(actual, expected)

    def _score(self, window_sec):
        if not self.engine.snapshot():
            return
        cold = self._make(frame_manager=self.engine.frame_manager)
        try:
            expected = cold.score(QUESTIONS, window_sec=window_sec)
        except NoFramesError:  # the only pair began before the window
            return
        self.compare_scores(self.engine.score(QUESTIONS, window_sec=window_sec), expected)

    def compare_scores(self, actual, expected):
        assert actual.scores == expected.scores
        assert actual.frames_used == expected.frames_used

    def compare(self, actual, expected):
        pairs = [(actual.logits, expected.logits), *zip(actual.kv, expected.kv, strict=True)]
        self.check_equal(pairs)
        assert actual.picks == expected.picks

    def check_equal(self, pairs):
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


class RoundedHistory(History):
    """A history compared up to rounding."""

    def compare(self, actual, expected):
        for mine, theirs in [(actual.logits, expected.logits), *zip(actual.kv, expected.kv, strict=True)]:
            assert float((mine - theirs).abs().max() / theirs.std()) <= 1e-9

    def compare_scores(self, actual, expected):
        for mine, theirs in zip(actual.scores, expected.scores, strict=True):
            assert abs(mine.margin - theirs.margin) <= 1e-6


MODELS = [
    "qwen2_vl float32",
    *(f"{family} {dtype}" for family in SUPPORTED_MODEL_TYPES[1:] for dtype in ("float32", "bfloat16")),
    "embedded",
]


@pytest.fixture(scope="session")
def model_named(load_tiny, embedded):
    def find(name):
        if name == "embedded":
            return embedded
        family, dtype = name.split()
        return load_tiny(family, dtype=getattr(torch, dtype))

    return find


def replay_history(kind, make_engine, tiny, image, native, history, chunk, *, canonical):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_module, "MAX_CHUNK_TOKENS", chunk)
        replayed = kind(make_engine, tiny, image, native, canonical=canonical)
        for event in [*history, ("ask", QUESTIONS[0], None)]:
            replayed.replay(*event)
        return replayed


EVERY_HISTORY = settings(
    max_examples=HISTORIES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", MODELS)
@EVERY_HISTORY
@given(history=histories, chunk=st.sampled_from([1, 24, 256]))
def test_warm_equals_cold_bitwise(make_engine, model_named, image, native, name, history, chunk):
    replay_history(History, make_engine, model_named(name), image, native, history, chunk, canonical=True)


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
@EVERY_HISTORY
@given(history=histories, chunk=st.sampled_from([1, 24, 256]))
def test_warm_equals_cold_up_to_rounding_without_canonical_steps(
    make_engine, load_tiny, image, native, family, history, chunk
):
    tiny = load_tiny(family, dtype=torch.float64)
    replay_history(RoundedHistory, make_engine, tiny, image, native, history, chunk, canonical=False)


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(make_engine, load_tiny):
    """An engine with counters of the patches and tokens that its model processes."""
    engine = make_engine(load_tiny(dtype=torch.float64), star_memory_size=0, stream_window_size=16)
    counts = SimpleNamespace(patches=0, tokens=0)

    def count_patches(_, arguments):
        counts.patches += len(arguments[0])

    def count_tokens(_, __, keywords):
        counts.tokens += keywords["inputs_embeds"].shape[1]

    hooks = [
        engine.model.model.visual.patch_embed.register_forward_pre_hook(count_patches),
        engine.model.model.language_model.register_forward_pre_hook(count_tokens, with_kwargs=True),
    ]
    yield engine, counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("chunk_pairs", [1, 2, 4])
def test_only_new_pairs_are_encoded_and_prefilled(counted, image, monkeypatch, chunk_pairs):
    # given six pairs and an answered question
    engine, counts = counted
    monkeypatch.setattr(budget_module, "MAX_CHUNK_TOKENS", 12 * chunk_pairs)
    for number in range(12):
        engine.add_frame(image(number), 0.5 * number)
    engine.ask("Who?", max_new_tokens=1)
    text = engine._cache._prefix.length - 6 * 12

    def costs(question="Who?"):
        counts.patches = counts.tokens = 0
        _, metrics = engine.ask(question, max_new_tokens=1)
        prompt = metrics.kv_cache_length - metrics.visual_tokens - text
        return counts.patches // 48, (counts.tokens - prompt) / 12

    # then
    assert costs("What is on the table?") == (0, 0)
    engine.add_frame(image(20), 10.0)
    engine.add_frame(image(21), 10.5)
    prefilled = 7 - 6 // chunk_pairs * chunk_pairs  # the seventh pair, and the earlier pairs of its chunk
    assert costs() == (1, prefilled)
    # and when the window slides, everything but the text follows the first change
    for number in range(4):
        engine.add_frame(image(22 + number), 11.0 + 0.5 * number)
    encoded, prefilled = costs()
    assert encoded == 2
    assert prefilled == pytest.approx(8 + text / 12)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_eviction_in_the_middle_reuses_the_pairs_before_it(load_tiny, make_engine, image, monkeypatch, family):
    # given a full memory whose oldest pair stays, so that the times in the text stay
    monkeypatch.setattr(budget_module, "MAX_CHUNK_TOKENS", 12)
    engine = make_engine(load_tiny(family), star_memory_size=8, stream_window_size=16)
    engine.add_frame(image(0), 0.0)
    engine.add_frame(image(1), 0.5)
    engine.frame_manager.mark(engine.snapshot()[0].id)
    reused = {"completed": [], "evicted": []}

    # when frames that complete a pair, and frames that evict one, alternate
    for number in range(2, 60):
        engine.add_frame(image(number), 0.5 * number)
        if number < 40:
            continue
        before = engine._cache._prefix
        kept = before.segments if before else ()
        _, metrics = engine.ask("Who?", max_new_tokens=1)
        now = engine._cache._prefix.segments
        if number > 40:
            changed = next((i for i, (a, b) in enumerate(zip(kept, now, strict=False)) if a != b), len(kept))
            kind = "evicted" if changed < len(kept) - 1 else "completed"
            reused[kind].append(metrics.kv_tokens_reused / sum(segment.tokens for segment in now[:changed]))

    # then
    assert min(reused["completed"]) > 0.5
    assert len(reused["evicted"]) > 3
    assert sum(reused["evicted"]) / len(reused["evicted"]) > 0.5


def test_provisional_pair_is_encoded_again_when_its_partner_arrives(counted, image):
    # given
    engine, counts = counted
    for number in range(5):
        engine.add_frame(image(number), 0.5 * number)
    engine.ask("Who?", max_new_tokens=1)

    # when
    engine.add_frame(image(5), 2.5)
    counts.patches = 0
    _, metrics = engine.ask("Who?", max_new_tokens=1)

    # then
    assert counts.patches == 48
    assert (metrics.frames_encoded, metrics.frames_reused) == (2, 4)


def test_question_copies_nothing_of_the_prefix(counted, image):
    # given
    engine, _ = counted
    for number in range(6):
        engine.add_frame(image(number), 0.5 * number)
    engine.ask("Who?", max_new_tokens=2)
    prefix = engine._cache._prefix
    buffers = [layer._key_buffer.data_ptr() for layer in prefix._attention]

    # when
    engine.ask("What is on the table?", max_new_tokens=2)

    # then
    assert [layer._key_buffer.data_ptr() for layer in prefix._attention] == buffers
    fork = prefix.fork()
    assert all(layer.keys.data_ptr() == buffer for layer, buffer in zip(fork.layers, buffers, strict=True))
