"""Summary tables: the scores and the cost of each method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from delayed_vlm_ros.replay.methods import METHODS, Method
from delayed_vlm_ros.replay.report.numbers import count, is_number, ratio, seconds, share, size
from delayed_vlm_ros.replay.result import count_scored

_KINDS = ("backward", "live", "order")


@dataclass(frozen=True)
class Cell:
    """One figure of a table.

    Attributes:
        text: Formatted figure.
        note: Additional text below the figure; may be empty.
        is_best: Whether the figure is the best of its column.
    """

    text: str
    note: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Table with one row per method.

    Attributes:
        groups: Heading and number of columns of each group of columns.
        headings: Headings of the columns.
        labels: Headings that are clear without the group, for narrow windows.
        rows: Method and cells of each row.
    """

    groups: list[tuple[str, int]]
    headings: list[str]
    labels: list[str]
    rows: list[tuple[Method, list[Cell]]]


@dataclass(frozen=True)
class _Column:
    group: str
    heading: str
    format: Callable[[Any], str]
    value: Callable[[Mapping[str, Any]], Any]  # of a summary
    best: Callable[[Iterable[Any]], Any] | None = None
    note: Callable[[Mapping[str, Any]], str] = lambda _: ""
    label: str = ""


def methods_of(results: Sequence[Mapping[str, Any]]) -> list[Method]:
    """Return the methods that occur: known ones in their usual order, then others by key."""
    keys = dict.fromkeys(
        key
        for result in results
        for answers in (result.get("summary", {}), *(question["answers"] for question in result.get("questions", ())))
        for key in answers
    )
    known = [method for method in METHODS if method.key in keys]
    return known + [Method(key, key, key) for key in keys if key not in {method.key for method in known}]


def kinds_of(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the kinds of questions that occur, known ones first."""
    kinds = dict.fromkeys(question["kind"] for question in questions if question["kind"])
    return [kind for kind in _KINDS if kind in kinds] + sorted(kind for kind in kinds if kind not in _KINDS)


def summarise(questions: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    """Summarise one method, in the form of a result's ``summary`` plus figures by kind of question in ``kinds``."""
    asked = [(question, question["answers"][method]) for question in questions if method in question["answers"]]
    answers = [answer for _, answer in asked]
    scored = [answer["scores"] for answer in answers if answer["scores"]]
    agreements = [answer["agreement"]["exact_match"] for answer in answers if answer["agreement"]]
    by_kind: dict[str, list[bool]] = {}
    for question, answer in asked:
        if answer["scores"]:
            by_kind.setdefault(question["kind"], []).append(answer["scores"]["exact_match"])
    return {
        "asked": len(answers),
        "answered": sum(not answer["error"] for answer in answers),
        "scored": len(scored),
        **{
            name: _statistic(fmean, [scores[name] for scores in scored])
            for name in ("exact_match", "contains", "token_f1", "chrf")
        },
        "agreement_exact": _statistic(fmean, agreements),
        **{
            name: _statistic(median, [answer[name] for answer in answers])
            for name in ("first_token_sec", "total_sec", "visual_tokens")
        },
        "peak_memory_bytes": _statistic(max, [answer["peak_memory_bytes"] for answer in answers]),
        "bytes_sent": _statistic(sum, [answer.get("bytes_sent") for answer in answers]),
        **count_scored(questions, method),
        "kinds": {kind: {"scored": len(found), "exact_match": fmean(found)} for kind, found in by_kind.items()},
    }


def make_table(summaries: Mapping[str, Mapping[str, Any]], methods: Sequence[Method]) -> Table:
    """Return the table of several methods, without columns that have no value."""
    present = [method for method in methods if method.key in summaries]
    kinds = dict.fromkeys(kind for one in summaries.values() for kind in one.get("kinds", {}) if kind)
    ordered = [kind for kind in _KINDS if kind in kinds] + [kind for kind in kinds if kind not in _KINDS]
    columns = [
        column
        for column in _columns(ordered)
        if any(column.value(summaries[method.key]) is not None for method in present)
    ]
    cells = [_cells(column, [summaries[method.key] for method in present]) for column in columns]
    groups: list[tuple[str, int]] = []
    for column in columns:
        width = groups.pop()[1] if groups and groups[-1][0] == column.group else 0
        groups.append((column.group, width + 1))
    return Table(
        groups=groups,
        headings=[column.heading for column in columns],
        labels=[column.label or column.heading for column in columns],
        rows=[(method, [column[number] for column in cells]) for number, method in enumerate(present)],
    )


def _columns(kinds: Sequence[str]) -> list[_Column]:
    def figure(name: str) -> Callable[[Mapping[str, Any]], Any]:
        return lambda summary: summary.get(name)

    def figure_of_kind(kind: str, name: str) -> Callable[[Mapping[str, Any]], Any]:
        return lambda summary: summary.get("kinds", {}).get(kind, {}).get(name)

    def scored_note(kind: str) -> Callable[[Mapping[str, Any]], str]:
        scored = figure_of_kind(kind, "scored")
        return lambda summary: f"of {scored(summary)}" if scored(summary) else ""

    questions, exact, scores, cost = "questions", "exact match", "vs. expected answer", "cost per question"
    return [
        _Column(questions, "asked", count, figure("asked")),
        _Column(questions, "answered", count, figure("answered")),
        _Column(questions, "scored", count, figure("scored"), note=_scored_note),
        _Column(exact, "all", share, figure("exact_match"), max, _interval_note, label="exact match"),
        *(
            _Column(
                exact,
                kind,
                share,
                figure_of_kind(kind, "exact_match"),
                max,
                scored_note(kind),
                label=f"exact match, {kind}",
            )
            for kind in kinds
        ),
        _Column(scores, "contained", share, figure("contains"), max, label="contains expected"),
        _Column(scores, "token F1", ratio, figure("token_f1"), max),
        _Column(scores, "chrF", ratio, figure("chrf"), max),
        _Column("vs. native", "exact match", share, figure("agreement_exact"), max, label="matches native"),
        _Column(cost, "time to first token", seconds, figure("first_token_sec"), min),
        _Column(cost, "total time", seconds, figure("total_sec"), min),
        _Column(cost, "visual tokens", count, figure("visual_tokens"), min),
        _Column(cost, "peak memory", size, figure("peak_memory_bytes"), min),
        _Column("model server", "bytes sent", size, figure("bytes_sent"), label="bytes sent to the model server"),
    ]


def _scored_note(summary: Mapping[str, Any]) -> str:
    scored, expected, in_gap = (summary.get(key) for key in ("scored", "expected", "scored_in_gap"))
    notes = [f"of {expected}"] if expected and expected != scored else []
    return ", ".join([*notes, *([f"{in_gap} in gaps"] if in_gap else [])])


def _interval_note(summary: Mapping[str, Any]) -> str:
    interval = summary.get("exact_match_interval")
    return f"{share(interval[0])} to {share(interval[1])}" if interval else ""


def _cells(column: _Column, summaries: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Return the cells of a column. The best is chosen by formatted text: hidden digits decide nothing."""
    values = [column.value(summary) for summary in summaries]
    texts = [column.format(value) for value in values]
    known = {text: value for text, value in zip(texts, values, strict=True) if is_number(value)}
    best = column.format(column.best(known.values())) if column.best and len(known) > 1 else None
    return [Cell(text, column.note(summary), text == best) for text, summary in zip(texts, summaries, strict=True)]


def _statistic(statistic: Callable[[list[Any]], Any], values: Iterable[Any]) -> Any:
    known = [float(value) for value in values if is_number(value) or isinstance(value, bool)]
    return statistic(known) if known else None
