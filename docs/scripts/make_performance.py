"""Write the tables and plots of docs/performance.md from the output of the benchmarks.

The plots need matplotlib (``pip install -e .[docs]``); a test compares the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "performance.md"
IMAGES = Path(__file__).parents[1] / "images"
RESULTS = Path(__file__).parents[2] / "lab" / "bench" / "results"

_QUESTIONS = {
    "ttft_first_ask": "first question",
    "ttft_second_ask": "second question, same frames",
    "ttft_after_1_pair": "after one new pair, none evicted",
    "ttft_precomputed": "after one new pair, encoded ahead",
    "ttft_over_bare_forward": "second question ÷ one bare forward call over a ready KV cache",
}
_MODES = ("off", "vision", "full")
_SHADES = {"off": "#c2571a", "vision": "#2a78b5", "full": "#2f8f4e"}


def page() -> str:
    """Return the page with its tables generated."""
    text = PAGE.read_text(encoding="utf-8")
    canonical, plain, trace = (_read(name) for name in ("ask", "ask_not_canonical", "trace"))
    tables = {
        "questions": _questions(canonical, plain),
        "models": _models(_read("ask_models")["models"]),
        "trace": _traces(trace),
        "sizes": _sizes([_read("trace_sizes_20_20"), _read("trace_sizes_30_10")]),
        "duty": _duties(_read("trace_duty_off"), _read("trace_duty")),
        "growth": _growth(trace),
        "real": _real(trace),
        "camera": _cameras(_read("camera_load")),
    }
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(lines) + "\n" + end + rest.split(end)[1]
    return text


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _table(heading: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(heading) + " |"
    yield "| " + " | ".join("---" for _ in heading) + " |"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _questions(canonical: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    rows = ((text, _interval(canonical[name]), _interval(plain[name])) for name, text in _QUESTIONS.items())
    return _table(("question", "canonical steps", "without"), rows)


def _models(models: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    rows = ((text, *(_interval(model[name]) for model in models.values())) for name, text in _QUESTIONS.items())
    headings = (f"{name}, {model['shape']['parameters'] / 1e6:.0f} M" for name, model in models.items())
    return _table(("question", *headings), rows)


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['median']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


_TRACE_HEADING = ("chunk", "encoded ahead", "question every", "questions", "p50", "p95", "largest")


def _trace_cells(one: Mapping[str, Any]) -> Iterator[str]:
    yield str(one["eviction_chunk"])
    yield one["mode"]
    yield f"{one['question_every_sec']:g} s"
    yield str(one["questions"])
    yield from ("" if one[name] is None else f"{one[name]:.2f}" for name in ("p50", "p95", "max"))


def _traces(trace: Mapping[str, Any]) -> Iterator[str]:
    heading = ("device", *_TRACE_HEADING, "prefilled", "device busy")
    rows = (
        (
            f"{device} s",
            *_trace_cells(one),
            f"{one['prefilled_share']:.0%}",
            f"{one['busy']:.0%}" + (", saturated" if one["saturated"] else ""),
        )
        for device, found in trace["devices"].items()
        for one in found
    )
    return _table(heading, rows)


def _sizes(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    rows = (
        (
            f"{result['shape']['star_frames']} + {result['shape']['stream_frames']}",
            *_trace_cells(one),
            f"{one['busy']:.0%}",
        )
        for result in results
        for found in result["devices"].values()
        for one in found
    )
    return _table(("Star + Stream", *_TRACE_HEADING, "device busy"), rows)


def _duties(off: Mapping[str, Any], ahead: Mapping[str, Any]) -> Iterator[str]:
    traces = [one for trace in (off, ahead) for found in trace["devices"].values() for one in found]
    intervals = sorted({one["question_every_sec"] for one in traces})
    shown = {(one["max_duty"] * (one["mode"] != "off"), one["question_every_sec"]): one for one in traces}
    duties = sorted({duty for duty, _ in shown})
    rows = (
        (
            f"{duty:g}" if duty else "nothing ahead",
            *(f"{shown[duty, every]['p50']:.2f} (at most {shown[duty, every]['max']:.2f})" for every in intervals),
            ", ".join(f"{shown[duty, every]['busy']:.0%}" for every in intervals),
        )
        for duty in duties
    )
    heading = ("`precompute.max_duty`", *(f"every {every:g} s" for every in intervals), "device busy")
    return _table(heading, rows)


def _growth(trace: Mapping[str, Any]) -> Iterator[str]:
    first = trace["growth"][0]
    rows = (
        (
            str(one["pairs"]),
            f"{one['seconds']:.3f} s",
            f"{one['seconds'] / first['seconds']:.2f}",
            f"{one['operations'] / first['operations']:.2f}",
            f"{one['seconds'] / one['native_seconds']:.3f}",
        )
        for one in trace["growth"]
    )
    return _table(("pairs", "to the first token", "÷ with 5 pairs", "operations ÷ with 5 pairs", "÷ native"), rows)


def _real(trace: Mapping[str, Any]) -> Iterator[str]:
    rows = (
        (
            one["mode"],
            f"{one['question_every_sec']:g} s",
            str(one["questions"]),
            f"{one['p50']:.2f}",
            f"{one['max']:.2f}",
        )
        for one in trace["real_time"]
    )
    return _table(("encoded ahead", "question every", "questions", "p50", "largest"), rows)


def _cameras(load: Mapping[str, Any]) -> Iterator[str]:
    rows = (
        (
            name.replace("_", " ").replace(" hz", " Hz"),
            f"{one['received_hz']:.1f} Hz",
            f"{one['sampled_hz']:.2f} Hz",
            f"{one['processor_share']:.0%}",
            f"{one['largest_gap_sec']:.2f} s",
            f"{one['newest_frame_age_max_sec']:.2f} s",
        )
        for name, one in load.items()
        if name != "shape"
    )
    heading = ("published", "received", "sampled", "of one processor", "largest gap", "largest frame age")
    return _table(heading, rows)


def plot() -> None:
    """Draw the plots."""
    import matplotlib as mpl  # noqa: PLC0415  an optional package

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    canonical, plain, trace = (_read(name) for name in ("ask", "ask_not_canonical", "trace"))
    _plot_questions(plt, canonical, plain)
    _plot_trace(plt, trace)


def _plot_questions(plt: Any, canonical: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    names = [name for name in _QUESTIONS if name != "ttft_over_bare_forward"]
    runs = (("canonical", canonical, "#2a78b5"), ("without", plain, "#9db8cc"))
    for number, (label, found, shade) in enumerate(runs):
        heights = [row + 0.36 * (0.5 - number) for row in range(len(names))]
        medians = [found[name]["median"] for name in names]
        low = [found[name]["median"] - found[name]["low"] for name in names]
        high = [found[name]["high"] - found[name]["median"] for name in names]
        axes.barh(heights, medians, 0.34, xerr=(low, high), color=shade, label=label, error_kw={"lw": 1.2})
        for height, median, more in zip(heights, medians, high, strict=True):
            axes.text(median + more + 0.012, height, f"{median:.3f}", va="center", fontsize=10)
    axes.axvline(1.0, color="#555", lw=1, ls=":")
    axes.set_yticks(range(len(names)), [_QUESTIONS[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.set_xlabel("time to the first token ÷ native inference on the same frames")
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(IMAGES / "performance_ask.png", dpi=110)


def _plot_trace(plt: Any, trace: Mapping[str, Any]) -> None:
    devices = trace["devices"]
    figure, grid = plt.subplots(
        1, len(devices), figsize=(5.2 * len(devices), 4), sharey=True, layout="constrained", squeeze=False
    )
    chunks = sorted({one["eviction_chunk"] for found in devices.values() for one in found})
    styles = dict(zip(chunks, ("-", "--", ":"), strict=False))
    for axes, (device, found) in zip(grid[0], devices.items(), strict=True):
        for mode, chunk in product(_MODES, chunks):
            mine = [one for one in found if (one["mode"], one["eviction_chunk"]) == (mode, chunk)]
            line = [one for one in mine if not one["saturated"]]  # saturated times grow with the length of the stream
            axes.plot(
                [one["question_every_sec"] for one in line],
                [one["p50"] for one in line],
                styles[chunk],
                marker="o",
                ms=4,
                color=_SHADES[mode],
                label=f"{mode}, chunk {chunk}",
            )
        axes.axhline(1.0, color="#555", lw=1, ls=":")
        title = f"native: {device} s for 20 pairs"
        axes.set(xscale="log", yscale="log", xlabel="seconds from question to question", title=title)
    grid[0][0].set_ylabel("median time to the first token ÷ native")
    grid[0][-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(IMAGES / "performance_trace.png", dpi=110)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    plot()
