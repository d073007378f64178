"""The probability that a model would answer a question with yes. This module imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.memory import Snapshot

CLEAR_MASS = 0.5
"""Probability of yes and no together from which an answer is clear: the model took the question as such a question."""

# English, German, French, Spanish, Italian, Portuguese, Russian, Chinese, Japanese. Left out: words that often begin
# another answer, such as "si".
_YES = ("yes", "ja", "oui", "sí", "sì", "sim", "да", "是", "是的", "有", "はい")
_NO = ("no", "nein", "non", "não", "нет", "否", "不", "不是", "没", "没有", "いいえ")


@dataclass(frozen=True, slots=True)
class AnswerForms:
    """The tokens that mean yes or no as the first token of an answer.

    Attributes:
        yes: Token ids.
        no: Token ids.
    """

    yes: tuple[int, ...]
    no: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class YesNo:
    """What a model would answer to a yes/no question.

    Attributes:
        p_yes: Probability of yes among the answers that begin with yes or no.
        mass: Probability that the answer begins with yes or no.
        margin: Log-odds of yes against no: positive for yes.
        first_token: Text of the most likely first token.
    """

    p_yes: float
    mass: float
    margin: float
    first_token: str

    @property
    def is_clear(self) -> bool:
        """Whether the model takes the question for a yes/no question: it would most likely begin with yes or no."""
        return self.mass >= CLEAR_MASS


UNKNOWN = YesNo(p_yes=0.5, mass=0.0, margin=0.0, first_token="")
"""The outcome where the model was not asked."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Outcomes of yes/no questions about the same frames.

    Attributes:
        scores: One for each question, in the order of the questions.
        frames_used: Encoded pairs, oldest first.
        metrics: Cost and limitations of all of them together.
        is_complete: Whether all frames within the limits were used; if memory was short, half of them were.
    """

    scores: tuple[YesNo, ...]
    frames_used: Snapshot
    metrics: AskMetrics
    is_complete: bool = True


def answer_forms(token_ids_of: Callable[[str], list[int]]) -> AnswerForms:
    """Return the tokens for yes and no, in several spellings and languages.

    A form of several tokens does not count: its first token may begin another word.

    Args:
        token_ids_of: The tokenizer: ids of a text, without special tokens.

    Raises:
        BadRequestError: The tokenizer has no token for yes, or none for no.
    """

    def tokens(words: tuple[str, ...]) -> set[int]:
        spellings = {f"{space}{case}" for word in words for case in _cases(word) for space in ("", " ")}
        encoded = [token_ids_of(spelling) for spelling in spellings]
        return {ids[0] for ids in encoded if len(ids) == 1}

    yes, no = tokens(_YES), tokens(_NO)
    if not (yes - no and no - yes):
        raise BadRequestError("the model's tokenizer has no tokens for yes and no: ask for an answer instead")
    return AnswerForms(tuple(sorted(yes - no)), tuple(sorted(no - yes)))


def yes_no(log_p_yes: float, log_p_no: float, first_token: str) -> YesNo:
    """Return the outcome from the logarithms of the probabilities of yes and no as first token."""
    margin = log_p_yes - log_p_no
    odds = math.exp(-abs(margin))  # of the less likely one
    p_yes = (1 if margin >= 0 else odds) / (1 + odds)
    return YesNo(p_yes, math.exp(log_p_yes) + math.exp(log_p_no), margin, first_token)


def yes_no_of_tokens(tokens: Sequence[tuple[str, float]]) -> YesNo:
    """Return the outcome from the most likely first tokens of an answer.

    If no form of yes, or of no, is among them, it has at most the probability of the least likely one, which is used.

    Args:
        tokens: Text and log probability of each; invalid ones are left out.
    """
    known = [(text, log_p) for text, log_p in tokens if log_p <= 0.0]  # NaN is not
    if not known:
        return UNKNOWN
    least = min(log_p for _, log_p in known)
    yes = _log_sum([log_p for text, log_p in known if text.strip().lower() in _YES])
    no = _log_sum([log_p for text, log_p in known if text.strip().lower() in _NO])
    first_token = max(known, key=lambda token: token[1])[0]
    if yes is None and no is None:
        return YesNo(0.5, 0.0, 0.0, first_token)
    return yes_no(least if yes is None else yes, least if no is None else no, first_token)


def _log_sum(logs: Sequence[float]) -> float | None:
    """Return the logarithm of the sum of probabilities; None without any."""
    return math.log(sum(map(math.exp, logs))) if logs else None


def _cases(word: str) -> tuple[str, str, str]:
    return word, word.capitalize(), word.upper()
