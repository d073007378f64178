"""Layout of a recording's timeline, without overlapping items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

from delayed_vlm_ros.replay.report.numbers import clock, count

MIN_WIDTH = 1080
"""Minimum width of the timeline in pixels. Narrower windows scroll it. Positions are computed for this width."""

_CARD, _PIN = 100, 30  # width of a thumbnail and of a question's number with their gaps, in pixels
_USUAL_ROWS, _MAX_ROWS = 2, 4
_MAX_TICKS = 12
_MAX_POINTS = 400
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Column:
    """Thumbnails in one column. Positions are percentages of the width, from the left.

    Attributes:
        position: Position of the column's middle.
        pairs: Numbers of the pairs, in time order.
        times: Positions of the pairs on the time axis, where their leader lines end.
    """

    position: float
    pairs: list[str]
    times: list[float]


@dataclass(frozen=True)
class Lane:
    """Kept pairs of one memory.

    Attributes:
        columns: Columns of thumbnails.
        rows: Maximum number of thumbnails in a column.
        held: Number of pairs in this memory.
        shown: Number of pairs shown; less than ``held`` if there are too many.
    """

    columns: list[Column]
    rows: int
    held: int
    shown: int


@dataclass(frozen=True)
class Pin:
    """A question on the timeline.

    Attributes:
        position: Position on the time axis, as a percentage of the width.
        row: Row above the thumbnails, from 0.
        number: Number of the question.
    """

    position: float
    row: int
    number: Any


@dataclass(frozen=True)
class Timeline:
    """Everything that the template draws.

    Attributes:
        span: Duration of the whole width, in seconds.
        ticks: Position and label of each tick.
        curve: SVG path of importance, 1000 wide and 100 high.
        thinning: Description of what the curve omits; empty if it omits nothing.
        pins: Questions.
        pin_rows: Number of rows of questions.
        star: Pairs in Star memory at the end.
        stream: Pairs in Stream memory at the end.
    """

    span: float
    ticks: list[tuple[float, str]]
    curve: str
    thinning: str
    pins: list[Pin]
    pin_rows: int
    star: Lane
    stream: Lane


def question_time(question: Mapping[str, Any]) -> float:
    """Return the time of a question in seconds: its own, or for a question at the end, when it was asked."""
    at: float | None = question["at"]
    return question["asked_at"] if at is None else at


def lay_out(result: Mapping[str, Any]) -> Timeline:
    """Lay out the timeline of one recording's result."""
    rows, questions, pairs = result.get("timeline", ()), result.get("questions", ()), result.get("pairs", {})
    times = {number: sum(pair["at"]) / len(pair["at"]) for number, pair in pairs.items() if pair["at"]}
    ends = [result["recording"].get("duration_sec"), *map(question_time, questions), *times.values()]
    span = max([end for end in ends if end] + [row["at"] for row in rows[-1:]], default=0.0) or 1.0
    positions = {number: 100 * min(1.0, max(0.0, at / span)) for number, at in times.items()}
    pins = _pins([(100 * min(1.0, max(0.0, question_time(one) / span)), one["number"]) for one in questions])
    curve, thinning = _curve(rows, span)
    lanes = [
        _lane(sorted((positions[str(one["pair"])], str(one["pair"])) for one in kept if str(one["pair"]) in positions))
        for kept in (
            [one for one in result.get("kept", ()) if one["in_star"]],
            [one for one in result.get("kept", ()) if one["in_stream"]],
        )
    ]
    return Timeline(span, _ticks(span), curve, thinning, pins, 1 + max((pin.row for pin in pins), default=0), *lanes)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions apart with the least squared displacement, by pooling neighbours that collide.

    Args:
        wanted: Positions in ascending order.
        gap: Minimum distance between neighbours.
        low: Minimum position.
        high: Maximum position; all positions must fit between ``low`` and ``high``.
    """
    pools: list[tuple[float, int]] = []  # mean and number of the positions, each less its preceding gaps
    for number, position in enumerate(wanted):
        mean, members = position - number * gap, 1
        while pools and pools[-1][0] >= mean:
            earlier_mean, earlier_members = pools.pop()
            mean = (mean * members + earlier_mean * earlier_members) / (members + earlier_members)
            members += earlier_members
        pools.append((mean, members))
    flat = [mean for mean, members in pools for _ in range(members)]
    highest = high - (len(wanted) - 1) * gap
    return [min(max(position, low), highest) + number * gap for number, position in enumerate(flat)]


def subsample(items: Sequence[_Item], limit: int) -> list[_Item]:
    """Return at most ``limit`` items, evenly spaced, including the first and the last."""
    if len(items) <= limit:
        return list(items)
    return [items[round(number * (len(items) - 1) / (limit - 1))] for number in range(limit)]


def _lane(pairs: Sequence[tuple[float, str]]) -> Lane:
    """Lay out pairs, given as position and number."""
    gap = 100 * _CARD / MIN_WIDTH
    max_columns = int(100 / gap)
    shown = subsample(pairs, max_columns * _MAX_ROWS)
    rows = min(max(ceil(len(shown) / max_columns), _usual_rows(shown, gap)), max(1, len(shown)))
    groups = [shown[start : start + rows] for start in range(0, len(shown), rows)]
    middles = [sum(position for position, _ in group) / len(group) for group in groups]
    positions = spread(middles, gap, gap / 2, 100 - gap / 2)
    return Lane(
        [
            Column(position, [number for _, number in group], [time for time, _ in group])
            for position, group in zip(positions, groups, strict=True)
        ],
        rows,
        len(pairs),
        len(shown),
    )


def _usual_rows(pairs: Sequence[tuple[float, str]], gap: float) -> int:
    """Return one row, or two where one row would move a thumbnail far from its time."""
    wanted = [position for position, _ in pairs]
    moved = spread(wanted, gap, gap / 2, 100 - gap / 2)
    farthest = max((abs(new - old) for new, old in zip(moved, wanted, strict=True)), default=0.0)
    return _USUAL_ROWS if farthest > 2 * gap else 1


def _pins(questions: Sequence[tuple[float, Any]]) -> list[Pin]:
    """Place each question, given as position and number, in the first row with free space."""
    gap = 100 * _PIN / MIN_WIDTH
    last_in_row: list[float] = []
    pins = []
    for position, number in sorted(questions, key=lambda question: question[0]):
        row = next((row for row, last in enumerate(last_in_row) if position - last >= gap), len(last_in_row))
        last_in_row[row : row + 1] = [position]
        pins.append(Pin(position, row, number))
    return pins


def _ticks(span: float) -> list[tuple[float, str]]:
    step = next((step for step in _STEPS if span / step <= _MAX_TICKS), 86400 * ceil(span / 86400 / _MAX_TICKS))
    return [(100 * number * step / span, clock(number * step)) for number in range(int(span / step + 1e-9) + 1)]


def _curve(rows: Sequence[Mapping[str, Any]], span: float) -> tuple[str, str]:
    """Return the path of importance over time. Of crowded frames it keeps the maximum, so that peaks remain."""
    known = [(row["at"], row["importance"]) for row in rows if row["importance"] is not None]
    if not known:
        return "", ""
    frames = ceil(len(known) / _MAX_POINTS)
    peaks = [max(known[start : start + frames], key=lambda point: point[1]) for start in range(0, len(known), frames)]
    points = [f"{1000 * at / span:.1f} {100 - 100 * min(1.0, max(0.0, score)):.1f}" for at, score in peaks]
    first, last = points[0].split()[0], points[-1].split()[0]
    path = f"M{first} 100 L" + " L".join(points) + f" L{last} 100 Z"
    return path, f"each point is the maximum of {count(frames)} frames" if frames > 1 else ""
