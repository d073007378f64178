"""Convert results to what the report's template shows."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from delayed_vlm_ros.replay.methods import NATIVE_ALL, Method
from delayed_vlm_ros.replay.report import numbers
from delayed_vlm_ros.replay.report.plots import latency_plot, memory_plot
from delayed_vlm_ros.replay.report.summary import Table, kinds_of, make_table, methods_of, summarise
from delayed_vlm_ros.replay.report.timeline import Timeline, lay_out, question_time
from delayed_vlm_ros.replay.report.watches import HEADINGS, WatchView, total_figures, watch_views

_MAX_OPEN_QUESTIONS = 6  # more questions about one recording are shown collapsed
_LONG_ANSWER = 600  # characters
_TIME_TOLERANCE = 0.25  # seconds; a larger difference between due and asked time is shown
_VERDICTS = {
    "exact": "exact match",
    "contains": "contains expected",
    "mismatch": "no match",
    "unscored": "not scored",
    "error": "no answer",
}
_MISSING_THUMBNAIL = (4, 3)  # width and height


@dataclass(frozen=True)
class Pair:
    """A pair of frames to show.

    Attributes:
        number: Key of the pair in the result.
        identifier: Identifier, unique in the page.
        at: Times of its frames, in seconds.
        importance: Importance of the pair; None if unknown.
        reason: Reason for keeping the pair.
        thumbnail: Base64 JPEG; empty if it is missing or unreadable.
        width: Width of the thumbnail, in pixels.
        height: Height of the thumbnail, in pixels.
        memory: Memory that holds the pair at the end: ``Star``, ``Stream``, ``Star and Stream``, or empty.
    """

    number: str
    identifier: str
    at: list[float]
    importance: float | None
    reason: str
    thumbnail: str
    width: int
    height: int
    memory: str

    @property
    def first_time(self) -> str:
        """Time of its first frame."""
        return numbers.clock(self.at[0]) if self.at else numbers.NO_VALUE

    @property
    def times(self) -> str:
        """Times of its frames."""
        return " and ".join(numbers.clock(at) for at in self.at) or numbers.NO_VALUE


@dataclass(frozen=True)
class Answer:
    """The answer of one method to one question.

    Attributes:
        method: Answering method.
        data: Answer as in the result.
        verdict: ``exact``, ``contains``, ``mismatch``, ``unscored`` or ``error``.
        verdict_text: Verdict for people.
        figures: Formatted figures in the order of ``FIGURES``.
        rests_on: Pairs that the answer rests on most, best first, each with its relevance as text.
    """

    method: Method
    data: Mapping[str, Any]
    verdict: str
    verdict_text: str
    figures: list[str]
    rests_on: list[tuple[Pair, str]]

    @property
    def is_long(self) -> bool:
        """Whether the answer is shown collapsed."""
        return len(self.data["answer"]) > _LONG_ANSWER


@dataclass(frozen=True)
class Evidence:
    """The kept pairs that one or more methods received for a question.

    Attributes:
        methods: Methods that received the same pairs.
        pairs: Pairs to show.
        missing: Number of pairs that the result lacks.
    """

    methods: list[Method]
    pairs: list[Pair]
    missing: int


@dataclass(frozen=True)
class Question:
    """One question with its answers.

    Attributes:
        data: Question as in the result.
        identifier: Identifier, unique in the page.
        asked_at: Time at which it was asked; empty if that is its own time.
        answers: Answers in the order of the methods.
        evidence: Evidence of the answers.
        flags: Filters that show the question: ``inexact``, ``differs``, ``flagged``.
        is_open: Whether it is shown expanded.
    """

    data: Mapping[str, Any]
    identifier: str
    asked_at: str
    answers: list[Answer]
    evidence: list[Evidence]
    flags: list[str]
    is_open: bool


@dataclass(frozen=True)
class Recording:
    """The section of one recording.

    Attributes:
        identifier: Identifier, unique in the page.
        result: Result of the recording.
        name: Name in headings.
        messages: Error and warnings.
        traceback: Traceback of a defect; empty for other errors.
        facts: Name and value of each fact.
        table: Summary; None without answers.
        timeline: Timeline; None if no frame was sampled.
        pairs: Pairs by number.
        kept: Pairs kept at the end, in time order.
        questions: Questions in time order.
        watches: Watches in the order of the file.
        watch_totals: Figures of all watches together; empty for less than two.
        memory: Plot of the memory.
        latency: Plot of the latencies.
        aspect_ratio: Width ÷ height of its thumbnails.
        exact_match: Share of exact matches, by method key.
    """

    identifier: str
    result: Mapping[str, Any]
    name: str
    messages: list[str]
    traceback: str
    facts: list[tuple[str, str]]
    table: Table | None
    timeline: Timeline | None
    pairs: dict[str, Pair]
    kept: list[Pair]
    questions: list[Question]
    watches: list[WatchView]
    watch_totals: list[str]
    memory: Markup
    latency: Markup
    aspect_ratio: float
    exact_match: dict[str, Any]

    @property
    def flags(self) -> set[str]:
        """Filters that show at least one of its questions."""
        return {flag for question in self.questions for flag in question.flags}


FIGURES = (
    ("time to first token", "first_token_sec", numbers.seconds),
    ("total time", "total_sec", numbers.seconds),
    ("visual tokens", "visual_tokens", numbers.count),
    ("KV length", "kv_length", numbers.count),
    ("frames encoded", "frames_encoded", numbers.count),
    ("frames reused", "frames_reused", numbers.count),
    ("cache size", "cached_bytes", numbers.size),
    ("peak memory", "peak_memory_bytes", numbers.size),
)
"""Heading, key in the result and format of each figure of an answer."""

SCORES = (("token F1", "token_f1"), ("chrF", "chrf"), ("length ratio", "length_ratio"))
"""Heading and key of the numeric scores."""


def make_view(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the variables of the template."""
    methods = methods_of(results)
    recordings = [_recording(result, f"r{number}", methods) for number, result in enumerate(results, start=1)]
    questions = [question for result in results for question in result.get("questions", ())]
    summaries = {method.key: summarise(questions, method.key) for method in methods}
    kinds = {kind: sum(question["kind"] == kind for question in questions) for kind in kinds_of(questions)}
    return {
        "methods": methods,
        "recordings": recordings,
        "questions": len(questions),
        "expected": sum(bool(question["expect"]) for question in questions),
        "kinds": kinds,
        "models": sorted({model for result in results if (model := _model_name(result))}),
        "incomplete": [recording for recording in recordings if not recording.result["complete"]],
        "table": make_table(summaries, methods) if questions else None,
        "tiles": _tiles(recordings, methods, summaries),
        "setups": _setups(results),
        "watches": sum(len(recording.watches) for recording in recordings),
        "watch_headings": HEADINGS,
        "figures": [heading for heading, *_ in FIGURES],
        "scores": SCORES,
        "numbers": numbers,
    }


