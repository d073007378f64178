"""How near an answer comes to one that is known to be right, or to another way of answering."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sacrebleu.metrics import CHRF

BELIEVABLE_LENGTHS = (0.5, 2.0)
"""Ratios of length outside of which two answers hardly say the same."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, ""))


@dataclass(frozen=True)
class Scores:
    """One answer beside one or more others, the nearest of which counts for each figure.

    Attributes:
        exact_match: Whether it is the same, but for case, punctuation and articles.
        contains: Whether all of another one stands in it, likewise.
        token_f1: Harmonic mean of the shares of common words, 0 … 1 (Rajpurkar et al. 2016, SQuAD).
        chrf: F-score of common character sequences, 0 … 1 (Popović 2015, as sacreBLEU computes it).
        length_ratio: Its characters ÷ those of the nearest one in length.
    """

    exact_match: bool
    contains: bool
    token_f1: float
    chrf: float
    length_ratio: float


def score(answer: str, others: Sequence[str]) -> Scores:
    """Compare an answer with one or more others."""
    words = _words(answer)
    ratios = [len(answer) / max(1, len(other)) for other in others]
    exact_match = bool(words) and any(words == _words(other) for other in others)
    return Scores(
        exact_match=exact_match,
        contains=exact_match or any(_holds(words, _words(other)) for other in others),
        token_f1=max(_token_f1(words, _words(other)) for other in others),
        chrf=max(_chrf().sentence_score(answer, [other]).score for other in others) / 100.0,
        length_ratio=min(ratios, key=lambda ratio: max(ratio, 1.0 / ratio) if ratio else float("inf")),
    )


@cache
def _chrf() -> CHRF:
    return CHRF()


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and, where anything else is left, without articles."""
    plain = text.lower().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split() or plain.split()


def _holds(words: list[str], wanted: list[str]) -> bool:
    starts = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[start : start + len(wanted)] == wanted for start in starts)


def _token_f1(words: list[str], wanted: list[str]) -> float:
    if not words or not wanted:
        return float(words == wanted)
    common = (Counter(words) & Counter(wanted)).total()
    return 2.0 * common / (len(words) + len(wanted))
