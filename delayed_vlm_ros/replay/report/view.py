"""What the report's template shows, made of the results."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from delayed_vlm_ros.replay.report import numbers
from delayed_vlm_ros.replay.report.plots import latency_plot, memory_plot
from delayed_vlm_ros.replay.report.summary import Method, Table, kinds_of, methods_of, summarise, table_of
from delayed_vlm_ros.replay.report.timeline import Timeline, lay_out, moment_of

_FEW_QUESTIONS = 6  # of one recording: they are shown opened
_LONG_ANSWER = 600  # characters
_OTHER_TIME = 0.05  # seconds; a question asked this much beside its time says so
_VERDICTS = {
    "right": "right",
    "part": "contains it",
    "wrong": "wrong",
    "open": "not judged",
    "error": "no answer",
}


@dataclass(frozen=True)
class Pair:
    """A pair of frames that can be shown.

    Attributes:
        number: As in the result.
        identifier: Unique in the page.
        at: Seconds of its frames.
        importance: Its score, if known.
        reason: Why it was kept.
        thumbnail: Base64 JPEG; empty where there is none that can be read.
        width: Of the thumbnail, in pixels.
        height: Of the thumbnail, in pixels.
        memory: Where it was at the recording's end: ``Star``, ``Stream``, ``Star and Stream`` or nothing.
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
    def clock(self) -> str:
        """When its first frame was."""
        return numbers.clock(self.at[0]) if self.at else numbers.NOTHING

    @property
    def clocks(self) -> str:
        """When its frames were."""
        return " and ".join(numbers.clock(at) for at in self.at) or numbers.NOTHING


@dataclass(frozen=True)
class Answer:
    """One method's answer to one question.

    Attributes:
        method: Whose.
        given: As in the result.
        verdict: One of ``right``, ``part``, ``wrong``, ``open`` and ``error``.
        verdict_text: The same in words.
        figures: Texts in the order of ``FIGURES``.
    """

    method: Method
    given: Mapping[str, Any]
    verdict: str
    verdict_text: str
    figures: list[str]

    @property
    def is_long(self) -> bool:
        """Whether the answer is shown folded."""
        return len(self.given["answer"]) > _LONG_ANSWER


@dataclass(frozen=True)
class Question:
    """One question with its answers.

    Attributes:
        given: As in the result.
        identifier: Unique in the page.
        asked_late: When it was asked, where that is not its time.
        answers: In the order of methods.
        evidence: Methods that share it, and the pairs; then how many of them cannot be shown.
        flags: What the filters look for: ``wrong``, ``unlike``, ``noted``.
        is_open: Whether it is shown opened.
    """

    given: Mapping[str, Any]
    identifier: str
    asked_late: str
    answers: list[Answer]
    evidence: list[tuple[list[Method], list[Pair], int]]
    flags: list[str]
    is_open: bool


@dataclass(frozen=True)
class Recording:
    """One recording's section.

    Attributes:
        identifier: Unique in the page.
        result: As given.
        name: For headings.
        facts: Name and value each.
        table: Its summary; None without answers.
        timeline: None where nothing was sampled.
        pairs: By number.
        kept: Those kept at the end, in time order.
        questions: In time order.
        memory: Plot.
        latency: Plot.
        shape: Width ÷ height of its thumbnails.
        right: Share of right answers, by method.
    """

    identifier: str
    result: Mapping[str, Any]
    name: str
    facts: list[tuple[str, str]]
    table: Table | None
    timeline: Timeline | None
    pairs: dict[str, Pair]
    kept: list[Pair]
    questions: list[Question]
    memory: Markup
    latency: Markup
    shape: float
    right: dict[str, Any]

    @property
    def flags(self) -> set[str]:
        """What a filter would find here."""
        return {flag for question in self.questions for flag in question.flags}


FIGURES = (
    ("first token", "first_token_sec", numbers.seconds),
    ("whole answer", "total_sec", numbers.seconds),
    ("visual tokens", "visual_tokens", numbers.count),
    ("KV length", "kv_length", numbers.count),
    ("frames encoded", "frames_encoded", numbers.count),
    ("frames re-used", "frames_reused", numbers.count),
    ("kept encodings", "cached_bytes", numbers.size),
    ("peak memory", "peak_memory_bytes", numbers.size),
)
"""Heading, name in the result and form of an answer's figures."""

