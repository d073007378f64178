"""How the memory is: bytes by kind against the budget, compression, latencies over time, diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui.elements.mixins.text_element import TextElement

from delayed_vlm_ros.web.backend import CameraState, Diagnostic, Latency, Level, MemoryCounts, SceneState
from delayed_vlm_ros.web.components import block, drawing, say, show, text
from delayed_vlm_ros.web.formatting import latency, size

_WIDTH, _HEIGHT = 300, 64
_BARS = 40
_SHORTEST_SCALE_SEC = 0.1
_LEVELS = {Level.OK: "OK", Level.WARN: "Warning", Level.STALE: "Stale", Level.ERROR: "Error"}
_KINDS = (("pixels", "Images"), ("features", "Vision features"), ("kv", "KV cache"))


class HealthPanel:
    """Numbers and diagnostics."""

    def __init__(self) -> None:
        with block("section", "panel health").props('data-view=health aria-label="Health"'):
            with block("header", "panel-head"):
                text("h2", "Health")
                self._model = text("span", "", "quiet")
            with block("div", "figures"):
                self._ratio = _Figure("seen for each kept")
                self._rate = _Figure("images a second")
                self._answers = _Figure("answers")
            with block("div", "chart"):
                with block("div", "chart-head"):
                    text("h3", "Memory")
                    self._budget = text("span", "", "quiet")
                self._bar = drawing("", "bytes").props('role=img aria-label="Memory by kind"')
                with block("div", "legend"):
                    self._sizes = {kind: _legend(kind, name) for kind, name in _KINDS}
            with block("div", "chart"):
                with block("div", "chart-head"):
                    text("h3", "Latency")
                    self._newest = text("span", "", "quiet")
                self._no_answers = text("p", "Each answer shows here what it took.", "empty small")
                self._latencies = drawing("", "latencies").props('role=img aria-label="Latency of the latest answers"')
            self._conditions = _Diagnostics()

    def show(self, state: SceneState, camera: CameraState | None) -> None:
        """Bring it up to date; camera: the one that is looked at."""
        kept = camera.counts if camera is not None else MemoryCounts()
        where = f" on {state.device}" if state.device else ""
        say(self._model, f"{state.model}{where}" if state.model else "")
        self._ratio.show(f"{kept.compression_ratio:.1f}" if kept.added else "–")
        self._rate.show(f"{camera.input_rate_hz:.1f}" if camera is not None else "–")
        self._answers.show(str(state.asks_served) + (f" + {state.asks_failed} failed" if state.asks_failed else ""))
        self._show_bytes(kept)
        self._show_latencies(state.latencies[-_BARS:])
        self._conditions.show(state.diagnostics)

    def _show_bytes(self, counts: MemoryCounts) -> None:
        sizes = {"pixels": kept.pixel_bytes, "features": kept.feature_bytes, "kv": kept.kv_bytes}
        total = sum(sizes.values())
        bound = f" of {size(kept.budget_bytes)}" if kept.budget_bytes else ", no budget set"
        say(self._budget, f"{size(total)}{bound}")
        whole = max(kept.budget_bytes, total, 1)
        bar = "".join(
            f'<span class="{kind}" style="width: {100 * count / whole:.2f}%"></span>' for kind, count in sizes.items()
        )
        if self._bar.content != bar:
            self._bar.set_content(bar)
        for kind, count in sizes.items():
            say(self._sizes[kind], size(count))

    def _show_latencies(self, latencies: Sequence[Latency]) -> None:
        show(self._no_answers, visible=not latencies)
        show(self._latencies, visible=bool(latencies))
        if latencies:
            newest = latencies[-1]
            say(self._newest, f"first word {latency(newest.first_token_sec)}, in all {latency(newest.total_sec)}")
        chart = latency_chart(latencies)
        if self._latencies.content != chart:
            self._latencies.set_content(chart)


def latency_chart(latencies: Sequence[Latency]) -> str:
    """A bar for each answer, the newest at the right: what it took in all, and within that to its first token."""
    scale = max([_SHORTEST_SCALE_SEC, *(one.total_sec for one in latencies)])
    step = _WIDTH / _BARS
    bars = []
    for place, one in enumerate(reversed(latencies)):
        left = _WIDTH - (place + 1) * step
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
    """One number, large, with what it means."""

    def __init__(self, meaning: str) -> None:
        with block("div", "figure"):
            self._number = text("span", "–", "number")
            text("span", meaning, "quiet")

    def show(self, number: str) -> None:
        say(self._number, number)


def _legend(kind: str, name: str) -> TextElement:
    with block("span", "legend-entry"):
        block("span", f"swatch {kind}")
        text("span", name)
        return text("span", "", "quiet")


class _Diagnostics:
    """The diagnostics, a line for each, the worst first."""

    def __init__(self) -> None:
        self._shown: tuple[Diagnostic, ...] | None = None
        self._list = block("ul", "conditions").props("aria-label=Diagnostics")
        self.show(())

    def show(self, conditions: tuple[Diagnostic, ...]) -> None:
        if conditions == self._shown:
            return
        self._shown = conditions
        order = {level: place for place, level in enumerate((Level.ERROR, Level.STALE, Level.WARN, Level.OK))}
        self._list.clear()
        with self._list:
            if not conditions:
                text("li", "No diagnostics are heard yet.", "empty small")
            for condition in sorted(conditions, key=lambda one: order[one.level]):
                with block("li", f"condition level-{condition.level.value}"):
                    text("span", _LEVELS[condition.level], "level")
                    text("span", condition.name, "condition-name")
                    text("span", condition.message, "condition-message")
