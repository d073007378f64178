"""Questions about a sequence of frame pairs, with their correct answers.

Answers are balanced as far as a story allows: yes and no are equally likely, most "nothing" answers are skipped, and an
object that was never present resembles one that was. A question is drawn only where it has one fair answer, as
``truth`` defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from delayed_vlm_ros.scenes import answers
from delayed_vlm_ros.scenes.phrasing import PLURALS, question_text, strange_question
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from delayed_vlm_ros.scenes.truth import History, Story, names_seen

NOT_UNDERSTOOD = "I don't understand the question"
_TRIES = 6
_EMPTY_SHARE = 0.25  # share of the answers "nothing", "I don't see one" and similar ones that is kept


@dataclass(frozen=True)
class SceneQuestion:
    """A question with its correct answer.

    Attributes:
        kind: Kind of question, one of ``KINDS`` or ``SENTENCE_KINDS``.
        text: Text of the question.
        answer: Correct answer.
    """

    kind: str
    text: str
    answer: str


@dataclass(frozen=True)
class TruthfulQuestion:
    """A question whose correct answer is also known for observers that saw less.

    Attributes:
        question: The question, with the correct answer for an observer of the whole story.
        answer_from: Function that returns the correct answer for an observer of this history; None where none is fair.
        names: What the question names, without synonyms: ``red box``, ``red thing``, ``box`` or ``person``.
    """

    question: SceneQuestion
    answer_from: Callable[[History], str | None]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Draft:
    """A question before it is phrased: its phrasing, the values of the placeholders, and the answer's function."""

    phrasing: str
    names: dict[str, str]
    answer: Callable[[History], str | None]


def draw_question(kind: str, story: Story, random: np.random.Generator) -> SceneQuestion | None:
    """Draw a question about a sequence of pairs.

    Args:
        kind: Kind of question, one of ``KINDS`` or ``SENTENCE_KINDS``.
        story: Ground truth of the pairs.
        random: Random generator.

    Returns:
        The question; None if no fair question of this kind was found.
    """
    if kind == "unclear":
        return SceneQuestion(kind, strange_question(random), NOT_UNDERSTOOD)
    drawn = draw_truthful_question(kind, story, random)
    return None if drawn is None else drawn.question


def draw_truthful_question(
    kind: str, story: Story, random: np.random.Generator, glimpse: History | None = None
) -> TruthfulQuestion | None:
    """Draw a question about a sequence of pairs, optionally one that a part of the sequence cannot answer.

    Args:
        kind: Kind of question, one of ``KINDS`` or ``SENTENCE_KINDS`` except ``unclear``.
        story: Ground truth of the pairs.
        random: Random generator.
        glimpse: Part of the history. An observer of this part alone answers the question wrongly. Questions about
            objects that were never present are drawn as well, although such an observer answers "no" to everything:
            without them "yes" would always be correct.

    Returns:
        The question; None if no fair question of this kind was found.
    """
    wanted: str | None = str(random.choice(["yes", "no"])) if kind in _YES_NO else None
    for _ in range(_TRIES):
        draft = _DRAFTS[kind](story.strict, wanted, random)
        answer = draft.answer(story.strict)
        if answer is None or answer != draft.answer(story.lenient) or (wanted is not None and answer != wanted):
            continue
        if answer in _EMPTY and random.random() > _EMPTY_SHARE:
            continue
        is_absent = kind == "was_there" and wanted == "no"
        if glimpse is not None and not is_absent and draft.answer(glimpse) == answer:
            continue
        question = SceneQuestion(kind, question_text(draft.phrasing, random, **draft.names), answer)
        return TruthfulQuestion(question, draft.answer, tuple(draft.names.values()))
    return None


def _pick(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]


def _any_name(random: np.random.Generator) -> str:
    return f"{_pick(tuple(COLOURS), random)} {_pick(SHAPES, random)}"


def _target(history: History, views: Sequence[int], random: np.random.Generator, *, present: bool) -> str:
    """Return the full name of an object in these views, of one that left, or of a similar one that never existed."""
    here = sorted({name for number in views for name in history[number].objects})
    if present and here:
        return _pick(here, random)
    seen = names_seen(history)
    gone = [name for name in seen if name not in here]
    if gone and random.random() < 0.5:
        return _pick(gone, random)
    if not seen:
        return _any_name(random)
    colour, shape = _pick(seen, random).split()
    if random.random() < 0.5:
        return f"{colour} {_pick(SHAPES, random)}"
    return f"{_pick(tuple(COLOURS), random)} {shape}"


def _shortened(name: str, random: np.random.Generator) -> tuple[str, str]:
    """Return the words to match and the words to say: mostly the full name, sometimes only the shape or the colour."""
    colour, shape = name.split()
    chance = random.random()
    if chance < 0.2:
        return shape, shape
    if chance < 0.35:
        return colour, f"{colour} {_pick(('thing', 'object', 'one'), random)}"
    return name, name


def _colour(history: History, _: str | None, random: np.random.Generator) -> _Draft:
    shown = [name.split()[1] for name in history[-1].objects]
    shape = _pick(shown, random) if shown and random.random() < 0.8 else _pick(SHAPES, random)
    return _Draft("colour", {"thing": shape}, lambda seen: answers.colour_of(seen, shape))