SCORES = (("token F1", "token_f1"), ("chrF", "chrf"), ("length", "length_ratio"))
"""Heading and name of the scores that are numbers."""


def view_of(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that the template needs, by name."""
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
        "models": sorted({model for result in results if (model := _model_of(result))}),
        "incomplete": [recording for recording in recordings if not recording.result["complete"]],
        "table": table_of(summaries, methods) if questions else None,
        "headline": _headline(recordings, methods, summaries),
        "set_ups": _set_ups(results),
        "figures": [heading for heading, *_ in FIGURES],
        "scores": SCORES,
        "numbers": numbers,
    }


def _model_of(result: Mapping[str, Any]) -> str:
    """The model's name: the environment's, as the settings may leave the choice open."""
    return str(result.get("environment", {}).get("model") or result.get("settings", {}).get("model") or "")


def _headline(
    recordings: Sequence[Recording], methods: Sequence[Method], summaries: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """The few figures that one reads first, of the first method: label, figure and what to compare it with."""
    if not methods:
        return []
    first, *others = methods
    mine = summaries[first.key]
    other = next((method for method in others if method.key == "native_all"), others[0] if others else None)
    theirs = summaries[other.key] if other else {}

    def beside(name: str, form: Any) -> str:
        return f"{other.name}: {form(theirs[name])}" if other and theirs[name] is not None else ""

    tiles = [
        ("right, to the word", numbers.share(mine["exact_match"]), beside("exact_match", numbers.share)),
        (
            "to the first token, median",
            numbers.seconds(mine["first_token_sec"]),
            beside("first_token_sec", numbers.seconds),
        ),
        ("same words as native inference", numbers.share(mine["agreement_exact"]), ""),
    ]
    sampled = sum(recording.result["recording"].get("sampled") or 0 for recording in recordings)
    kept = sum(len(pair.at) for recording in recordings for pair in recording.kept)
    tiles.append(("frames kept at the end", numbers.count(kept), f"of {numbers.count(sampled)} sampled"))
    return [tile for tile in tiles if tile[1] != numbers.NOTHING]


def _recording(result: Mapping[str, Any], identifier: str, methods: Sequence[Method]) -> Recording:
    kept = {str(one["pair"]): one for one in result.get("kept", ())}
    pairs = {
        number: _pair(number, pair, kept.get(number), identifier) for number, pair in result.get("pairs", {}).items()
    }
    asked = sorted(result.get("questions", ()), key=moment_of)
    present = [method for method in methods if any(method.key in question["answers"] for question in asked)]
    is_open = len(asked) <= _FEW_QUESTIONS
    summaries = {
        method.key: {**summarise(asked, method.key), **result.get("summary", {}).get(method.key, {})}
        for method in present
    }
    return Recording(
        identifier=identifier,
        result=result,
        name=str(result["recording"]["name"]),
        facts=_facts(result),
        table=table_of(summaries, present) if present else None,
        timeline=lay_out(result) if result.get("timeline") else None,
        pairs=pairs,
        kept=sorted((pairs[number] for number in kept if number in pairs), key=lambda pair: pair.at),
        questions=[_question(question, identifier, present, pairs, is_open=is_open) for question in asked],
        memory=memory_plot(result, f"{identifier}-memory"),
        latency=latency_plot(asked, [method.key for method in methods], f"{identifier}-latency"),
        shape=next((pair.width / pair.height for pair in pairs.values() if pair.thumbnail), 4 / 3),
        right={key: one["exact_match"] for key, one in summaries.items()},
    )


def _pair(number: str, pair: Mapping[str, Any], kept: Mapping[str, Any] | None, identifier: str) -> Pair:
    width, height = _size_of(pair["thumbnail"])
    places = [name for name in ("Star", "Stream") if kept and kept[f"in_{name.lower()}"]]
    return Pair(
        number=number,
        identifier=f"{identifier}-p{number}",
        at=sorted(set(pair["at"])),
        importance=pair["importance"],
        reason=pair["reason"],
        thumbnail=pair["thumbnail"] if width else "",
        width=width or 4,
        height=height or 3,
        memory=" and ".join(places),
    )


def _size_of(thumbnail: str) -> tuple[int, int]:
    """Width and height of a base64 JPEG; zeros where it is none."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(thumbnail or "", validate=True)), formats=["JPEG"]) as image:
            width, height = image.size
    except (binascii.Error, UnidentifiedImageError):
        return 0, 0
    return width, height


def _question(
    question: Mapping[str, Any], identifier: str, methods: Sequence[Method], pairs: Mapping[str, Pair], *, is_open: bool
) -> Question:
    answers = [
        _answer(method, question["answers"][method.key]) for method in methods if method.key in question["answers"]
    ]
    shared: dict[tuple[str, ...], list[Method]] = {}
    for answer in answers:
        shared.setdefault(tuple(map(str, answer.given["evidence"])), []).append(answer.method)
    evidence = [
        (whose, [pairs[number] for number in seen if number in pairs], sum(number not in pairs for number in seen))
        for seen, whose in shared.items()
        if seen
    ]
    flags = {
        "wrong": any(answer.verdict in {"wrong", "part", "error"} for answer in answers),
        "unlike": any(answer.given["agreement"] and not answer.given["agreement"]["exact_match"] for answer in answers),
        "noted": any(answer.given["warnings"] or answer.given["error"] for answer in answers),
    }
    at, asked_at = question["at"], question["asked_at"]
    late = at is None or abs(asked_at - at) > _OTHER_TIME
    return Question(
        given=question,
        identifier=f"{identifier}-q{question['number']}",
        asked_late=numbers.clock(asked_at) if late else "",
        answers=answers,
        evidence=evidence,
        flags=[flag for flag, holds in flags.items() if holds],
        is_open=is_open,
    )


def _answer(method: Method, given: Mapping[str, Any]) -> Answer:
    scores = given["scores"]
    if given["error"]:
        verdict = "error"
    elif not scores:
        verdict = "open"
    elif scores["exact_match"]:
        verdict = "right"
    else:
        verdict = "part" if scores["contains"] else "wrong"
    return Answer(method, given, verdict, _VERDICTS[verdict], [form(given[name]) for _, name, form in FIGURES])


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of a recording, in words."""
    known = result["recording"]
    dropped = ", ".join(f"{numbers.count(many)} × {reason}" for reason, many in known.get("drop_reasons", {}).items())
    facts = [
        ("recording", " ".join(filter(None, (known.get("kind", ""), known.get("topic", ""))))),
        ("duration", numbers.seconds(known.get("duration_sec"))),
        ("first image", numbers.stamp(known.get("first_stamp"))),
        ("images", numbers.count(known.get("images"))),
        ("sampled", numbers.count(known.get("sampled"))),
        ("dropped", numbers.count(known.get("dropped")) + (f" ({dropped})" if dropped else "")),
        (
            "sizes",
            ", ".join(
                f"{name.replace('x', '×')} ({numbers.count(many)})" for name, many in known.get("sizes", {}).items()
            ),
        ),
        ("warnings", "; ".join(known.get("warnings", ()))),
        ("evaluated in", numbers.seconds(result.get("seconds"))),
        ("path", known.get("path", "")),
    ]
    return [(name, value) for name, value in facts if value not in {"", numbers.NOTHING}]


def _set_ups(results: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], dict[str, dict[str, str]]]]:
    """Settings and environments, each with the recordings that share them."""
    found: dict[str, tuple[list[str], dict[str, dict[str, str]]]] = {}
    for result in results:
        set_up = {
            heading: {name: _plain(value) for name, value in result.get(part, {}).items()}
            for heading, part in (("settings", "settings"), ("versions and machine", "environment"))
            if result.get(part)
        }
        if set_up:
            names, _ = found.setdefault(json.dumps(set_up, sort_keys=True), ([], set_up))
            names.append(str(result["recording"]["name"]))
    return list(found.values())


def _plain(value: Any) -> str:
    return value or numbers.NOTHING if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