def _model_name(result: Mapping[str, Any]) -> str:
    """Return the model in use; the settings may only say ``auto``."""
    return str(result.get("environment", {}).get("model") or result.get("settings", {}).get("model") or "")


def _tiles(
    recordings: Sequence[Recording], methods: Sequence[Method], summaries: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """Return the headline figures of the first method: label, figure, and the figure of a baseline."""
    if not methods:
        return []
    first, *others = methods
    summary = summaries[first.key]
    baseline = next((method for method in others if method.key == NATIVE_ALL), others[0] if others else None)

    def tile(label: str, key: str, form: Callable[[Any], str]) -> tuple[str, str, str]:
        reference = summaries[baseline.key][key] if baseline else None
        comparison = f"{baseline.name}: {form(reference)}" if baseline and reference is not None else ""
        return label, form(summary[key]), comparison

    native_frames = "on all sampled frames" if NATIVE_ALL in summaries else "on the kept frames"
    sampled = sum(recording.result["recording"].get("sampled") or 0 for recording in recordings)
    kept = sum(len(pair.at) for recording in recordings for pair in recording.kept)
    tiles = [
        tile("exact match", "exact_match", numbers.share),
        tile("time to first token, median", "first_token_sec", numbers.seconds),
        ("exact match with native inference", numbers.share(summary["agreement_exact"]), native_frames),
        ("frames kept at the end", numbers.count(kept), f"of {numbers.count(sampled)} sampled"),
    ]
    return [tile for tile in tiles if tile[1] != numbers.NO_VALUE]


def _recording(result: Mapping[str, Any], identifier: str, methods: Sequence[Method]) -> Recording:
    kept = {str(one["pair"]): one for one in result.get("kept", ())}
    pairs = {
        number: _pair(number, pair, kept.get(number), identifier) for number, pair in result.get("pairs", {}).items()
    }
    questions = sorted(result.get("questions", ()), key=question_time)
    present = [method for method in methods if any(method.key in question["answers"] for question in questions)]
    is_open = len(questions) <= _MAX_OPEN_QUESTIONS
    summaries = {
        method.key: {**summarise(questions, method.key), **result.get("summary", {}).get(method.key, {})}
        for method in present
    }
    return Recording(
        identifier=identifier,
        result=result,
        name=str(result["recording"]["name"]),
        messages=[*filter(None, [result["error"]]), *result["warnings"]],
        traceback=result.get("traceback", ""),
        facts=_facts(result),
        table=make_table(summaries, present) if present else None,
        timeline=lay_out(result) if result.get("timeline") else None,
        pairs=pairs,
        kept=sorted((pairs[number] for number in kept if number in pairs), key=lambda pair: pair.at),
        questions=[_question(question, identifier, present, pairs, is_open=is_open) for question in questions],
        watches=watch_views(result),
        watch_totals=total_figures(result) if result.get("watches") else [],
        memory=memory_plot(result, f"{identifier}-memory"),
        latency=latency_plot(questions, [method.key for method in methods], f"{identifier}-latency"),
        aspect_ratio=next((pair.width / pair.height for pair in pairs.values() if pair.thumbnail), 4 / 3),
        exact_match={key: summary["exact_match"] for key, summary in summaries.items()},
    )


def _pair(number: str, pair: Mapping[str, Any], kept: Mapping[str, Any] | None, identifier: str) -> Pair:
    size = _thumbnail_size(pair["thumbnail"])
    width, height = size or _MISSING_THUMBNAIL
    memories = [name for name in ("Star", "Stream") if kept and kept[f"in_{name.lower()}"]]
    return Pair(
        number=number,
        identifier=f"{identifier}-p{number}",
        at=sorted(set(pair["at"])),
        importance=pair["importance"],
        reason=pair["reason"],
        thumbnail=pair["thumbnail"] if size else "",
        width=width,
        height=height,
        memory=" and ".join(memories),
    )


def _thumbnail_size(thumbnail: str) -> tuple[int, int] | None:
    """Return width and height of a base64 JPEG; None if it is unreadable."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(thumbnail or "", validate=True)), formats=["JPEG"]) as image:
            width, height = image.size
    except (binascii.Error, UnidentifiedImageError):
        return None
    return width, height


def _question(
    question: Mapping[str, Any], identifier: str, methods: Sequence[Method], pairs: Mapping[str, Pair], *, is_open: bool
) -> Question:
    answers = [
        _answer(method, question["answers"][method.key], pairs)
        for method in methods
        if method.key in question["answers"]
    ]
    flags = {
        "inexact": any(answer.verdict in {"contains", "mismatch", "error"} for answer in answers),
        "differs": any(answer.data["agreement"] and not answer.data["agreement"]["exact_match"] for answer in answers),
        "flagged": any(answer.data["warnings"] or answer.data["error"] for answer in answers),
    }
    at, asked_at = question["at"], question["asked_at"]
    is_own_time = at is not None and abs(asked_at - at) <= _TIME_TOLERANCE
    return Question(
        data=question,
        identifier=f"{identifier}-q{question['number']}",
        asked_at="" if is_own_time else numbers.clock(asked_at),
        answers=answers,
        evidence=_evidence(answers, pairs),
        flags=[flag for flag, is_set in flags.items() if is_set],
        is_open=is_open,
    )


def _evidence(answers: Sequence[Answer], pairs: Mapping[str, Pair]) -> list[Evidence]:
    """Group the methods that received the same pairs."""
    methods: dict[tuple[str, ...], list[Method]] = {}
    for answer in answers:
        methods.setdefault(tuple(map(str, answer.data["evidence"])), []).append(answer.method)
    return [
        Evidence(
            sharing,
            [pairs[key] for key in keys if key in pairs],
            sum(key not in pairs for key in keys),
        )
        for keys, sharing in methods.items()
        if keys
    ]


def _answer(method: Method, data: Mapping[str, Any], pairs: Mapping[str, Pair]) -> Answer:
    scores = data["scores"]
    if data["error"]:
        verdict = "error"
    elif not scores:
        verdict = "unscored"
    elif scores["exact_match"]:
        verdict = "exact"
    else:
        verdict = "contains" if scores["contains"] else "mismatch"
    figures = [form(data[key]) for _, key, form in FIGURES]
    ranked = data.get("rests_on", ())  # results of earlier versions have none
    rests_on = [(pairs[one["pair"]], f"{one['relevance']:.0%}") for one in ranked if one["pair"] in pairs]
    return Answer(method, data, verdict, _VERDICTS[verdict], figures, rests_on)


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    recording = result["recording"]
    reasons = ", ".join(
        f"{numbers.count(count)} × {reason}" for reason, count in recording.get("drop_reasons", {}).items()
    )
    sizes = ", ".join(
        f"{size.replace('x', '×')} ({numbers.count(count)})" for size, count in recording.get("sizes", {}).items()
    )
    facts = [
        ("source", " ".join(filter(None, (recording.get("kind", ""), recording.get("topic", ""))))),
        ("duration", numbers.seconds(recording.get("duration_sec"))),
        ("first image", numbers.stamp(recording.get("first_stamp"))),
        ("images", numbers.count(recording.get("images"))),
        ("frames sampled", numbers.count(recording.get("sampled"))),
        ("images dropped", numbers.count(recording.get("dropped")) + (f" ({reasons})" if reasons else "")),
        ("image sizes", sizes),
        ("evaluation time", numbers.seconds(result.get("seconds"))),
        ("path", recording.get("path", "")),
    ]
    return [(name, value) for name, value in facts if value not in {"", numbers.NO_VALUE}]


def _setups(results: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], dict[str, dict[str, str]]]]:
    """Return settings and environments, each with the names of the recordings that share them."""
    setups: dict[str, tuple[list[str], dict[str, dict[str, str]]]] = {}
    for result in results:
        setup = {
            heading: {name: _plain(value) for name, value in result[key].items()}
            for heading, key in (("settings", "settings"), ("versions and machine", "environment"))
            if result.get(key)
        }
        if setup:
            names, _ = setups.setdefault(json.dumps(setup, sort_keys=True), ([], setup))
            names.append(str(result["recording"]["name"]))
    return list(setups.values())


def _plain(value: Any) -> str:
    if value is None:
        return "automatic"
    return value or numbers.NO_VALUE if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
