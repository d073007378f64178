"""Windows of the newest frames: their encoding is kept between checks, changes no outcome, and evicts no other."""

from itertools import pairwise

import pytest
import torch

from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.inference.local import engine as engine_module
from delayed_vlm_ros.inference.local.models.adapters.registry import SUPPORTED_MODEL_TYPES
from delayed_vlm_ros.inference.request import WINDOW_STRETCH, AskRequest, window_start
from delayed_vlm_ros.inference.yes_no import AnswerForms

QUESTIONS = ["Is the door open?", "Is a person in the room?"]
STAMPS = [0.5 * number for number in range(12)]
WINDOW_SEC = 2.0


@pytest.fixture(autouse=True)
def random_forms(monkeypatch):
    """The tokenizers of random models have no words: other tokens mean yes and no."""
    monkeypatch.setattr(engine_module, "answer_forms", lambda _: AnswerForms(yes=(40, 41), no=(60, 61, 62)))


@pytest.fixture
def prefixes(monkeypatch):
    """Every prefix that an engine has used since, with the tokens that were cached before."""
    used = []
    prefix = engine_module.EncodingCache.prefix

    def recorded(*arguments, **options):
        used.append(prefix(*arguments, **options))
        return used[-1]

    monkeypatch.setattr(engine_module.EncodingCache, "prefix", recorded)
    return used


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moving_window_has_the_outcomes_of_a_cold_one_bitwise(load_tiny, make_engine, image, family, dtype):
    warm = make_engine(load_tiny(family, dtype=dtype), stamps=STAMPS[:6])
    for number, stamp in enumerate(STAMPS[6:], start=6):
        warm.add_frame(image(number), stamp)
        cold = make_engine(load_tiny(family, dtype=dtype), stamps=STAMPS[: number + 1])
        scored, expected = (engine.score(QUESTIONS, window_sec=WINDOW_SEC) for engine in (warm, cold))
        assert scored.scores == expected.scores
        if number == 8:
            warm.ask("What?", max_new_tokens=2)


def test_window_is_at_least_as_long_as_asked_and_its_start_moves_in_steps(load_tiny, make_engine, image):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS[:1])
    starts = []
    for number, stamp in enumerate(STAMPS[1:], start=1):
        engine.add_frame(image(number), stamp)
        used = engine.score(QUESTIONS[:1], window_sec=WINDOW_SEC).frames_used
        first, last = used[0].stamps[0], used[-1].stamps[1]
        assert last - first <= WINDOW_STRETCH * WINDOW_SEC
        assert first == 0.0 or last - first >= WINDOW_SEC - 1.0  # a pair lies inside or outside as a whole
        starts.append(first)
    moves = [later - earlier for earlier, later in pairwise(starts) if later != earlier]
    assert moves
    assert set(moves) == {1.0}


def test_window_is_encoded_once_until_its_start_moves(load_tiny, make_engine, image, prefixes):
    # up to 4.0 s, so the window starts at 2.0 s; canonical steps would read all of these small pairs at once
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS[:9], canonical=False)
    engine.score(QUESTIONS, window_sec=WINDOW_SEC)
    engine.score(QUESTIONS, window_sec=WINDOW_SEC)
    assert prefixes[-1].was_complete
    engine.add_frame(image(9), 4.5)  # completes the last pair
    engine.score(QUESTIONS, window_sec=WINDOW_SEC)
    assert prefixes[-1].new_pairs == (len(prefixes[-1].cache.segments) - 2,)
    assert prefixes[-1].tokens_reused > 0


def test_windows_leave_the_prefix_of_other_questions_alone(load_tiny, make_engine, prefixes):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    engine.ask("What?", max_new_tokens=2)
    for window_sec in (1.0, 2.0, 3.0):
        engine.score(QUESTIONS, window_sec=window_sec)
    engine.ask("What else?", max_new_tokens=2)
    assert prefixes[-1].was_complete


