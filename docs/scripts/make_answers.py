"""Write the tables of answers in docs/memory.md from the output of ``python -m lab bench answers --json``.

Run it after ``lab/bench/results/answers*.json`` have changed; a test compares page and files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "memory.md"
RESULTS = Path(__file__).parents[2] / "lab" / "bench" / "results"

_GROUPS = ("live", "backward", "order")
_BEGIN, _END = "<!-- made by docs/scripts/make_answers.py -->\n", "<!-- end of answers -->\n"
_BEGIN_SIZES, _END_SIZES = "<!-- sizes, made by docs/scripts/make_answers.py -->\n", "<!-- end of sizes -->\n"
_SIZES = ("answers_20_20", "answers")
_SHOWN = ("this memory", "newest", "uniform", "reservoir")


def page() -> str:
    """Return the page with its tables generated."""
    text = PAGE.read_text(encoding="utf-8")
    tables = (line for room in _read("answers")["rooms"].items() for line in _tables(*room))
    sizes = _table_of_sizes([_read(name) for name in _SIZES])
    for begin, end, lines in ((_BEGIN, _END, tables), (_BEGIN_SIZES, _END_SIZES, sizes)):
        before, rest = text.split(begin)
        text = before + begin + "".join(f"{line}\n" for line in lines) + end + rest.split(end)[1]
    return text


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _table_of_sizes(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of one memory with several sizes and the others with as many pairs."""
    yield "| rooms | Star + Stream | | " + " | ".join(_GROUPS) + " |"
    yield "| --- | --- | --- |" + " ---: |" * len(_GROUPS)
    for room in results[0]["rooms"]:
        for result in results:
            sizes = f"{result['shape']['star_memory_size']} + {result['shape']['stream_window_size']}"
            for name in _SHOWN:
                groups = result["rooms"][room]["strategies"][name]["groups"]
                cells = " | ".join(_accuracy_with_interval(groups[group]["accuracy"]) for group in _GROUPS)
                yield f"| {room} | {sizes} | {name} | {cells} |"


def _accuracy_with_interval(accuracy: Mapping[str, float]) -> str:
    return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * accuracy[key] for key in ("mean", "low", "high")))


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
    yield f"The difference of this memory from others on the same questions, in points: {_differences(groups)}."
    yield ""
    yield "| kind | questions | " + " | ".join(memories) + " | most frequent |"
    yield "| --- |" + " ---: |" * (2 + len(memories))
    for kind, frequent in figures["most_frequent"].items():
        cells = [one["kinds"][kind] for one in memories.values()]
        shown = " | ".join(f"{cell['accuracy']:.2f} ({cell['answerable']:.2f})" for cell in cells)
        yield f"| `{kind}` | {cells[0]['questions']} | {shown} | {frequent:.2f} |"
    yield ""


def _cell(group: Mapping[str, Any]) -> str:
    accuracy, over = f"{100 * group['accuracy']['mean']:.1f} %", group["over"].get("newest")
    if over is None:
        return accuracy
    return f"{accuracy} ({_difference(over)})"


def _differences(groups: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{other} " + ", ".join(f"{group} {_difference(groups[group]['over'][other])}" for group in _GROUPS)
        for other in ("uniform", "reservoir")
    )


def _difference(over: Mapping[str, float]) -> str:
    mean, low, high = (f"{100 * over[key]:+.1f}".replace("-", "−") for key in ("mean", "low", "high"))
    return f"{mean}: {low} to {high}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
