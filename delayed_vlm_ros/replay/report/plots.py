"""Plots of a recording's result as SVG that takes its colours from the page around it, so dark pages work.

Each plot is drawn twice, for wide and for narrow windows: scaled down, its words could not be read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator

from delayed_vlm_ros.replay.report.numbers import clock, is_number, seconds, size
from delayed_vlm_ros.replay.report.timeline import moment_of, thin

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""Of the ways of answering, in their order, so that they are not told apart by colour alone."""

_DOTS = 72  # per inch: an SVG of matplotlib counts in points
_WIDTHS = {"wide": 10.0, "narrow": 4.9}  # inches of 72 pixels
_MOST_POINTS = 500
_SUBDIVIDED = 2.5  # decades; an axis of less has labels between powers of ten
_MARGINS = {"left": 0.85, "right": 0.3, "top": 0.3, "bottom": 0.5}  # inches; room for the longest label of an axis
_CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

# Colours that matplotlib writes and nobody sees: each becomes a custom property of the page.
_INK, _FAINT, _STAR, _STREAM, _PAPER = "#010101", "#010102", "#010103", "#010104", "#010105"
_PROPERTIES = {_INK: "ink-soft", _FAINT: "line", _STAR: "star", _STREAM: "stream", _PAPER: "card"} | {
    f"#0102{number:02x}": f"method-{number}" for number in range(len(MARKERS))
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "delayed_vlm_ros",
    "text.parse_math": False,
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
}


def memory_plot(result: Mapping[str, Any], identifier: str) -> Markup:
    """Frames in both memories, and bytes kept, over the recording's time; empty without a timeline."""
    rows = thin(result.get("timeline", ()), _MOST_POINTS)
    if not rows:
        return Markup("")
    at = [row["at"] for row in rows]
    asked = [moment_of(question) for question in result.get("questions", ())]

    def draw(figure: Figure) -> None:
        frames, kept = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for name, shade, width, style in (("stream", _STREAM, 3.2, "-"), ("star", _STAR, 1.8, (0, (4, 2)))):
            frames.step(at, [row[f"{name}_frames"] for row in rows], where="post", color=shade, lw=width, ls=style)
        frames.set_title("frames kept", loc="left", fontsize=11)
        frames.yaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        frames.set_ylim(bottom=0)
        kept_bytes = [row["kept_bytes"] or 0 for row in rows]
        kept.fill_between(at, kept_bytes, step="post", color=_INK, alpha=0.22, lw=0)
        kept.step(at, kept_bytes, where="post", color=_INK, lw=1.4)
        kept.set_title("memory for images and encodings", loc="left", fontsize=11)
        kept.yaxis.set_major_locator(MaxNLocator(3))
        kept.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        kept.set_ylim(bottom=0)
        kept.set_xlim(0, max(*at, *asked, 1e-9))
        _clock_axis(kept, 8 if figure.get_figwidth() > _WIDTHS["narrow"] else 4)
        for axes in (frames, kept):
            for moment in asked:
                axes.axvline(moment, color=_FAINT, lw=1, ls=":", zorder=0)

    last, most = rows[-1], max(row["kept_bytes"] or 0 for row in rows)
    text = (
        f"At the end Star memory held {last['star_frames']} frames and Stream memory {last['stream_frames']}; they and "
        f"their encodings took {size(last['kept_bytes'])}, at most {size(most)}."
    )
    return _both_widths(draw, 3.7, identifier, "Memory over time", text)