def _is_there(history: History, wanted: str | None, random: np.random.Generator) -> _Draft:
    if random.random() < 0.12:
        return _Draft("is_there_person", {}, lambda seen: answers.is_there(seen, PERSON))
    name = _target(history, [-1], random, present=wanted == "yes")
    match, said = _shortened(name, random)
    return _Draft("is_there", {"thing": said}, lambda seen: answers.is_there(seen, match))


def _how_many(history: History, _: str | None, random: np.random.Generator) -> _Draft:
    shown = [name.split()[1] for name in history[-1].objects]
    shape = "" if random.random() < 0.6 else _pick(shown or SHAPES, random)
    return _Draft("how_many", {"things": PLURALS[shape]}, lambda seen: answers.how_many(seen, shape))


def _side(_: History, __: str | None, random: np.random.Generator) -> _Draft:
    side = _pick(tuple(answers.REGIONS), random)
    return _Draft(f"side_{side}", {}, lambda seen: answers.what_is_at(seen, side))


def _where(history: History, _: str | None, random: np.random.Generator) -> _Draft:
    if random.random() < 0.1:
        return _Draft("where", {"thing": PERSON}, lambda seen: answers.where_is(seen, PERSON))
    name = _target(history, [-1], random, present=random.random() < 0.8)
    match, said = _shortened(name, random)
    return _Draft("where", {"thing": said}, lambda seen: answers.where_is(seen, match))


def _was_there(history: History, wanted: str | None, random: np.random.Generator) -> _Draft:
    if random.random() < 0.15:
        return _Draft("was_there_person", {}, lambda seen: answers.was_there(seen, PERSON))
    name = _target(history, range(len(history)), random, present=wanted == "yes")
    match, said = _shortened(name, random)
    return _Draft("was_there", {"thing": said}, lambda seen: answers.was_there(seen, match))


def _at_start(_: History, __: str | None, random: np.random.Generator) -> _Draft:
    chance = random.random()
    if chance < 0.4:
        return _Draft("at_start", {}, answers.at_start)
    if chance < 0.6:
        return _Draft("how_many_at_start", {"things": PLURALS[""]}, lambda seen: answers.how_many(seen, "", 0))
    side = _pick(tuple(answers.REGIONS), random)
    return _Draft(f"at_start_{side}", {}, lambda seen: answers.what_is_at(seen, side, 0))


def _appeared_first(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("appeared_first", {}, answers.appeared_first)


def _appeared_last(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("appeared_last", {}, answers.appeared_last)


def _left(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("left_last", {}, answers.left_last)


def _which_moved(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("which_moved", {}, answers.which_moved)


def _did_move(history: History, _: str | None, random: np.random.Generator) -> _Draft:
    name = _target(history, range(len(history)), random, present=True)
    return _Draft("did_move", {"thing": name}, lambda seen: answers.did_move(seen, name))


def _how_long_ago(history: History, _: str | None, random: np.random.Generator) -> _Draft:
    gone = [name for name in names_seen(history) if name not in history[-1].positions]
    name = _pick(gone, random) if gone and random.random() < 0.8 else _target(history, [-1], random, present=False)
    if random.random() < 0.08:
        name = _target(history, [-1], random, present=True)
    return _Draft("how_long_ago", {"thing": name}, lambda seen: answers.how_long_ago(seen, name))


def _before(history: History, wanted: str | None, random: np.random.Generator) -> _Draft:
    seen = names_seen(history)
    one, other = (str(name) for name in random.permutation(seen)[:2]) if len(seen) > 1 else ("red box", "red box")
    if wanted and answers.came_before(history, one, other) not in (None, wanted):
        one, other = other, one
    return _Draft("before", {"thing": one, "other": other}, lambda views: answers.came_before(views, one, other))


def _describe(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("describe", {}, answers.description)


def _happened(_: History, __: str | None, ___: np.random.Generator) -> _Draft:
    return _Draft("happened", {}, answers.happenings)


_DRAFTS: dict[str, Callable[[History, str | None, np.random.Generator], _Draft]] = {
    "colour": _colour,
    "is_there": _is_there,
    "how_many": _how_many,
    "side": _side,
    "where": _where,
    "was_there": _was_there,
    "at_start": _at_start,
    "appeared_first": _appeared_first,
    "appeared_last": _appeared_last,
    "left": _left,
    "which_moved": _which_moved,
    "did_move": _did_move,
    "how_long_ago": _how_long_ago,
    "before": _before,
    "describe": _describe,
    "happened": _happened,
}
_YES_NO = frozenset({"is_there", "was_there", "did_move", "before"})
_EMPTY = frozenset(
    {answers.NOTHING, answers.NOT_SEEN_NOW, answers.NOT_SEEN_EVER, answers.EMPTY_ROOM, answers.NOTHING_HAPPENED}
)
SENTENCE_KINDS = ("describe", "happened")
"""Kinds answered in whole sentences, scored by the statements in them."""
KINDS = (*(kind for kind in _DRAFTS if kind not in SENTENCE_KINDS), "unclear")
"""Kinds answered in a few words, scored by exact match."""
