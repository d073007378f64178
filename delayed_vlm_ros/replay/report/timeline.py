"""Where things stand on a recording's timeline, so that nothing covers another thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from delayed_vlm_ros.replay.report.numbers import clock, count

NARROWEST = 1080
"""Pixels that the timeline is wide at least; a narrower window scrolls it. Places are computed for this width."""

_CARD, _PIN = 100, 30  # pixels that a thumbnail and a question's number take, with the gap to the next
_USUAL_ROWS, _MOST_ROWS = 2, 4
_MOST_TICKS = 12
_MOST_POINTS = 400
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Column:
    """Thumbnails above each other, and where their leaders go. Places are 0 at the left, 100 at the right.

    Attributes:
        place: Of the column's middle.
        pairs: Numbers of the pairs, in time order.
        moments: Where each pair is in time.
    """

    place: float
    pairs: list[str]
    moments: list[float]


@dataclass(frozen=True)
class Lane:
    """The kept pairs of one memory.

    Attributes:
        columns: What is shown.
        rows: Most thumbnails in a column.
        held: Pairs in this memory.
        shown: Pairs shown; fewer where there are too many.
    """

    columns: list[Column]
    rows: int
    held: int
    shown: int


@dataclass(frozen=True)
class Pin:
    """A question on the timeline: where in time, in which row, and its number."""

    place: float
    row: int
    number: Any


@dataclass(frozen=True)
class Timeline:
    """All that the template draws.

    Attributes:
        span: Seconds from the left end to the right.
        ticks: Place and label each.
        curve: SVG path of importance, 1000 wide and 100 high.
        thinned: What the curve leaves out; empty where nothing.
        pins: The questions.
        pin_rows: Rows that they need.
        star: Pairs in Star memory at the end.
        stream: Pairs in Stream memory at the end.
    """

    span: float
    ticks: list[tuple[float, str]]
    curve: str
    thinned: str
    pins: list[Pin]
    pin_rows: int
    star: Lane
    stream: Lane


def moment_of(question: Mapping[str, Any]) -> float:
    """When a question was to be asked, in seconds; one without a time was asked at the end."""
    at: float | None = question["at"]
    return question["asked_at"] if at is None else at


def lay_out(result: Mapping[str, Any]) -> Timeline:
    """The timeline of one recording's result."""
    rows, questions, pairs = result.get("timeline", ()), result.get("questions", ()), result.get("pairs", {})
    moments = {number: sum(pair["at"]) / len(pair["at"]) for number, pair in pairs.items() if pair["at"]}
    ends = [result["recording"].get("duration_sec"), *map(moment_of, questions), *moments.values()]
    span = max([end for end in ends if end] + [row["at"] for row in rows[-1:]], default=0.0) or 1.0
    places = {number: 100 * min(1.0, max(0.0, at / span)) for number, at in moments.items()}
    pins = _pins([(100 * min(1.0, max(0.0, moment_of(one) / span)), one["number"]) for one in questions])
    curve, thinned = _curve(rows, span)
    lanes = [
        _lane(sorted((places[str(one["pair"])], str(one["pair"])) for one in kept if str(one["pair"]) in places))
        for kept in (
            [one for one in result.get("kept", ()) if one["in_star"]],
            [one for one in result.get("kept", ()) if one["in_stream"]],
        )
    ]
    return Timeline(span, _ticks(span), curve, thinned, pins, 1 + max((p.row for p in pins), default=0), *lanes)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places as little as it takes to keep them apart: least squares, by pooling neighbours that collide.

    Args:
        wanted: Places, ascending.
        gap: Least distance between neighbours.
        low: Lowest place allowed.
        high: Highest place allowed; they must fit between.
    """
    pools: list[tuple[float, int]] = []  # mean and number of the places less their gaps
    for number, place in enumerate(wanted):
        mean, members = place - number * gap, 1
        while pools and pools[-1][0] >= mean:
            before, many = pools.pop()
            mean = (mean * members + before * many) / (members + many)
            members += many
        pools.append((mean, members))
    flat = [mean for mean, members in pools for _ in range(members)]
    highest = high - (len(wanted) - 1) * gap
    return [min(max(place, low), highest) + number * gap for number, place in enumerate(flat)]


def thin(many: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly, with the first and the last."""
    if len(many) <= most:
        return list(many)
    return [many[round(number * (len(many) - 1) / (most - 1))] for number in range(most)]


def _lane(placed: Sequence[tuple[float, str]]) -> Lane:
    gap = 100 * _CARD / NARROWEST
    columns_that_fit = int(100 / gap)
    shown = thin(placed, columns_that_fit * _MOST_ROWS)
    rows = min(max(ceil(len(shown) / columns_that_fit), _usual_rows(shown, gap)), max(1, len(shown)))
    groups = [shown[start : start + rows] for start in range(0, len(shown), rows)]
    middles = [sum(place for place, _ in group) / len(group) for group in groups]
    return Lane(
        [
            Column(place, [number for _, number in group], [moment for moment, _ in group])
            for place, group in zip(spread(middles, gap, gap / 2, 100 - gap / 2), groups, strict=True)
        ],
        rows,
        len(placed),
        len(shown),
    )


def _usual_rows(placed: Sequence[tuple[float, str]], gap: float) -> int:
    """One row, unless the pairs are so near each other that a thumbnail would be far from its moment."""
    middles = [place for place, _ in placed]
    moved = spread(middles, gap, gap / 2, 100 - gap / 2)
    far = max((abs(new - old) for new, old in zip(moved, middles, strict=True)), default=0.0)
    return _USUAL_ROWS if far > 2 * gap else 1


def _pins(questions: Sequence[tuple[float, Any]]) -> list[Pin]:
    """Each in the first row where there is room; the last at each row is remembered."""
    gap = 100 * _PIN / NARROWEST
    taken: list[float] = []
    pins = []
    for place, number in sorted(questions, key=lambda question: question[0]):
        row = next((row for row, last in enumerate(taken) if place - last >= gap), len(taken))
        taken[row : row + 1] = [place]
        pins.append(Pin(place, row, number))
    return pins


def _ticks(span: float) -> list[tuple[float, str]]:
    step = next((step for step in _STEPS if span / step <= _MOST_TICKS), 86400 * ceil(span / 86400 / _MOST_TICKS))
    return [(100 * number * step / span, clock(number * step)) for number in range(int(span / step + 1e-9) + 1)]


def _curve(rows: Sequence[Mapping[str, Any]], span: float) -> tuple[str, str]:
    """Importance over time; of crowded frames the highest, or peaks would be lost."""
    known = [(row["at"], row["importance"]) for row in rows if row["importance"] is not None]
    if not known:
        return "", ""
    each = ceil(len(known) / _MOST_POINTS)
    peaks = [max(known[start : start + each], key=lambda point: point[1]) for start in range(0, len(known), each)]
    points = [f"{1000 * at / span:.1f} {100 - 100 * min(1.0, max(0.0, score)):.1f}" for at, score in peaks]
    first, last = points[0].split()[0], points[-1].split()[0]
    path = f"M{first} 100 L" + " L".join(points) + f" L{last} 100 Z"
    thinned = f"each point is the highest of {count(each)} frames" if each > 1 else ""
    return path, thinned