def latency_plot(questions: Sequence[Mapping[str, Any]], methods: Sequence[str], identifier: str) -> Markup:
    """From first token to whole answer, for each question and way of answering; empty where nothing was timed.

    Args:
        questions: Of one recording.
        methods: Keys, in their order.
        identifier: Unique in the page.
    """
    spans = {
        key: [
            (place, *times)
            for place, question in enumerate(questions)
            if (times := _times(question["answers"].get(key))) is not None
        ]
        for key in methods
    }
    if not any(spans.values()):
        return Markup("")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        room = figure.get_figwidth() * _DOTS / (len(questions) * len(methods))
        mark = min(6.0, max(2.5, 0.65 * room))
        for order, key in enumerate(methods):
            shade = f"#0102{order % len(MARKERS):02x}"
            offset = 0.7 * ((order + 0.5) / len(methods) - 0.5)
            places = [place + offset for place, *_ in spans[key]]
            first, total = [one[1] for one in spans[key]], [one[2] for one in spans[key]]
            axes.vlines(places, first, total, color=shade, lw=1.4)
            style: dict[str, Any] = {"ls": "", "marker": MARKERS[order % len(MARKERS)], "ms": mark, "mec": shade}
            axes.plot(places, first, mfc=_PAPER, mew=1.2, **style)
            axes.plot(places, total, mfc=shade, **style)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(spans) < _SUBDIVIDED else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else seconds(value)))
        axes.yaxis.minorticks_off()
        axes.set_xlim(-0.6, len(questions) - 0.4)
        most = 20 if figure.get_figwidth() > _WIDTHS["narrow"] else 10
        step = -(-len(questions) // most)
        axes.set_xticks(range(0, len(questions), step), [str(question["number"]) for question in questions[::step]])
        axes.tick_params(axis="x", length=0)
        axes.set_title("time from the ask", loc="left", fontsize=11)
        axes.set_xlabel("question")

    text = "Seconds from the ask to the first token (hollow) and to the whole answer (filled), on a logarithmic scale."
    return _both_widths(draw, 3.7, identifier, "Latency by question", text)


def _times(answer: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """First token and total; where the first is not known, the line has no length."""
    first, total = (answer["first_token_sec"], answer["total_sec"]) if answer else (None, None)
    if not is_number(total) or total <= 0:
        return None
    return (first if is_number(first) and first > 0 else total), total


def _decades(spans: Mapping[str, Sequence[tuple[int, float, float]]]) -> float:
    times = [time for found in spans.values() for one in found for time in one[1:]]
    return log10(max(times) / min(times))


def _clock_axis(axes: Axes, most: int) -> None:
    span = axes.get_xlim()[1]
    step = next((step for step in _CLOCK_STEPS if span / step <= most), None)
    axes.xaxis.set_major_locator(MultipleLocator(step) if step else MaxNLocator(most))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))


def _both_widths(draw: Any, height: float, identifier: str, title: str, text: str) -> Markup:
    return Markup("").join(
        _svg(draw, width, height, f"{identifier}-{name}", name, title, text) for name, width in _WIDTHS.items()
    )


def _svg(draw: Any, width: float, height: float, identifier: str, name: str, title: str, text: str) -> Markup:
    written = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        draw(figure)
        figure.subplots_adjust(
            left=_MARGINS["left"] / width,
            right=1 - _MARGINS["right"] / width,
            top=1 - _MARGINS["top"] / height,
            bottom=_MARGINS["bottom"] / height,
            hspace=0.32,
        )
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    body = _of_the_page(written.getvalue(), identifier)
    box = f"0 0 {width * _DOTS:g} {height * _DOTS:g}"
    return Markup(  # noqa: S704  matplotlib escapes its texts
        f'<svg class="plot {name}" viewBox="{box}" role="img" aria-labelledby="{identifier}-title {identifier}-text">'
        f'<title id="{identifier}-title">{escape(title)}</title><desc id="{identifier}-text">{escape(text)}</desc>'
        f"{body}</svg>"
    )


def _of_the_page(svg: str, identifier: str) -> str:
    """What is inside matplotlib's SVG, made to live among other plots in an HTML page.

    Its identifiers get a prefix, its colours become custom properties, its typeface the page's, and what is only for
    files of their own (metadata, global style, namespaces) goes.
    """
    body = svg.partition("</metadata>")[2].rpartition("</svg>")[0]
    body = re.sub(r"<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: f' id="{identifier}-{found[1]}"' if found[1] in used else "", body)
    body = body.replace("url(#", f"url(#{identifier}-").replace('xlink:href="#', f'href="#{identifier}-')
    body = re.sub(
        r"font: ([\d.]+px) [^;\"]+|font-family: [^;\"]+;",
        lambda found: f"font-size: {found[1]}" if found[1] else "",
        body,
    )
    body = re.sub(r' (d|x|y)="[^"]+"', lambda found: re.sub(r"(\.\d)\d+|\s+", _shorter, found[0]), body)
    for shade, custom in _PROPERTIES.items():
        body = body.replace(shade, f"var(--{custom})")
    return re.sub(r"\n\s*", "\n", body)


def _shorter(found: re.Match[str]) -> str:
    return found[1] or " "
