"""Plots of a sweep: kept evidence and places over cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

PLOTS_FILE = "sweep.png"

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_SHADES = ("#2a78b5", "#c2571a", "#2f8f4e", "#8a4fae", "#b58a1f", "#5c6470")
_COSTS = (("bytes", 1e-6, "MB between questions, full memory"), ("first_ask_sec", 1.0, "s to first token, cold"))
_GAINS = (("evidence", "share of events kept"), ("places", "share of places kept"))


def write_plots(table: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Plot evidence and places over bytes and seconds, one point per cell.

    The colour shows the size of Star, the marker that of Stream. Larger points have larger images, paler points a
    higher threshold.

    Args:
        table: Result of ``sweep.rows``.
        folder: Target folder; it must exist.

    Returns:
        The path of the plot.
    """
    levels = {
        name: sorted({row[name] for row in table})
        for name in ("star_memory_size", "stream_window_size", "importance_threshold", "max_pixels")
    }
    figure = Figure(figsize=(10.0, 7.5), layout="constrained")
    for line, (gain, gain_text) in zip(figure.subplots(2, 2, sharey="row"), _GAINS, strict=True):
        for axes, (cost, scale, cost_text) in zip(line, _COSTS, strict=True):
            for row in table:
                axes.plot(row[cost] * scale, row[gain], ls="", **_style(row, levels))
            if (gain, cost) == ("evidence", "bytes"):
                best = [row for row in table if row["best"]]
                axes.plot(
                    [row[cost] * scale for row in best], [row[gain] for row in best], color="#999", lw=1, zorder=0
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.minorticks_off()
            axes.set_ylim(-0.03, 1.03)
            axes.set_xlabel(cost_text)
            axes.grid(visible=True, color="#e4e4e4", lw=0.5)
        line[0].set_ylabel(gain_text)
    figure.legend(handles=_legend(levels), loc="outside lower center", ncols=4, frameon=False)
    path = folder / PLOTS_FILE
    figure.savefig(path, dpi=110)
    return path


def _style(row: Mapping[str, Any], levels: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    at = {name: found.index(row[name]) for name, found in levels.items()}
    paler = at["importance_threshold"] / max(1, len(levels["importance_threshold"]) - 1)
    return {
        "color": _SHADES[at["star_memory_size"] % len(_SHADES)],
        "marker": _MARKERS[at["stream_window_size"] % len(_MARKERS)],
        "ms": 5 + 3 * at["max_pixels"],
        "alpha": 0.9 - 0.5 * paler,
    }


def _legend(levels: Mapping[str, Sequence[float]]) -> list[Line2D]:
    texts = {
        "star_memory_size": "Star {} frames",
        "stream_window_size": "Stream {} frames",
        "importance_threshold": "threshold {}",
        "max_pixels": "{} pixels",
    }
    lowest = {name: found[0] for name, found in levels.items()}
    return [
        Line2D([], [], ls="", label=texts[name].format(value), **{**_style({**lowest, name: value}, levels), **own})
        for name, found in levels.items()
        for value in found
        for own in [{} if name == "star_memory_size" else {"color": "#444"}]
    ]
