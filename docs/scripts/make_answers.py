"""Write the tables of answers in docs/memory.md from the output of ``python -m lab bench answers --json``.

Run it after ``lab/bench/results/answers.json`` has changed; a test compares page and file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "memory.md"
RESULT = Path(__file__).parents[2] / "lab" / "bench" / "results" / "answers.json"

_GROUPS = ("live", "backward", "order")
_BEGIN, _END = "<!-- made by docs/scripts/make_answers.py -->\n", "<!-- end of answers -->\n"


def page() -> str:
    """Return the page with its tables generated."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    tables = "".join(f"{line}\n" for room in result["rooms"].items() for line in _tables(*room))
    return before + _BEGIN + tables + _END + rest.split(_END)[1]


def _tables(room: str, figures: Mapping[str, Any]) -> Iterator[str]:
    first, stop = figures["seeds"]
    memories = figures["strategies"]
    groups = next(iter(memories.values()))["groups"]
    yield f"{room.capitalize()} rooms, {stop - first} streams (seeds {first} to {stop - 1}):"
    yield ""
    yield "| | pairs | " + " | ".join(f"{group} ({groups[group]['questions']})" for group in _GROUPS) + " |"
    yield "| --- |" + " ---: |" * (1 + len(_GROUPS))
    for name, one in memories.items():
        yield f"| {name} | {one['pairs']:.1f} | " + " | ".join(_cell(one["groups"][group]) for group in _GROUPS) + " |"
    yield ""
    yield "| kind | questions | " + " | ".join(memories) + " | most frequent |"
    yield "| --- |" + " ---: |" * (2 + len(memories))
    for kind, frequent in figures["most_frequent"].items():
        cells = [one["kinds"][kind] for one in memories.values()]
        shown = " | ".join(f"{cell['accuracy']:.2f} ({cell['answerable']:.2f})" for cell in cells)
        yield f"| `{kind}` | {cells[0]['questions']} | {shown} | {frequent:.2f} |"
    yield ""


def _cell(group: Mapping[str, Any]) -> str:
    accuracy, over = f"{100 * group['accuracy']['mean']:.1f} %", group.get("over_newest")
    if over is None:
        return accuracy
    mean, low, high = (f"{100 * over[key]:+.1f}".replace("-", "−") for key in ("mean", "low", "high"))
    return f"{accuracy} ({mean}: {low} to {high})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
