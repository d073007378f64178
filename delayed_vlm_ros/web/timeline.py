"""Timeline of a camera's day: all moments and gaps on one axis, with zoom. timeline.js draws it with ECharts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nicegui import ui

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import AnsweredQuestion, CameraState, KeptFrame, SceneState, WatchAlert
from delayed_vlm_ros.web.components import block, set_text, set_visible, text
from delayed_vlm_ros.web.formatting import clock, quantity, utc_offsets
from delayed_vlm_ros.web.journal_feed import JournalFeed
from delayed_vlm_ros.web.timeline_events import Moment, changes, event_of, gap_summary, moments_of

_NANOSECONDS_PER_MS = 1_000_000
_MAX_EVENTS_PER_MESSAGE = 2000  # a message of all moments must not block the updates of the page
_HELP = "Timeline. Left and right: moments. Up and down: kinds. Enter: open. Plus and minus: zoom. 0: the whole time."
_LEGEND = (
    ("star", "in Star"),
    ("stream", "in Stream"),
    ("marked", "marked"),
    ("yes", "alert yes"),
    ("no", "alert no"),
    ("answered", "question"),
    ("failed", "failed question"),
    ("line", "journal"),
    ("gap", "no images"),
    ("unknown", "not observed"),
)
_RANGES = (("all", "All"), ("3600000", "Hour"), ("600000", "10 min"), ("60000", "1 min"))


@dataclass
class _Sent:
    """What the browser has."""

    camera: str | None = None
    moments: dict[str, Moment] = field(default_factory=dict)
    frame: dict[str, Any] = field(default_factory=dict)


class Timeline:
    """The timeline in one browser.

    Args:
        journal: Lines of the journal.
        on_open: Callback for a click on a moment.
        on_limit: Callback to limit the next questions to the visible time, called with ``since`` and ``until`` in
            nanoseconds; ``until`` is 0 if the visible time ends now.
    """

    def __init__(
        self, journal: JournalFeed, on_open: Callable[[Moment], None], on_limit: Callable[[int, int], None]
    ) -> None:
        self._journal = journal
        self._on_open = on_open
        self._on_limit = on_limit
        self._sent = _Sent()
        self._element = block("div", "timeline")
        with self._element:
            self._tools()
            plot = block("div", "timeline-plot").props(f'tabindex=0 role=application aria-label="{_HELP}"')
            plot.on("open-moment", self._open, js_handler="(event) => emit(event.detail)")
            with plot:
                self._chart = ui.echart({"animation": False}).classes("timeline-chart").props("aria-hidden=true")
            text("p", "", "only-read-aloud timeline-spoken").props("role=status")
            with block("div", "legend"):
                for kind, name in _LEGEND:
                    with block("span", "legend-entry"):
                        block("span", f"swatch swatch-{kind}")
                        text("span", name, "quiet")
            self._summary = text("p", "", "quiet small")
            self._error = text("p", "", "warning")

    def _tools(self) -> None:
        with block("div", "timeline-tools").props('role=group aria-label="Visible time"'):
            for value, name in _RANGES:
                text("button", name, "chip").props(f"type=button data-range={value}")
            text("button", "−", "chip").props('type=button data-zoom=out aria-label="Zoom out"')
            text("button", "+", "chip").props('type=button data-zoom=in aria-label="Zoom in"')
            text("span", "", "quiet timeline-range").props("aria-live=off")
            ask = text("button", "Ask about this time", "chip").props("type=button data-ask-range")
            text("button", "Export", "chip").props(
                'type=button data-export title="Save the visible time as a ZIP file"'
            )
            ask.on("ask-range", self._limit, js_handler="(event) => emit(event.detail)")

    def update(self, state: SceneState, camera: CameraState | None) -> None:
        """Show the current moments of a camera; None if there is none."""
        moments = (
            moments_of(camera, state.alerts, state.answers, self._journal.lines, is_first=camera is state.camera(""))
            if camera is not None
            else {}
        )
        set_visible(self._element, visible=bool(moments))
        if camera is None or not moments:
            return
        if camera.name != self._sent.camera:
            self._sent = _Sent(camera.name)
        self._send(camera, moments, state.now_ns)
        set_text(self._summary, _summary(moments, camera))
        set_text(self._error, self._journal.error)
        set_visible(self._error, visible=bool(self._journal.error))

    def _send(self, camera: CameraState, moments: dict[str, Moment], now_ns: int) -> None:
        is_new = not self._sent.frame
        changed = dict(changes(self._sent.moments, moments))
        first_ns = min(moment.stamp_ns for moment in moments.values())
        frame = {
            "first": first_ns / _NANOSECONDS_PER_MS,
            "offsets": utc_offsets(first_ns, max(first_ns, now_ns)),
            "spans": [
                [span.since_ns / _NANOSECONDS_PER_MS, span.until_ns / _NANOSECONDS_PER_MS, span.has_images]
                for span in camera.spans
            ],
        }
        self._sent.moments, self._sent.frame = moments, frame
        added = [event_of(key, moment).row for key, moment in changed.items() if moment is not None]
        message = {
            **frame,
            "now": now_ns / _NANOSECONDS_PER_MS,
            "reset": is_new,
            "removed": [key for key, moment in changed.items() if moment is None],
        }
        for start in range(0, max(1, len(added)), _MAX_EVENTS_PER_MESSAGE):
            part = {**message, "added": added[start : start + _MAX_EVENTS_PER_MESSAGE]}
            ui.run_javascript(f"timeline.update({self._chart.id}, {json.dumps(part)})")
            message = {**message, "reset": False, "removed": []}

    def _open(self, event: Any) -> None:
        moment = self._sent.moments.get(str(event.args))
        if moment is not None:
            self._on_open(moment)

    def _limit(self, event: Any) -> None:
        values = event.args
        if isinstance(values, list) and all(isinstance(value, int | float) for value in values):
            since_ms, until_ms = values
            self._on_limit(int(since_ms * _NANOSECONDS_PER_MS), int(until_ms * _NANOSECONDS_PER_MS))


def _summary(moments: dict[str, Moment], camera: CameraState) -> str:
    """Return the number of moments of each kind and what is known about gaps."""
    kinds = (
        (KeptFrame, "kept pair"),
        (WatchAlert, "alert"),
        (AnsweredQuestion, "question"),
        (JournalLine, "journal line"),
    )
    counts = [(sum(isinstance(moment, kind) for moment in moments.values()), name) for kind, name in kinds]
    shown = ", ".join(quantity(count, name) for count, name in counts if count)
    since = clock(camera.spans[0].since_ns) if camera.spans else ""
    return f"{shown}. {gap_summary(camera.spans, since)}"
