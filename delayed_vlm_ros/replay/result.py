"""What is said of the answers to a recording's questions: scores, agreement with native inference, and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from delayed_vlm_ros.replay.answerers import NATIVE_ALL, NATIVE_KEPT, MethodAnswer
from delayed_vlm_ros.replay.scores import BELIEVABLE_LENGTHS, score

_REFERENCES = (NATIVE_ALL, NATIVE_KEPT)  # the first that has an answer


def judged(answers: Mapping[str, MethodAnswer], expect: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Answers as a result holds them: with ``scores`` beside what is right, and ``agreement`` with native inference.

    Args:
        answers: To one question, by method.
        expect: Right answers; there may be none.
    """
    reference = next((method for method in _REFERENCES if method in answers and not answers[method].error), None)
    found = {}
    for method, answer in answers.items():
        entry: dict[str, Any] = {**asdict(answer), "evidence": list(answer.evidence)}
        entry |= {"scores": None, "agreement": None, "warnings": []}
        if not answer.error:
            if expect:
                entry["scores"] = asdict(score(answer.answer, expect))
            if reference not in (None, method):
                agreement = score(answer.answer, [answers[reference].answer])
                entry["agreement"] = asdict(agreement)
                entry["warnings"] = _about_length(agreement.length_ratio)
        found[method] = entry
    return found


def _about_length(ratio: float) -> list[str]:
    shortest, longest = BELIEVABLE_LENGTHS
    if shortest <= ratio <= longest:
        return []
    return [f"the answer has {ratio:.2f} times the length of the native one: do both say the same?"]


def is_lacking(answer: Mapping[str, Any]) -> bool:
    """Whether an answer of a result should be there and is not."""
    return bool(answer["error"]) and not answer["skipped"]


def summary(questions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Averages over a recording's questions, by method; None where there is nothing to average.

    Scores are means over the questions that have a right answer; costs are medians over those that were answered,
    peak memory is the largest.
    """
    methods = dict.fromkeys(method for question in questions for method in question["answers"])
    return {method: _summary_of([question["answers"][method] for question in questions]) for method in methods}


def _summary_of(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answered = [answer for answer in answers if not answer["error"]]
    scores = [answer["scores"] for answer in answered if answer["scores"] is not None]
    agreements = [answer["agreement"] for answer in answered if answer["agreement"] is not None]
    found: dict[str, Any] = {"asked": len(answers), "answered": len(answered), "judged": len(scores)}
    for name in ("exact_match", "contains", "token_f1", "chrf"):
        found[name] = fmean(float(one[name]) for one in scores) if scores else None
    found["agreement_exact"] = fmean(float(one["exact_match"]) for one in agreements) if agreements else None
    for name in ("first_token_sec", "total_sec", "visual_tokens"):
        known = _known(answered, name)
        found[name] = median(known) if known else None
    found["peak_memory_bytes"] = max(_known(answered, "peak_memory_bytes"), default=None)
    return found


def _known(answers: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [answer[name] for answer in answers if answer[name] is not None]
