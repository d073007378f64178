"""Plots of a recording's result as SVG that uses the colours of the page, so that they suit dark mode.

Each plot is drawn for wide and for narrow windows: a wide plot scaled down would be illegible.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from math import log10
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, MultipleLocator

from delayed_vlm_ros.replay.report.numbers import clock, is_number, seconds, size
from delayed_vlm_ros.replay.report.timeline import question_time, subsample

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
"""Markers of the methods, in their order, so that colour is not their only difference."""

_DPI = 72  # matplotlib's SVG uses points
_WIDTHS = {"wide": 10.0, "narrow": 4.9}  # inches of 72 pixels
_HEIGHT = 3.7  # inches
_MAX_POINTS = 500
_MIN_DECADES = 2.5  # a shorter axis has labels between powers of ten
_MARGINS = {"left": 0.85, "right": 0.3, "top": 0.3, "bottom": 0.5}  # inches; space for the longest label of an axis
_CLOCK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)

# Placeholder colours that matplotlib writes; each is replaced by a custom property of the page.
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
    """Plot the frames in both memories, and the bytes kept, over time; empty without a timeline.

    Args:
        result: Result of one recording.
        identifier: Prefix of identifiers, unique in the page.
    """
    rows = subsample(result.get("timeline", ()), _MAX_POINTS)
    if not rows:
        return Markup("")
    at = [row["at"] for row in rows]
    question_times = [question_time(question) for question in result.get("questions", ())]

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
        kept.set_title("memory of frames and caches", loc="left", fontsize=11)
        kept.yaxis.set_major_locator(MaxNLocator(3))
        kept.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value)))
        kept.set_ylim(bottom=0)
        kept.set_xlim(0, max(*at, *question_times, 1e-9))
        _set_clock_axis(kept, 8 if figure.get_figwidth() > _WIDTHS["narrow"] else 4)
        for axes in (frames, kept):
            for time in question_times:
                axes.axvline(time, color=_FAINT, lw=1, ls=":", zorder=0)

    last, peak = rows[-1], max(row["kept_bytes"] or 0 for row in rows)
    description = (
        f"At the end, Star memory holds {last['star_frames']} frames and Stream memory {last['stream_frames']}. Frames "
        f"and caches take {size(last['kept_bytes'])}, at most {size(peak)}."
    )
    return _plot(draw, identifier, "Memory over time", description)


def latency_plot(questions: Sequence[Mapping[str, Any]], methods: Sequence[str], identifier: str) -> Markup:
    """Plot the latency of the first token and of the complete answer by question and method; empty without latencies.

    Args:
        questions: Questions about one recording.
        methods: Keys of the methods, in their order.
        identifier: Prefix of identifiers, unique in the page.
    """
    latencies = {
        key: [
            (number, *latency)
            for number, question in enumerate(questions)
            if (latency := _latency(question["answers"].get(key))) is not None
        ]
        for key in methods
    }
    if not any(latencies.values()):
        return Markup("")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        pixels_per_mark = figure.get_figwidth() * _DPI / (len(questions) * len(methods))
        mark = min(6.0, max(2.5, 0.65 * pixels_per_mark))
        for order, key in enumerate(methods):
            shade = f"#0102{order % len(MARKERS):02x}"
            offset = 0.7 * ((order + 0.5) / len(methods) - 0.5)
            x = [number + offset for number, *_ in latencies[key]]
            first, total = [one[1] for one in latencies[key]], [one[2] for one in latencies[key]]
            axes.vlines(x, first, total, color=shade, lw=1.4)
            style: dict[str, Any] = {"ls": "", "marker": MARKERS[order % len(MARKERS)], "ms": mark, "mec": shade}
            axes.plot(x, first, mfc=_PAPER, mew=1.2, **style)
            axes.plot(x, total, mfc=shade, **style)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(latencies) < _MIN_DECADES else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else seconds(value)))
        axes.yaxis.minorticks_off()
        axes.set_xlim(-0.6, len(questions) - 0.4)
        max_labels = 20 if figure.get_figwidth() > _WIDTHS["narrow"] else 10
        step = -(-len(questions) // max_labels)
        axes.set_xticks(range(0, len(questions), step), [str(question["number"]) for question in questions[::step]])
        axes.tick_params(axis="x", length=0)
        axes.set_title("latency", loc="left", fontsize=11)
        axes.set_xlabel("question")

    description = (
        "Time from the question to the first token (hollow) and to the complete answer (filled), in seconds on a "
        "logarithmic scale."
    )
    return _plot(draw, identifier, "Latency by question", description)


def _latency(answer: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """Return the seconds to the first token and to the complete answer; an unknown first token equals the latter."""
    first, total = (answer["first_token_sec"], answer["total_sec"]) if answer else (None, None)
    if not is_number(total) or total <= 0:
        return None
    return (first if is_number(first) and first > 0 else total), total


def _decades(latencies: Mapping[str, Sequence[tuple[int, float, float]]]) -> float:
    times = [time for points in latencies.values() for point in points for time in point[1:]]
    return log10(max(times) / min(times))


def _set_clock_axis(axes: Axes, max_labels: int) -> None:
    span = axes.get_xlim()[1]
    step = next((step for step in _CLOCK_STEPS if span / step <= max_labels), None)
    axes.xaxis.set_major_locator(MultipleLocator(step) if step else MaxNLocator(max_labels))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value)))


def _plot(draw: Callable[[Figure], None], identifier: str, title: str, description: str) -> Markup:
    """Return the plot in all widths; the page shows one of them."""
    return Markup("").join(
        _svg(draw, width, f"{identifier}-{name}", name, title, description) for name, width in _WIDTHS.items()
    )


def _svg(
    draw: Callable[[Figure], None], width: float, identifier: str, width_name: str, title: str, description: str
) -> Markup:
    written = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, _HEIGHT))
        draw(figure)
        figure.subplots_adjust(
            left=_MARGINS["left"] / width,
            right=1 - _MARGINS["right"] / width,
            top=1 - _MARGINS["top"] / _HEIGHT,
            bottom=_MARGINS["bottom"] / _HEIGHT,
            hspace=0.32,
        )
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    body = _embeddable_svg(written.getvalue(), identifier)
    box = f"0 0 {width * _DPI:g} {_HEIGHT * _DPI:g}"
    labels = f"{identifier}-title {identifier}-text"
    return Markup(  # noqa: S704  matplotlib escapes its texts
        f'<svg class="plot {width_name}" viewBox="{box}" role="img" aria-labelledby="{labels}">'
        f'<title id="{identifier}-title">{escape(title)}</title>'
        f'<desc id="{identifier}-text">{escape(description)}</desc>{body}</svg>'
    )


def _embeddable_svg(svg: str, identifier: str) -> str:
    """Return the content of matplotlib's SVG in a form that suits an HTML page with several plots.

    Identifiers get a prefix, colours become custom properties, text takes the font of the page. Metadata, global styles
    and namespaces are removed.
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
    body = re.sub(r' (d|x|y)="[^"]+"', lambda found: re.sub(r"(\.\d)\d+|\s+", _shorten, found[0]), body)
    for shade, custom in _PROPERTIES.items():
        body = body.replace(shade, f"var(--{custom})")
    return re.sub(r"\n\s*", "\n", body)


def _shorten(found: re.Match[str]) -> str:
    """Keep one decimal place of a number; shorten white space to one space."""
    return found[1] or " "