def test_two_windows_are_kept_and_dropped_on_request(load_tiny, make_engine, prefixes):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    engine.score(QUESTIONS, window_sec=1.0)
    one = engine.cached_bytes().kv
    engine.score(QUESTIONS, window_sec=2.0)
    two = engine.cached_bytes().kv
    assert two > one
    engine.score(QUESTIONS, window_sec=3.0)
    engine.score(QUESTIONS, window_sec=2.0)
    assert prefixes[-1].was_complete
    engine.score(QUESTIONS, window_sec=1.0)  # was replaced by the third
    assert not prefixes[-1].was_complete
    engine.keep_windows({1.0})
    assert engine.cached_bytes().kv == one
    engine.keep_windows(())
    assert engine.cached_bytes().kv == 0


def test_tight_budget_evicts_windows_before_the_prefix(load_tiny, make_engine, prefixes):
    tiny = load_tiny("qwen2_5_vl")
    unlimited = make_engine(tiny, stamps=STAMPS)
    unlimited.ask("What?", max_new_tokens=2)
    kept = unlimited.cached_bytes()
    engine = make_engine(tiny, stamps=STAMPS, max_pixels=84 * 112, memory_budget_mb=1000)
    budget = engine._budget
    limit = budget.pixels + kept.features + kept.kv
    object.__setattr__(budget, "total", limit)
    engine.ask("What?", max_new_tokens=2)
    engine.score(QUESTIONS, window_sec=WINDOW_SEC)
    assert engine.cached_bytes() == kept
    engine.ask("What else?", max_new_tokens=2)
    assert prefixes[-1].was_complete


def test_reset_drops_windows(load_tiny, make_engine):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    engine.score(QUESTIONS, window_sec=WINDOW_SEC)
    engine.reset_cache()
    assert engine.cached_bytes().kv == 0


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan"), float("inf")])
def test_window_without_a_length_is_refused(load_tiny, make_engine, length):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    with pytest.raises(BadRequestError, match="window_sec"):
        engine.score(QUESTIONS, window_sec=length)


def test_window_before_its_first_step_has_no_start():
    assert window_start((), 2.0) is None


@pytest.mark.parametrize("family", SUPPORTED_MODEL_TYPES)
def test_given_frames_are_used_instead_of_the_kept_ones_and_leave_the_cache_as_it_was(load_tiny, make_engine, family):
    other = make_engine(load_tiny(family), stamps=STAMPS[:6])
    frames = other.snapshot()[1:]  # of another memory, as evicted pairs are
    engine = make_engine(load_tiny(family), stamps=STAMPS[6:])
    answer, _ = engine.ask("What?", max_new_tokens=4)
    cached = engine.cached_bytes()
    result = engine.answer(AskRequest("What?", max_new_tokens=4), frames=frames)
    assert result.frames_used == frames
    assert result.answer == other.answer(AskRequest("What?", max_new_tokens=4, since=STAMPS[2])).answer
    assert engine.score(QUESTIONS, frames=frames).scores == other.score(QUESTIONS, since=STAMPS[2]).scores
    assert engine.cached_bytes() == cached
    again, metrics = engine.ask("What?", max_new_tokens=4)
    assert again == answer
    assert metrics.encoding_latency is None  # everything was cached


def test_given_frames_are_limited_in_time_and_may_not_be_empty(load_tiny, make_engine):
    engine = make_engine(load_tiny("qwen2_5_vl"), stamps=STAMPS)
    kept = engine.snapshot()
    result = engine.answer(AskRequest("What?", max_new_tokens=1, until=STAMPS[5]), frames=kept[1:])
    assert result.frames_used == kept[1:3]
    for ask in (lambda: engine.answer(AskRequest("What?"), frames=()), lambda: engine.score(QUESTIONS, frames=())):
        with pytest.raises(NoFramesError):
            ask()
