"""Search for moments: questions, windows and ranking with a scripted engine; the demo's story with the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from fake_metrics import metrics_of_scores

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    NoFramesError,
    NonFiniteError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.moments import (
    MAX_MOMENTS,
    WINDOW_PAIRS,
    MomentSearch,
    does_fit,
    find_moments,
    questions_of,
    windows,
)
from delayed_vlm_ros.inference.yes_no import UNKNOWN, ScoreResult, YesNo
from delayed_vlm_ros.memory import Frame, FramePair, KeptPair
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import STORY_SEC, story_scene

YES, NO = YesNo(0.97, 0.99, 3.5, "Yes"), YesNo(0.02, 0.99, -3.9, "No")


def pair(number, at_sec):
    """Return a kept pair whose images have the pair's number as brightness."""
    image = np.full((28, 28, 3), number, dtype=np.uint8)
    first, second = (Frame(image, at_sec + 0.5 * one, 2 * number + one, 0.5, "") for one in (0, 1))
    return KeptPair(FramePair(number, first, second), in_star=True, in_stream=False)


def pairs_at(*times_sec):
    return tuple(pair(number, at_sec) for number, at_sec in enumerate(times_sec, 1))


@dataclass
class ScriptedEngine:
    """Answers by the ids of the window's pairs."""

    outcome: object
    warnings: tuple = ()
    asked: list = field(default_factory=list)

    def score(self, questions, *, frames, control):
        control.check()
        ids = tuple(kept.id for kept in frames)
        self.asked.append((tuple(questions), ids))
        scores = tuple(self.outcome(question, ids) for question in questions)
        return ScoreResult(scores, frames, metrics_of_scores(*self.warnings))


def says_yes_to(*wanted):
    """Return the outcomes of a model that sees the thing in some pairs when they are the last of a window."""
    return lambda _question, ids: YES if ids[-1] in wanted else NO


def found_ids(found):
    return [(tuple(kept.id for kept in moment.pairs), moment.best.id) for moment in found.moments]


# Questions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", ["Is it dark?", "  Is it\n dark? ", "暗いですか？", "هل الباب مفتوح؟"])
def test_description_that_ends_with_a_question_mark_is_the_question(question):
    assert questions_of(question) == (" ".join(question.split()),)


def test_other_descriptions_become_questions_with_their_words():
    assert questions_of(" a person {carries} a Tür. ") == (
        'Does the video show this: "a person {carries} a Tür"? Answer yes or no.',
        "Do you see a person {carries} a Tür?",
    )


def test_first_question_that_the_model_understands_is_asked_about_all_pairs():
    pairs = pairs_at(*range(0, 100, 10))

    def small_vocabulary(question, ids):
        return says_yes_to(3)(question, ids) if question.startswith("Do you see") else YesNo(0.9, 0.001, 2, "I")

    engine = ScriptedEngine(small_vocabulary)
    found = find_moments(engine, pairs, "a red box")
    assert found.question == "Do you see a red box?"
    assert found_ids(found)[0] == ((3,), 3)
    assert found.warnings == ()
    # the choice cost three windows, at the start, in the middle and at the end
    assert [ids for questions, ids in engine.asked if len(questions) > 1] == [(1,), (6,), (10,)]
    assert sorted(ids for questions, ids in engine.asked if len(questions) == 1) == [(kept.id,) for kept in pairs]


def test_model_that_understands_both_questions_is_asked_the_first_one():
    found = find_moments(ScriptedEngine(says_yes_to()), pairs_at(0, 10), "a red box")
    assert found.question == questions_of("a red box")[0]


# Windows and ranking --------------------------------------------------------------------------------------------------


def test_windows_have_up_to_three_pairs_that_follow_each_other_closely():
    pairs = pairs_at(0, 1, 2, 3, 60, 61)
    ids = [[tuple(kept.id for kept in window) for window in windows(pairs, index)] for index in range(len(pairs))]
    assert WINDOW_PAIRS == 3
    assert ids == [[(1,)], [(2,), (1, 2)], [(3,), (1, 2, 3)], [(4,), (2, 3, 4)], [(5,)], [(6,), (5, 6)]]


def test_event_that_only_a_longer_window_shows_is_found():
    engine = ScriptedEngine(lambda _question, ids: YES if ids == (2, 3, 4) else NO)
    found = find_moments(engine, pairs_at(0, 1, 2, 3, 4, 5), "Did the box move?")
    assert found_ids(found)[0] == ((4,), 4)
    assert found.moments[0].score == YES.p_yes


