"""Search for moments that fit a description, among the kept pairs of one camera. This module imports no torch.

The model is asked one yes/no question about each pair, and about each window of up to three pairs that follow each
other closely: what happens takes more than one pair. Vision features are cached, so a window costs the language model's
pass over a few pairs. Pairs of one moment that follow each other are reported together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.request import AskRequest, check_request, select_frames
from delayed_vlm_ros.inference.yes_no import CLEAR_MASS, UNKNOWN, ScoreResult, YesNo
from delayed_vlm_ros.memory import KeptPair, Snapshot

DEFAULT_MAX_MOMENTS = 10
"""Number of moments that a search returns unless the caller says otherwise."""

MAX_MOMENTS = 100
"""Largest number of moments that a search returns."""

FITS = 0.5
"""Score from which a moment of key frames fits; such pairs that follow each other are one moment."""

WINDOW_PAIRS = 3
"""Largest number of pairs in a window."""

_WINDOW_GAP_SEC = 3.0  # between two pairs of a window, at most
_MOMENT_GAP_SEC = 10.0  # between two pairs of a moment, at most
_QUESTION_MARKS = "?？؟"
_QUESTIONS = ('Does the video show this: "{}"? Answer yes or no.', "Do you see {}?")
"""Questions from a description, best first. A model with a small vocabulary understands only the second one."""


class ScoringEngine(Protocol):
    """The method of an engine that a search uses."""

    def score(self, questions: Sequence[str], *, frames: Snapshot, control: AskControl) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the pairs in ``frames``."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One or several successive pairs that fit the description.

    Attributes:
        pairs: The pairs, oldest first.
        best: The pair that fits best alone; if none fits alone, the last one of the window that fits best.
        score: Largest probability of yes for a pair or a window, 0..1. Comparable within one search only.
    """

    pairs: Snapshot
    best: KeptPair
    score: float

    @property
    def stamps(self) -> tuple[float, float]:
        """Stamps of the first and the last frame, in seconds."""
        return self.pairs[0].stamps[0], self.pairs[-1].stamps[1]


@dataclass(frozen=True, slots=True)
class FoundMoments:
    """Result of a search.

    Attributes:
        moments: Moments, best first.
        question: Yes/no question that the model was asked.
        pairs_searched: Pairs that the model was asked about.
        search_sec: Time that the model took, in seconds.
        warnings: Limitations of the result, one sentence each.
    """

    moments: tuple[Moment, ...]
    question: str
    pairs_searched: int
    search_sec: float
    warnings: tuple[str, ...]


def find_moments(
    engine: ScoringEngine,
    snapshot: Snapshot,
    description: str,
    *,
    since: float | None = None,
    until: float | None = None,
    max_moments: int = DEFAULT_MAX_MOMENTS,
    control: AskControl | None = None,
) -> FoundMoments:
    """Return the moments that fit a description, best first.

    Args:
        engine: ScoringEngine of the camera.
        snapshot: Kept pairs of the camera, oldest first, such as ``engine.frame_manager.snapshot()``.
        description: What to find, such as "a person who carries something"; or a yes/no question that ends with "?".
        since: Stamp of the oldest frame to search, in seconds; None: unbounded.
        until: Stamp of the newest frame to search, in seconds; None: unbounded.
        max_moments: Number of moments to return, 1 to 100.
        control: Control of the work, checked before each window.

    Raises:
        BadRequestError: The description, a limit or ``max_moments`` is invalid, or the model has no tokens for yes and
            no.
        NoFramesError: There are no pairs, or none lies within the limits.
        UnsupportedModelError: The model's server does not report probabilities.
        AskCancelledError: The search was cancelled.
        AskTimeoutError: The deadline has passed.
        DeviceMemoryError: The device ran out of memory.
        NonFiniteError: The model computed NaN or infinity.
    """
    search = MomentSearch(snapshot, description, since=since, until=until, max_moments=max_moments)
    control = control or AskControl()
    while not search.is_complete:
        search.step(engine, control)
    return search.found()


