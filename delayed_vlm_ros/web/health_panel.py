"""View of the system's health: memory by kind against the budget, compression, latency and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui.elements.mixins.text_element import TextElement

from delayed_vlm_ros.web.backend import (
    WATCH_DIAGNOSTIC,
    CameraState,
    Diagnostic,
    Latency,
    Level,
    MemoryCounts,
    SceneState,
)
from delayed_vlm_ros.web.components import block, markup, set_text, set_visible, text
from delayed_vlm_ros.web.formatting import answer_latency, latency, size

_WIDTH, _HEIGHT = 300, 64
_BARS = 40
_MIN_SCALE_SEC = 0.1
_LEVELS = {Level.OK: "OK", Level.WARN: "Warning", Level.STALE: "Stale", Level.ERROR: "Error"}
_WORST_FIRST = (Level.ERROR, Level.STALE, Level.WARN, Level.OK)
_KINDS = (("pixels", "Images"), ("features", "Vision features"), ("kv", "KV cache"))


class HealthPanel:
    """Statistics, charts and diagnostics."""

    def __init__(self) -> None:
        with block("section", "panel health").props('data-view=health aria-label="Health"'):
            with block("header", "panel-head"):
                text("h2", "Health")
                self._model = text("span", "", "quiet")
            with block("div", "figures"):
                self._ratio = _Figure("compression ratio")
                self._rate = _Figure("fps")
                self._answers = _Figure("answers")
            with block("div", "chart"):
                with block("div", "chart-head"):
                    text("h3", "Memory")
                    self._budget = text("span", "", "quiet")
                self._bar = markup("", "bytes").props('role=img aria-label="Memory by kind"')
                with block("div", "legend"):
                    self._sizes = {kind: _legend_entry(kind, name) for kind, name in _KINDS}
            with block("div", "chart"):
                with block("div", "chart-head"):
                    text("h3", "Latency")
                    self._newest = text("span", "", "quiet")
                self._no_answers = text("p", "The latency of each answer appears here.", "empty small")
                self._latencies = markup("", "latencies").props('role=img aria-label="Latency of the latest answers"')
            self._diagnostics = _DiagnosticList()

    def update(self, state: SceneState, camera: CameraState | None) -> None:
        """Show the current state.

        Args:
            state: State of the whole system.
            camera: Selected camera; None if there is none.
        """
        counts = camera.counts if camera is not None else MemoryCounts()
        device = f" on {state.device}" if state.device else ""
        set_text(self._model, f"{state.model}{device}" if state.model else "")
        self._ratio.update(f"{counts.compression_ratio:.1f}" if counts.added else "–")
        self._rate.update(f"{camera.input_rate_hz:.1f}" if camera is not None else "–")
        failed = f" + {state.questions_failed} failed" if state.questions_failed else ""
        self._answers.update(f"{state.questions_answered}{failed}")
        self._update_bytes(counts)
        self._update_latencies(state.latencies[-_BARS:])
        self._diagnostics.update(_without_watches(state.diagnostics), [one.name for one in state.cameras])

    def _update_bytes(self, counts: MemoryCounts) -> None:
        sizes = {"pixels": counts.pixel_bytes, "features": counts.feature_bytes, "kv": counts.kv_bytes}
        total = sum(sizes.values())
        bound = f" of {size(counts.budget_bytes)}" if counts.budget_bytes else ", no budget set"
        set_text(self._budget, f"{size(total)}{bound}")
        whole = max(counts.budget_bytes, total, 1)
        bar = "".join(
            f'<span class="{kind}" style="width: {100 * count / whole:.2f}%"></span>' for kind, count in sizes.items()
        )
        if self._bar.content != bar:
            self._bar.set_content(bar)
        for kind, count in sizes.items():
            set_text(self._sizes[kind], size(count))

    def _update_latencies(self, latencies: Sequence[Latency]) -> None:
        set_visible(self._no_answers, visible=not latencies)
        set_visible(self._latencies, visible=bool(latencies))
        if latencies:
            set_text(self._newest, answer_latency(latencies[-1].first_token_sec, latencies[-1].total_sec))
        chart = latency_chart(latencies)
        if self._latencies.content != chart:
            self._latencies.set_content(chart)


def _without_watches(diagnostics: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Return the diagnostics without those of standing questions, which have a view of their own."""
    return tuple(one for one in diagnostics if not one.name.startswith(WATCH_DIAGNOSTIC))


def latency_chart(latencies: Sequence[Latency]) -> str:
    """Return an SVG chart with two bars an answer, total latency and time to first token, the newest at the right."""
    scale = max([_MIN_SCALE_SEC, *(one.total_sec for one in latencies)])
    step = _WIDTH / _BARS
    bars = []
    for index, one in enumerate(reversed(latencies)):
        left = _WIDTH - (index + 1) * step
        for kind, seconds in (("total", one.total_sec), ("first", min(one.first_token_sec, one.total_sec))):
            height = max(1.0, _HEIGHT * seconds / scale)
            bars.append(
                f'<rect class="{kind}" x="{left + 1:.1f}" y="{_HEIGHT - height:.1f}" width="{step - 2:.1f}" '
                f'height="{height:.1f}" rx="1.5"><title>{latency(seconds)}</title></rect>'
            )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none">{"".join(bars)}</svg>'
        f'<span class="scale">{latency(scale)}</span>'
    )


class _Figure:
    """A large number with its label."""

    def __init__(self, label: str) -> None:
        with block("div", "figure"):
            self._number = text("span", "–", "number")
            text("span", label, "quiet")

    def update(self, number: str) -> None:
        set_text(self._number, number)


def _legend_entry(kind: str, name: str) -> TextElement:
    with block("span", "legend-entry"):
        block("span", f"swatch {kind}")
        text("span", name)
        return text("span", "", "quiet")


class _DiagnosticList:
    """One line for each diagnostic, the worst first."""

    def __init__(self) -> None:
        self._shown: tuple[Diagnostic, ...] | None = None
        self._list = block("ul", "diagnostics").props("aria-label=Diagnostics")
        self.update((), ())

    def update(self, diagnostics: tuple[Diagnostic, ...], cameras: Sequence[str]) -> None:
        if diagnostics == self._shown:
            return
        self._shown = diagnostics
        self._list.clear()
        with self._list:
            if not diagnostics:
                text("li", "No diagnostics received yet.", "empty small")
            for diagnostic in sorted(diagnostics, key=lambda one: _WORST_FIRST.index(one.level)):
                with block("li", f"diagnostic level-{diagnostic.level.value}"):
                    text("span", _LEVELS[diagnostic.level], "level")
                    text("span", component_title(diagnostic.name, cameras), "diagnostic-name")
                    text("span", diagnostic.message, "diagnostic-message")


def component_title(name: str, cameras: Sequence[str]) -> str:
    """Return the title of a component; the name of a camera only where there are several.

    Args:
        name: Name of the component, such as ``model`` or ``memory front``.
        cameras: Names of all cameras.
    """
    kind, _, camera = name.partition(" ")
    title = kind if [camera] == list(cameras) else name
    return title if "_" in kind else title[:1].upper() + title[1:]