@pytest.mark.parametrize("alone", [NO, YesNo(0.99, 0.1, 4.0, "A")])  # clearly no; or neither yes nor no
def test_best_pair_shows_the_event_alone_and_is_not_the_last_one_of_a_window(alone):
    # given a thing in pairs 2 and 3, and windows that show it and end later
    outcomes = {(2,): YesNo(0.8, 0.99, 1.4, "Yes"), (3,): YesNo(0.9, 0.99, 2.2, "Yes"), (4,): alone, (5,): alone}
    engine = ScriptedEngine(lambda _question, ids: outcomes.get(ids, YES if {2, 3} & {*ids} else NO))
    found = find_moments(engine, pairs_at(0, 1, 2, 3, 4, 5), "is it there?")
    assert found_ids(found)[0] == ((2, 3, 4, 5), 3)
    assert found.moments[0].score == YES.p_yes


def test_window_decides_about_the_best_pair_if_no_pair_shows_the_event_alone():
    likely = {(1, 2, 3): 0.8, (2, 3, 4): 0.9}
    alone = {(3,): 0.4, (4,): 0.1}
    engine = ScriptedEngine(lambda _question, ids: YesNo({**likely, **alone}.get(ids, 0.0), 1.0, 0.0, ""))
    found = find_moments(engine, pairs_at(0, 1, 2, 3), "did it move?")
    assert found_ids(found)[0] == ((3, 4), 4)
    assert found.moments[0].score == 0.9


def test_moments_are_ranked_by_the_probability_of_yes():
    likely = {1: 0.3, 2: 0.9, 3: 0.1, 4: 0.95}
    engine = ScriptedEngine(lambda _question, ids: YesNo(likely[ids[-1]], 1.0, 0.0, ""))
    found = find_moments(engine, pairs_at(0, 100, 200, 300), "is it there?", max_moments=3)
    assert [(moment.best.id, moment.score) for moment in found.moments] == [(4, 0.95), (2, 0.9), (1, 0.3)]
    assert found.pairs_searched == 4


def test_successive_pairs_that_fit_are_one_moment_with_its_times():
    likely = {1: 0.1, 2: 0.7, 3: 0.9, 4: 0.8, 5: 0.6, 6: 0.2}
    engine = ScriptedEngine(lambda _question, ids: YesNo(likely[ids[-1]], 1.0, 0.0, ""))
    # pair 5 fits as well, but comes a minute later
    found = find_moments(engine, pairs_at(0, 4, 8, 12, 72, 76), "is it there?")
    assert found_ids(found)[:2] == [((2, 3, 4), 3), ((5,), 5)]
    assert found.moments[0].stamps == (4.0, 12.5)


@pytest.mark.parametrize(
    ("score", "of_key_frames", "of_a_line"),
    [(0.49, False, False), (0.5, True, False), (0.97, True, False), (1, True, True)],
)
def test_line_of_the_journal_fits_only_with_all_words(score, of_key_frames, of_a_line):
    assert does_fit(score, is_journal_line=False) is of_key_frames
    assert does_fit(score, is_journal_line=True) is of_a_line


def test_pairs_that_do_not_fit_are_moments_of_their_own():
    found = find_moments(ScriptedEngine(says_yes_to()), pairs_at(0, 1, 2), "is it there?")
    assert sorted(ids for ids, _ in found_ids(found)) == [(1,), (2,), (3,)]


def test_pair_without_a_clear_answer_separates_two_moments():
    engine = ScriptedEngine(lambda _question, ids: YesNo(0.9, 0.1, 2, "A") if ids[-1] == 2 else YES)
    found = find_moments(engine, pairs_at(0, 4, 8), "is it there?")
    assert sorted(ids for ids, _ in found_ids(found)) == [(1,), (3,)]


def test_question_that_comes_closest_is_asked_if_the_model_understands_none():
    engine = ScriptedEngine(lambda question, _ids: YesNo(0.9, 0.3 if question.startswith("Do you") else 0.1, 2, "A"))
    assert find_moments(engine, pairs_at(0, 10), "a red box").question == "Do you see a red box?"


def test_only_pairs_within_the_limits_are_asked_about():
    engine = ScriptedEngine(says_yes_to(2))
    found = find_moments(engine, pairs_at(0, 10, 20, 30), "is it there?", since=10.0, until=20.5)
    assert {ids for _, ids in engine.asked} == {(2,), (3,)}
    assert found.pairs_searched == 2


# What goes wrong quietly ----------------------------------------------------------------------------------------------


def test_unclear_pairs_are_left_out_and_counted():
    """A model that says something else has a probability of yes as well, of two answers that it would not give."""
    engine = ScriptedEngine(lambda _question, ids: YesNo(0.99, 0.001, 5, "The") if ids[-1] == 2 else NO)
    found = find_moments(engine, pairs_at(0, 10, 20), "is it there?")
    assert 2 not in [moment.best.id for moment in found.moments]
    assert found.pairs_searched == 3
    assert "does not answer yes or no about 1 of 3 key frames" in found.warnings[0]


