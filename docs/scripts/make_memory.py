"""Write the tables of docs/memory.md from the output of ``python -m lab bench memory --json``, and draw a timeline.

The timeline needs matplotlib (``pip install -e .[docs]``); a test compares the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, PatrolPlan, draw_patrol
from delayed_vlm_ros.benchmark.patrol_images import PatrolImages
from delayed_vlm_ros.memory import SmartFrameManager

PAGE = Path(__file__).parents[1] / "memory.md"
TIMELINE = Path(__file__).parents[1] / "images" / "memory_timeline.png"
RESULT = Path(__file__).parents[2] / "lab" / "bench" / "results" / "memory.json"

_SEED = 1000  # of the timeline's patrol
_HOURS = 1.0
_PAIRS = 20
_SHADES = {
    "brief event": "#c2571a",
    "new thing": "#b03a8c",
    "new place": "#2f8f4e",
    "scene change": "#2a78b5",
    "local change": "#5b9bd0",
    "novel view": "#7fb7a0",
    "first frame": "#555555",
}
_KEPT, _MISSED = "#2f8f4e", "#d02020"


def page() -> str:
    """Return the page with its tables generated."""
    text = PAGE.read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    rows = result["settings"]
    main = [one for one in rows if one["events"] and one["name"][0].isdigit()]
    further = [one for one in rows if one["events"] and one not in main]
    still = [one for one in rows if not one["events"]]
    tables = {
        "main": _evidence(main),
        "places": _places(main),
        "ages": _ages(main),
        "further": _further(further),
        "still": _still(still),
        "cost": _cost(result["cost"]),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def _table(heading: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "| " + " | ".join(["---"] + ["---:"] * (len(heading) - 1)) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _spread(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.2f}" + (
        f" ({found['low']:.2f} to {found['high']:.2f})" if found["low"] != found["high"] else ""
    )


def _by_memory(settings: Sequence[Mapping[str, Any]], figure: str) -> Iterator[str]:
    names = list(settings[0]["strategies"])
    rows = ([name, *(_spread(one["strategies"][name][figure]) for one in settings)] for name in names)
    return _table(["", *(one["name"] for one in settings)], rows)


def _evidence(settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return _by_memory(settings, "evidence")


def _places(settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return _by_memory(settings, "places")


def _ages(settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    groups = ("oldest third", "middle third", "newest third")

    def cells(one: Mapping[str, Any]) -> Iterator[str]:
        memory = one["strategies"]["this memory"]
        for found in (*(memory["by_age"].get(name) for name in groups), *memory["by_length"].values()):
            yield f"{found['share']:.2f} of {found['events']}" if found else ""

    lengths = settings[0]["strategies"]["this memory"]["by_length"]
    return _table(["of all events, shown", *groups, *lengths], ([one["name"], *cells(one)] for one in settings))


def _further(settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    def cells(one: Mapping[str, Any]) -> Iterator[str]:
        strategies = one["strategies"]
        ours = strategies["this memory"]
        best = max(
            (name for name in strategies if name != "this memory"),
            key=lambda name: strategies[name]["evidence"]["mean"],
        )
        yield _spread(ours["evidence"])
        yield _spread(ours["places"])
        yield f"{strategies[best]['evidence']['mean']:.2f} ({best})"

    heading = ["10 pairs, 5 events, 4 places", "evidence", "places", "best other's evidence"]
    return _table(heading, ([one["name"], *cells(one)] for one in settings))


def _still(settings: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = (
        [one["name"].removeprefix("still: "), _spread(one["strategies"]["this memory"]["kept_pairs"])]
        for one in settings
    )
    return _table(["a still camera for two hours, with", "pairs kept"], rows)


def _cost(cost: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = ([str(one["pairs"]), f"{one['median_ms']:.2f} ms", f"{one['p99_ms']:.2f} ms"] for one in cost)
    return _table(["pairs in Star", "median of a 640 × 480 frame", "99th percentile"], rows)


def draw_timeline() -> None:
    """Show a patrol to the memory, and draw which events it kept and which it missed."""
    import matplotlib as mpl  # noqa: PLC0415  an optional package

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    patrol = draw_patrol(PatrolPlan(_SEED, hours=_HOURS, places=6, events=12, event_area=(0.01, 0.10)))
    images = PatrolImages(patrol)
    memory = SmartFrameManager(2 * _PAIRS, 20)
    for number in range(patrol.frames):
        memory.add(images.frame(number), number * FRAME_SEC)
    star = [kept for kept in memory.snapshot() if kept.in_star]
    shown = set().union(*(patrol.events_in((kept.pair.first.number - 1) // 2) for kept in star))
    minutes = FRAME_SEC / 60.0

    plt.rcParams.update({"font.size": 10})
    columns = _PAIRS // 2
    figure = plt.figure(figsize=(13, 6.4), layout="constrained")
    parts = figure.subfigures(2, 1, height_ratios=(1.0, 1.35))
    axes = parts[0].subplots()
    bands = plt.get_cmap("Pastel1")
    for visit in patrol.visits:
        axes.axvspan(visit.start * minutes, visit.stop * minutes, 0.0, 0.16, color=bands(visit.place), lw=0)
    for number, event in enumerate(patrol.events):
        shade = _KEPT if number in shown else _MISSED
        axes.plot([event.start * minutes] * 2, [2.2, 2.8], color=shade, lw=2.5)
        text = f"{event.seconds:g} s\n{event.area:.0%}"
        axes.text(event.start * minutes, 2.85, text, ha="center", va="bottom", fontsize=8, color=shade)
    for walker in patrol.walkers:
        axes.plot(
            [walker.start * minutes, walker.stop * minutes], [1.75] * 2, color="#999", lw=3, solid_capstyle="butt"
        )
    for number, kept in enumerate(star, 1):
        time = kept.stamps[0] / 60.0
        axes.plot([time], [1.15], "v", ms=9, color=_SHADES.get(kept.reason, "#888"))
        axes.text(time, 0.92, str(number), ha="center", va="top", fontsize=8)
    axes.set_yticks([0.27, 1.1, 1.75, 2.5], ["place", "kept in Star", "people passing", "events"])
    axes.set(ylim=(0, 3.4), xlim=(0, patrol.frames * minutes), xlabel="minutes")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    reasons = [reason for reason in _SHADES if any(kept.reason == reason for kept in star)]
    handles = [axes.plot([], [], "v", ms=9, color=_SHADES[reason])[0] for reason in reasons]
    handles += [axes.plot([], [], color=shade, lw=2.5)[0] for shade in (_KEPT, _MISSED)]
    axes.legend(
        handles,
        [*reasons, "event kept", "event missed"],
        ncols=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        frameon=False,
    )
    for number, (axes, kept) in enumerate(zip(parts[1].subplots(2, columns).flat, star, strict=False), 1):
        axes.imshow(kept.pair.important_frame.image)
        axes.set_title(f"{number} · {kept.reason or 'coverage'} {kept.importance:.2f}", fontsize=8, pad=3)
        axes.set_xticks([]), axes.set_yticks([])
        for edge in axes.spines.values():
            edge.set(color=_SHADES.get(kept.reason, "#888"), linewidth=2.5)
    figure.savefig(TIMELINE, dpi=90)


if __name__ == "__main__":
    draw_timeline()
    PAGE.write_text(page(), encoding="utf-8")
