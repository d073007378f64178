"""Scores of the answers to a recording's questions, their agreement with native inference, and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from delayed_vlm_ros.inference.finish import finish_warnings
from delayed_vlm_ros.replay.answerers import MethodAnswer
from delayed_vlm_ros.replay.methods import NATIVE_ALL, NATIVE_KEPT
from delayed_vlm_ros.replay.scores import PLAUSIBLE_LENGTH_RATIOS, score, wilson_interval

_REFERENCES = (NATIVE_ALL, NATIVE_KEPT)  # the first one with an answer is the reference


def answer_entries(answers: Mapping[str, MethodAnswer], expect: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the answers to one question as entries of a result.

    Each entry has the fields of ``MethodAnswer``, ``scores`` against the expected answers, ``agreement`` with native
    inference, and ``warnings``. ``scores`` and ``agreement`` are None where there is nothing to compare with.

    Args:
        answers: Answers by method.
        expect: Expected answers; empty if the question is not scored.
    """
    reference = next((method for method in _REFERENCES if method in answers and not answers[method].error), None)
    entries = {}
    for method, answer in answers.items():
        entry: dict[str, Any] = {**asdict(answer), "evidence": list(answer.evidence)}
        entry["rests_on"] = [asdict(ranked) for ranked in answer.rests_on]
        entry |= {"scores": None, "agreement": None, "warnings": list(answer.warnings)}
        if answer.finish_reason is not None:
            by_reason = finish_warnings(answer.finish_reason, answer.answer_tokens or 0)
            entry["warnings"] += [one for one in by_reason if one not in answer.warnings]
        if not answer.error:
            if expect:
                entry["scores"] = asdict(score(answer.answer, expect))
            if reference not in (None, method):
                agreement = score(answer.answer, [answers[reference].answer])
                entry["agreement"] = asdict(agreement)
                entry["warnings"] += _length_warnings(agreement.length_ratio)
        entries[method] = entry
    return entries


def _length_warnings(ratio: float) -> list[str]:
    shortest, longest = PLAUSIBLE_LENGTH_RATIOS
    if shortest <= ratio <= longest:
        return []
    return [f"the answer is {ratio:.2f} times as long as the native one: compare their meaning"]


def is_missing(answer: Mapping[str, Any]) -> bool:
    """Return whether an answer of a result is missing although its method was asked."""
    return bool(answer["error"]) and not answer["skipped"]


def summarise_methods(questions: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return averages over a recording's questions, by method; None where there is nothing to average.

    Scores are means over the questions with an expected answer. Costs are medians over the answered questions, except
    peak memory, which is the maximum, and bytes sent to a model server, which are a sum.
    """
    methods = dict.fromkeys(method for question in questions for method in question["answers"])
    return {
        method: _summarise([question["answers"][method] for question in questions]) | count_scored(questions, method)
        for method in methods
    }


def count_scored(questions: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    """Return how many questions with an expected answer a method's score covers.

    Returns:
        ``expected``: questions with an expected answer. ``scored_in_gap``: scored ones that fall into a gap of the
        recording. ``exact_match_interval``: 95 % interval of the share of exact matches; None without scores.
    """
    asked = [(question, question["answers"].get(method)) for question in questions if question["expect"]]
    scored = [(question, answer["scores"]) for question, answer in asked if answer and answer["scores"]]
    right = sum(bool(scores["exact_match"]) for _, scores in scored)
    return {
        "expected": len(asked),
        "scored_in_gap": sum(bool(question["gap_sec"]) for question, _ in scored),
        "exact_match_interval": list(wilson_interval(right, len(scored))) if scored else None,
    }


def _summarise(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    answered = [answer for answer in answers if not answer["error"]]
    scores = [answer["scores"] for answer in answered if answer["scores"] is not None]
    agreements = [answer["agreement"] for answer in answered if answer["agreement"] is not None]
    summary: dict[str, Any] = {"asked": len(answers), "answered": len(answered), "scored": len(scores)}
    for name in ("exact_match", "contains", "token_f1", "chrf"):
        summary[name] = fmean(float(one[name]) for one in scores) if scores else None
    summary["agreement_exact"] = fmean(float(one["exact_match"]) for one in agreements) if agreements else None
    for name in ("first_token_sec", "total_sec", "visual_tokens"):
        known = _known(answered, name)
        summary[name] = median(known) if known else None
    summary["peak_memory_bytes"] = max(_known(answered, "peak_memory_bytes"), default=None)
    summary["bytes_sent"] = sum(_known(answered, "bytes_sent")) or None
    return summary


def _known(answers: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [answer[name] for answer in answers if answer[name] is not None]
