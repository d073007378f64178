"""Ways of answering beside each other: how often each was right, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from delayed_vlm_ros.replay.report.numbers import count, is_number, ratio, seconds, share, size


@dataclass(frozen=True)
class Method:
    """One way of answering.

    Attributes:
        key: As in the results.
        name: For people.
        short: For where there is little room.
    """

    key: str
    name: str
    short: str


_KNOWN = (
    Method("delayed", "delayed, with caches (this package)", "delayed"),
    Method("delayed_uncached", "delayed, caches dropped before each question", "delayed, no caches"),
    Method("native_kept", "native video inference on the kept frames", "native, kept"),
    Method("native_all", "native video inference on all sampled frames", "native, all"),
    Method("newest_4", "newest 4 frames only", "newest 4"),
)
_RIGHT = "right, to the word"
_KINDS = ("backward", "live", "order")


@dataclass(frozen=True)
class Cell:
    """One figure of a table, and whether it is the best of its column."""

    text: str
    note: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """Ways of answering as rows.

    Attributes:
        groups: Heading and number of columns each, above the headings.
        headings: Of the columns.
        rows: A method and its cells each.
    """

    groups: list[tuple[str, int]]
    headings: list[str]
    rows: list[tuple[Method, list[Cell]]]

    @property
    def labels(self) -> list[str]:
        """Headings that say enough where the table is shown as a list, without the groups above them."""
        groups = [group for group, columns in self.groups for _ in range(columns)]
        return [
            f"right: {heading}" if group == _RIGHT else heading
            for group, heading in zip(groups, self.headings, strict=True)
        ]


@dataclass(frozen=True)
class _Column:
    group: str
    heading: str
    show: Callable[[Any], str]
    of: Callable[[Mapping[str, Any]], Any]
    best: Callable[[Iterable[Any]], Any] | None = None
    note: Callable[[Mapping[str, Any]], str] = lambda _: ""


def methods_of(results: Sequence[Mapping[str, Any]]) -> list[Method]:
    """The ways of answering that occur: known ones in the usual order, then others by their key."""
    keys = dict.fromkeys(
        key
        for result in results
        for answers in (result.get("summary", {}), *(question["answers"] for question in result.get("questions", ())))
        for key in answers
    )
    known = [method for method in _KNOWN if method.key in keys]
    return known + [Method(key, key, key) for key in keys if key not in {method.key for method in known}]


def kinds_of(questions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kinds of questions that occur, the usual ones first; questions without one are no kind."""
    kinds = dict.fromkeys(question["kind"] for question in questions if question["kind"])
    return [kind for kind in _KINDS if kind in kinds] + sorted(kind for kind in kinds if kind not in _KINDS)


def summarise(questions: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    """Figures of one way of answering, in the shape of a result's ``summary``, with those by kind below ``kinds``."""
    asked = [(question, question["answers"][method]) for question in questions if method in question["answers"]]
    answers = [answer for _, answer in asked]
    judged = [answer["scores"] for answer in answers if answer["scores"]]
    agreed = [answer["agreement"]["exact_match"] for answer in answers if answer["agreement"]]
    by_kind: dict[str, list[bool]] = {}
    for question, answer in asked:
        if answer["scores"]:
            by_kind.setdefault(question["kind"], []).append(answer["scores"]["exact_match"])
    return {
        "asked": len(answers),
        "answered": sum(not answer["error"] for answer in answers),
        "judged": len(judged),
        **{
            name: _of(fmean, [scores[name] for scores in judged])
            for name in ("exact_match", "contains", "token_f1", "chrf")
        },
        "agreement_exact": _of(fmean, agreed),
        **{
            name: _of(median, [answer[name] for answer in answers])
            for name in ("first_token_sec", "total_sec", "visual_tokens")
        },
        "peak_memory_bytes": _of(max, [answer["peak_memory_bytes"] for answer in answers]),
        "kinds": {kind: {"judged": len(found), "exact_match": fmean(found)} for kind, found in by_kind.items()},
    }


def table_of(summaries: Mapping[str, Mapping[str, Any]], methods: Sequence[Method]) -> Table:
    """The summary of several ways of answering; a column of which nothing is known is left out."""
    present = [method for method in methods if method.key in summaries]
    kinds = dict.fromkeys(kind for one in summaries.values() for kind in one.get("kinds", {}) if kind)
    usual = [kind for kind in _KINDS if kind in kinds] + [kind for kind in kinds if kind not in _KINDS]
    columns = [
        column for column in _columns(usual) if any(column.of(summaries[method.key]) is not None for method in present)
    ]
    cells = [_cells(column, [summaries[method.key] for method in present]) for column in columns]
    groups: list[tuple[str, int]] = []
    for column in columns:
        wide = groups.pop()[1] if groups and groups[-1][0] == column.group else 0
        groups.append((column.group, wide + 1))
    rows = [(method, [column[number] for column in cells]) for number, method in enumerate(present)]
    return Table(groups, [column.heading for column in columns], rows)


def _columns(kinds: Sequence[str]) -> list[_Column]:
    def figure(name: str) -> Callable[[Mapping[str, Any]], Any]:
        return lambda summary: summary.get(name)

    def of_kind(kind: str, name: str) -> Callable[[Mapping[str, Any]], Any]:
        return lambda summary: summary.get("kinds", {}).get(kind, {}).get(name)

    costs = "cost of a question"
    return [
        _Column("questions", "asked", count, figure("asked")),
        _Column("questions", "answered", count, figure("answered")),
        _Column("questions", "judged", count, figure("judged")),
        _Column(_RIGHT, "all", share, figure("exact_match"), max),
        *(
            _Column(_RIGHT, kind, share, of_kind(kind, "exact_match"), max, _judged(of_kind(kind, "judged")))
            for kind in kinds
        ),
        _Column("close to the expected answer", "contains it", share, figure("contains"), max),
        _Column("close to the expected answer", "token F1", ratio, figure("token_f1"), max),
        _Column("close to the expected answer", "chrF", ratio, figure("chrf"), max),
        _Column("as native", "same words", share, figure("agreement_exact"), max),
        _Column(costs, "first token", seconds, figure("first_token_sec"), min),
        _Column(costs, "whole answer", seconds, figure("total_sec"), min),
        _Column(costs, "visual tokens", count, figure("visual_tokens"), min),
        _Column(costs, "peak memory", size, figure("peak_memory_bytes"), min),
    ]


def _judged(of: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], str]:
    return lambda summary: f"of {of(summary)}" if of(summary) else ""


def _cells(column: _Column, summaries: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """A column's cells. Best is told from what is shown: nobody wins by digits that are not."""
    values = [column.of(summary) for summary in summaries]
    texts = [column.show(value) for value in values]
    known = {text: value for text, value in zip(texts, values, strict=True) if is_number(value)}
    best = column.show(column.best(known.values())) if column.best and len(known) > 1 else None
    return [Cell(text, column.note(summary), text == best) for text, summary in zip(texts, summaries, strict=True)]


def _of(statistic: Callable[[list[Any]], Any], values: Iterable[Any]) -> Any:
    known = [float(value) for value in values if is_number(value) or isinstance(value, bool)]
    return statistic(known) if known else None