class MomentSearch:
    """One search, in steps. Another thread may take what was found so far.

    Args:
        snapshot: Kept pairs of the camera, oldest first.
        description: What to find.
        since: Stamp of the oldest frame to search, in seconds; None: unbounded.
        until: Stamp of the newest frame to search, in seconds; None: unbounded.
        max_moments: Number of moments to return.
        question: Question of an earlier search for this description, to ask it again; empty: choose one.

    Raises:
        BadRequestError: The description, a limit or ``max_moments`` is invalid.
        NoFramesError: There are no pairs, or none lies within the limits.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        description: str,
        *,
        since: float | None = None,
        until: float | None = None,
        max_moments: int = DEFAULT_MAX_MOMENTS,
        question: str = "",
    ) -> None:
        check_search(description, since, until, max_moments)
        self._pairs = select_frames(snapshot, AskRequest(description, since=since, until=until))
        self._max_moments = max_moments
        self._questions = (question,) if question else questions_of(description)
        self._outcomes: dict[int, tuple[YesNo, ...]] = {}  # of the windows that end with a pair, by its index
        self._warnings: dict[str, None] = {}
        self._search_sec = 0.0

    @property
    def question(self) -> str:
        """The question that the model is asked; final after the first step."""
        return self._questions[0]

    @property
    def is_complete(self) -> bool:
        """Whether all pairs are searched."""
        return not self.pairs_left

    @property
    def pairs_left(self) -> int:
        """Number of pairs that are not searched yet: the oldest ones."""
        return len(self._pairs) - len(self._outcomes)

    def step(self, engine: ScoringEngine, control: AskControl) -> None:
        """Ask about the next pair, from the newest to the oldest.

        Raises:
            DelayedVlmError: As for ``find_moments``.
        """
        started = time.monotonic()
        if len(self._questions) > 1:
            self._questions = (self._best_question(engine, control),)
        index = self.pairs_left - 1
        self._outcomes[index] = tuple(
            self._ask(engine, self._questions, window, control)[0] for window in windows(self._pairs, index)
        )
        self._search_sec += time.monotonic() - started

    def _best_question(self, engine: ScoringEngine, control: AskControl) -> str:
        """Return the first question that the model answers with yes or no, or else the one that comes closest to it."""
        probed = {0, len(self._pairs) // 2, len(self._pairs) - 1}
        masses = [0.0 for _ in self._questions]
        for index in sorted(probed):
            outcomes = self._ask(engine, self._questions, self._pairs[index : index + 1], control)
            masses = [mass + outcome.mass / len(probed) for mass, outcome in zip(masses, outcomes, strict=True)]
        clear = [number for number, mass in enumerate(masses) if mass >= CLEAR_MASS]
        return self._questions[clear[0] if clear else masses.index(max(masses))]

    def _ask(
        self, engine: ScoringEngine, questions: Sequence[str], window: Snapshot, control: AskControl
    ) -> tuple[YesNo, ...]:
        control.check()
        result = engine.score(questions, frames=window, control=control)
        if len(window) == 1:  # warnings with numbers of pairs would differ in longer windows
            self._warnings.update(dict.fromkeys(result.metrics.warnings))
        return result.scores

    def found(self, *further_warnings: str) -> FoundMoments:
        """Return the moments among the pairs searched so far.

        Args:
            *further_warnings: Further limitations of the result.
        """
        outcomes = dict(self._outcomes)
        scores = {index: scored for index, asked in outcomes.items() if (scored := _scores(asked)) is not None}
        ranked = sorted(_moments(self._pairs, scores), key=lambda moment: -moment.score)
        return FoundMoments(
            tuple(ranked[: self._max_moments]),
            self.question,
            len(outcomes),
            self._search_sec,
            (*further_warnings, *_outcome_warnings([*outcomes.values()]), *self._warnings),
        )


def does_fit(score: float, *, is_journal_line: bool) -> bool:
    """Return whether a found moment fits the description.

    Args:
        score: Its score, 0..1.
        is_journal_line: Whether it is a line of the journal: such a line fits if it has all words of the description.
            One of two words says little: "a red box" shares "red" with every red thing.
    """
    return score >= (1.0 if is_journal_line else FITS)


def check_search(description: str, since: float | None, until: float | None, max_moments: int) -> None:
    """Check what a search is asked for.

    Raises:
        BadRequestError: The description is empty or no text, or a limit or ``max_moments`` is invalid.
    """
    if not isinstance(description, str):
        raise BadRequestError(f"'description' must be text, got {type(description).__name__}")
    if not _bare(description):
        raise BadRequestError("the description is empty: describe what to find")
    if not (isinstance(max_moments, int) and 1 <= max_moments <= MAX_MOMENTS):
        raise BadRequestError(f"'max_moments' must be from 1 to {MAX_MOMENTS}, got {max_moments}")
    check_request(AskRequest(description, since=since, until=until))


def questions_of(description: str) -> tuple[str, ...]:
    """Return the yes/no questions for a description, best first; a description that is a question stays as it is."""
    text = " ".join(description.split())
    if text.endswith(tuple(_QUESTION_MARKS)):
        return (text,)
    return tuple(question.format(_bare(text)) for question in _QUESTIONS)


def _bare(description: str) -> str:
    """Return a description without blanks and full stops around it."""
    return description.strip().rstrip(".!。 ")


def windows(pairs: Snapshot, index: int) -> Iterator[Snapshot]:
    """Yield the windows that end with a pair: the pair alone, and with the pairs before it if these are close.

    Args:
        pairs: All pairs, oldest first.
        index: Index of the pair.
    """
    yield pairs[index : index + 1]
    first = index
    while (
        first > 0 and index - first + 1 < WINDOW_PAIRS and _gap_sec(pairs[first - 1], pairs[first]) <= _WINDOW_GAP_SEC
    ):
        first -= 1
    if first < index:
        yield pairs[first : index + 1]


class _Scores(NamedTuple):
    """Scores of a pair; the order is that of how well the pair shows what was described.

    Attributes:
        alone: Probability of yes for the pair alone; 0 if it does not fit.
        score: Largest probability of yes in the windows that end with the pair.
    """

    alone: float
    score: float


def _scores(outcomes: Sequence[YesNo]) -> _Scores | None:
    """Return the scores of a pair, from the windows that end with it; None if the model says neither yes nor no.

    The last pair of a window that fits may no longer show what the window shows.
    """
    clear = [outcome.p_yes for outcome in outcomes if outcome.is_clear]
    if not clear:
        return None
    alone = outcomes[0].p_yes if outcomes[0].is_clear else 0.0
    return _Scores(alone if alone >= FITS else 0.0, max(clear))


def _moments(pairs: Snapshot, scores: Mapping[int, _Scores]) -> Iterator[Moment]:
    """Yield all moments, oldest first: pairs that fit and follow each other are one, each other pair is its own."""
    group: list[int] = []
    for index in sorted(scores):
        joins = group and index == group[-1] + 1 and min(scores[group[-1]].score, scores[index].score) >= FITS
        if group and not (joins and _gap_sec(pairs[group[-1]], pairs[index]) <= _MOMENT_GAP_SEC):
            yield _moment(pairs, scores, group)
            group = []
        group.append(index)
    if group:
        yield _moment(pairs, scores, group)


def _moment(pairs: Snapshot, scores: Mapping[int, _Scores], group: Sequence[int]) -> Moment:
    best = max(group, key=lambda index: scores[index])
    return Moment(pairs[group[0] : group[-1] + 1], pairs[best], max(scores[index].score for index in group))


def _gap_sec(before: KeptPair, after: KeptPair) -> float:
    return after.stamps[0] - before.stamps[1]


def _outcome_warnings(outcomes: Sequence[Sequence[YesNo]]) -> Iterator[str]:
    """Yield the warnings about pairs without a clear outcome.

    Args:
        outcomes: Outcomes of the windows that end with each pair.
    """
    unasked = sum(all(outcome is UNKNOWN for outcome in asked) for asked in outcomes)
    unclear = sum(_scores(asked) is None for asked in outcomes) - unasked
    if unclear:
        yield (
            f"the model does not answer yes or no about {unclear} of {len(outcomes)} key frames, which are left out: "
            "use other words, or ask a question that ends with '?'"
        )
    if unasked:
        yield f"the model was not asked about {unasked} of {len(outcomes)} key frames"
