"""Convert the watches of a result to what the report's template shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.replay.report import numbers

_VERDICTS = {
    "right": ("exact", "right"),
    "repeated": ("contains", "repeated"),
    "false": ("mismatch", "false alarm"),
    "": ("unscored", "not scored"),
}


@dataclass(frozen=True)
class Span:
    """A part of a strip. Positions are percentages of its width, from the left.

    Attributes:
        left: Begin.
        width: Width.
        kind: ``yes``, ``no``, ``unknown``, ``inactive`` or ``expected``.
        text: Description for people.
    """

    left: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True)
class WatchAlert:
    """An alert of a watch.

    Attributes:
        position: Position on the strip, as a percentage of its width.
        edge: ``rising`` or ``falling``.
        at: Time of the alert.
        first_at: Time of its first evidence.
        p_yes: Probability of yes.
        verdict: Class and icon of its verdict.
        verdict_text: Verdict for people.
        evidence: Keys of its pairs in the result.
        warnings: Limitations, one sentence each.
    """

    position: float
    edge: str
    at: str
    first_at: str
    p_yes: str
    verdict: str
    verdict_text: str
    evidence: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class WatchView:
    """A watch in the report.

    Attributes:
        name: Its name.
        question: Its question.
        settings: Settings in one line.
        spans: Levels over time.
        expected: Times at which the answer is yes.
        alerts: Alerts in time order.
        summary: Strip and alerts in one sentence, for screen readers.
        figures: Formatted figures in the order of ``HEADINGS``.
    """

    name: str
    question: str
    settings: str
    spans: list[Span]
    expected: list[Span]
    alerts: list[WatchAlert]
    summary: str
    figures: list[str]


HEADINGS = (
    "alerts",
    "precision",
    "recall",
    "delay",
    "false alarms",
    "false alarms per hour",
    "time unknown",
    "checks",
    "device time per hour",
)
"""Headings of the figures."""


def watch_views(result: Mapping[str, Any]) -> list[WatchView]:
    """Return the watches of a result."""
    duration = float(result["recording"].get("duration_sec") or 0.0)
    return [_view(watch, duration) for watch in result.get("watches", ())]


def total_figures(result: Mapping[str, Any]) -> list[str]:
    """Return the figures of all watches of a result together; empty for less than two."""
    return figures(result["watch_summary"], result["watch_summary"]["alerts"]) if len(result["watches"]) > 1 else []


def figures(watch: Mapping[str, Any], alerts: int) -> list[str]:
    """Return the formatted figures of a watch, or of the totals of several.

    Args:
        watch: Entry of a result.
        alerts: Number of rising alerts.
    """
    scores = watch["scores"] or {}
    return [
        numbers.count(alerts),
        numbers.share(scores.get("precision")),
        numbers.share(scores.get("recall")),
        numbers.seconds(scores.get("delay_sec")),
        numbers.count(scores.get("false_alarms")),
        numbers.count(scores.get("false_alarms_per_hour")),
        numbers.seconds(watch["unknown_sec"]),
        numbers.count(watch["checks"]),
        numbers.seconds(watch["device_sec_per_hour"]),
    ]


def _view(watch: Mapping[str, Any], duration: float) -> WatchView:
    rising = sum(alert["edge"] == "rising" for alert in watch["alerts"])
    expected = watch["expect"]
    times = ", ".join(numbers.clock(alert["at"]) for alert in watch["alerts"] if alert["edge"] == "rising")
    return WatchView(
        name=str(watch["name"]),
        question=str(watch["question"]),
        settings=", ".join(f"{key} {_plain(value)}" for key, value in watch["settings"].items() if value),
        spans=_levels(watch["states"], duration),
        expected=[_span(begin, end, duration, "expected", "expected") for begin, end in expected or ()],
        alerts=[_alert(alert, duration) for alert in watch["alerts"]],
        summary=f"rising alerts: {times or 'none'}",
        figures=figures(watch, rising),
    )


def _levels(states: Sequence[Mapping[str, Any]], duration: float) -> list[Span]:
    ends = [*(state["at"] for state in states[1:]), duration]
    return [
        _span(state["at"], end, duration, state["level"], ": ".join(filter(None, (state["level"], state["reason"]))))
        for state, end in zip(states, ends, strict=True)
        if end > state["at"]
    ]


def _span(begin: float, end: float, duration: float, kind: str, text: str) -> Span:
    left, right = _position(begin, duration), _position(end, duration)
    return Span(left, right - left, kind, f"{numbers.clock(begin)} to {numbers.clock(end)}, {text}")


def _position(at: float, duration: float) -> float:
    return 100.0 * min(1.0, max(0.0, at / duration)) if duration else 0.0


def _alert(alert: Mapping[str, Any], duration: float) -> WatchAlert:
    verdict, text = _VERDICTS[alert["verdict"]]
    return WatchAlert(
        position=_position(alert["at"], duration),
        edge=alert["edge"],
        at=numbers.clock(alert["at"]),
        first_at=numbers.clock(alert["first_at"]),
        p_yes=numbers.ratio(alert["p_yes"]),
        verdict=verdict,
        verdict_text=text if alert["edge"] == "rising" else "",
        evidence=[str(key) for key in alert["evidence"]],
        warnings=list(alert["warnings"]),
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