def test_search_without_any_clear_answer_finds_nothing_and_says_why():
    strange = YesNo(0.9, 0.1, 2.0, "Perhaps")
    found = find_moments(ScriptedEngine(lambda *_: strange), pairs_at(0, 10), "a red box")
    assert found.moments == ()
    assert "does not answer yes or no about 2 of 2 key frames" in found.warnings[0]


def test_pairs_that_the_model_was_not_asked_about_are_not_blamed_on_the_words():
    """The demo model is not asked about images that it does not know; the engine's warning says so."""
    engine = ScriptedEngine(lambda _question, ids: UNKNOWN if ids[-1] == 1 else NO, warnings=("unlike",))
    found = find_moments(engine, pairs_at(0, 10, 20), "a red box")
    assert [moment.best.id for moment in found.moments] == [2, 3]
    assert found.warnings == ("the model was not asked about 1 of 3 key frames", "unlike")


def test_warnings_of_the_engine_are_passed_on_once():
    engine = ScriptedEngine(says_yes_to(1), warnings=("demo model",))
    assert find_moments(engine, pairs_at(0, 10), "a red box").warnings == ("demo model",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"description": ""}, "description is empty"),
        ({"description": " . "}, "description is empty"),
        ({"description": None}, "must be text"),
        ({"since": 5.0, "until": 4.0}, "'since'"),
        ({"since": float("nan")}, "'since'"),
        ({"max_moments": 0}, "'max_moments'"),
        ({"max_moments": MAX_MOMENTS + 1}, "'max_moments'"),
    ],
)
def test_invalid_arguments_are_refused_before_the_model_is_asked(arguments, words):
    engine = ScriptedEngine(says_yes_to())
    with pytest.raises(BadRequestError, match=words):
        find_moments(engine, pairs_at(0), **{"description": "a red box", **arguments})
    assert engine.asked == []


def test_empty_memory_and_empty_limits_are_errors():
    with pytest.raises(NoFramesError, match="memory is empty"):
        find_moments(ScriptedEngine(says_yes_to()), (), "a red box")
    with pytest.raises(NoFramesError, match="within the limits"):
        find_moments(ScriptedEngine(says_yes_to()), pairs_at(5), "a red box", since=100.0)


def test_error_of_the_engine_ends_the_search():
    def fail(*_):
        raise NonFiniteError("planted by the test")

    with pytest.raises(NonFiniteError):
        find_moments(ScriptedEngine(fail), pairs_at(0, 1), "a red box")


def test_deadline_and_cancellation_end_a_search_and_leave_what_was_found():
    control = AskControl()

    def cancelling(_question, ids):
        if ids == (3,):
            control.cancel()
        return YES

    search, engine = MomentSearch(pairs_at(0, 100, 200, 300), "is it there?"), ScriptedEngine(cancelling)
    search.step(engine, control)
    search.step(engine, control)
    with pytest.raises(AskCancelledError):
        search.step(engine, control)
    found = search.found("stopped early")
    assert (found.pairs_searched, search.pairs_left) == (2, 2)
    assert [ids for ids, _ in found_ids(found)] == [((3,)), ((4,))]
    assert found.warnings == ("stopped early",)
    with pytest.raises(AskTimeoutError):
        find_moments(ScriptedEngine(says_yes_to()), pairs_at(0), "is it there?", control=AskControl(deadline=0.0))


# With a model ---------------------------------------------------------------------------------------------------------


def test_embedded_model_finds_the_events_of_the_story():
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415  imports torch

    engine = DelayedBatchInferenceEngine.from_pretrained("demo", device="cpu", star_memory_size=40)
    scene = story_scene()
    for number in range(int(2 * STORY_SEC)):
        engine.add_frame(render(scene, 0.5 * number, 120, 160), 0.5 * number)
    before, _ = engine.ask("what was on the left at the start?")
    # when
    found = {name: find_moments(engine, engine.snapshot(), f"a {name}") for name in ("red box", "blue ball")}
    # then the box was there until 9 s, and the ball from 10 s to 18 s
    for name, (since, until) in {"red box": (0.0, 9.0), "blue ball": (10.0, 18.0)}.items():
        best = found[name].moments[0]
        assert best.score > 0.9
        assert since <= best.stamps[0] <= best.stamps[1] <= until, (name, best.stamps)
        assert found[name].question == f"Do you see a {name}?"
    # a search keeps the features and the prefix of the memory
    answer, metrics = engine.ask("what was on the left at the start?")
    assert (answer, metrics.frames_encoded) == (before, 0)
    assert metrics.encoding_latency is None
