"""Compare an answer with expected answers, or with the answer of another method."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

from sacrebleu.metrics.chrf import CHRF

PLAUSIBLE_LENGTH_RATIOS = (0.5, 2.0)
"""Minimum and maximum length ratio of two answers that mean the same."""

_NORMAL_QUANTILE = 1.959964  # of 97.5 %

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, ""))


@dataclass(frozen=True)
class Scores:
    """Comparison of an answer with one or more references. Each score is that of the closest reference.

    Attributes:
        exact_match: Whether answer and reference are equal, ignoring case, punctuation and articles.
        contains: Whether the answer contains all of a reference, ignoring case, punctuation and articles.
        token_f1: Harmonic mean of the shares of common words, 0 … 1 (Rajpurkar et al. 2016, SQuAD).
        chrf: F-score of common character n-grams, 0 … 1 (Popović 2015, as computed by sacreBLEU).
        length_ratio: Characters of the answer ÷ characters of the reference closest in length.
    """

    exact_match: bool
    contains: bool
    token_f1: float
    chrf: float
    length_ratio: float


def score(answer: str, references: Sequence[str]) -> Scores:
    """Compare an answer with one or more references."""
    words = _words(answer)
    ratios = [len(answer) / max(1, len(reference)) for reference in references]
    exact_match = bool(words) and any(words == _words(reference) for reference in references)
    return Scores(
        exact_match=exact_match,
        contains=exact_match or any(_contains(words, _words(reference)) for reference in references),
        token_f1=max(_token_f1(words, _words(reference)) for reference in references),
        chrf=max(_chrf().sentence_score(answer, [reference]).score for reference in references) / 100.0,
        length_ratio=min(ratios, key=lambda ratio: max(ratio, 1.0 / ratio) if ratio else float("inf")),
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.
    """
    share = successes / trials
    weight = _NORMAL_QUANTILE**2 / trials
    centre = (share + weight / 2) / (1 + weight)
    half = _NORMAL_QUANTILE / (1 + weight) * sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


@cache
def _chrf() -> CHRF:
    return CHRF()


def _words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation, and without articles unless only articles remain."""
    plain = text.lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split() or plain.split()


def _contains(words: list[str], wanted: list[str]) -> bool:
    starts = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[start : start + len(wanted)] == wanted for start in starts)


def _token_f1(words: list[str], wanted: list[str]) -> float:
    if not words or not wanted:
        return float(words == wanted)
    common = (Counter(words) & Counter(wanted)).total()
    return 2.0 * common / (len(words) + len(wanted))
