"""View of the kept frames: a timeline of the whole history, and Star and Stream as strips of thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nicegui import ui

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of
from delayed_vlm_ros.web.backend import CameraState, KeptFrame, WatchAlert
from delayed_vlm_ros.web.components import FrameCard, alert_description, block, description, set_text, set_visible, text
from delayed_vlm_ros.web.formatting import age, quantity, time_marks

_MAX_CARDS = 80  # in a strip; a memory may hold a thousand pairs
_MIN_SPAN_SEC = 10.0
_LABEL_MARGIN = 0.04
"""Share of the timeline at both ends without a label, which would not fit."""


class MemoryPanel:
    """The memory of one camera.

    Args:
        on_open: Callback for a click on a frame, called with the frame.
        on_open_alert: Callback for a click on an alert, called with the first frame of its evidence and all of them.
    """

    def __init__(
        self,
        on_open: Callable[[KeptFrame], None],
        on_open_alert: Callable[[KeptFrame, Sequence[KeptFrame]], None],
    ) -> None:
        with block("section", "panel memory").props('data-view=memory aria-label="Memory"'):
            with block("header", "panel-head"):
                text("h2", "Memory")
                self._counts = text("span", "", "quiet")
            self._empty = text("p", "", "empty")
            self._timeline = _Timeline(on_open, on_open_alert)
            self._star = _Strip(
                "Star",
                "key frames of the whole history",
                "No key frames yet. A frame is added when the scene changes, when something new appears, or when you "
                "mark it.",
                on_open,
            )
            self._stream = _Strip("Stream", "the newest frames", "", on_open)

    def update(self, camera: CameraState | None, alerts: Sequence[WatchAlert], now_ns: int) -> None:
        """Show the current memory of a camera.

        Args:
            camera: The camera; None if there is none.
            alerts: Alerts of all cameras.
            now_ns: Current time on the cameras' clock, in nanoseconds.
        """
        frames = camera.frames if camera is not None else ()
        set_visible(self._empty, visible=not frames)
        if not frames:
            set_text(self._empty, _empty(camera))
        set_text(self._counts, _counts(camera))
        own = [alert for alert in alerts if camera is not None and alert.camera == camera.name]
        self._timeline.update(frames, own, now_ns)
        self._star.update([frame for frame in frames if frame.in_star], now_ns, any_kept=bool(frames))
        self._stream.update([frame for frame in frames if frame.in_stream], now_ns, any_kept=bool(frames))


def _empty(camera: CameraState | None) -> str:
    if camera is None:
        return "Kept frames appear here once a camera is connected."
    topic = f" on {camera.topic}" if camera.topic else ""
    return f"The memory is empty. The first frame is kept when images arrive{topic}."


def _counts(camera: CameraState | None) -> str:
    if camera is None or not camera.counts.added:
        return ""
    return f"{camera.counts.unique} of {quantity(camera.counts.added, 'frame')} kept"


class _Strip:
    """Frames in a row, the newest at the right; a new frame slides in there."""

    def __init__(self, title: str, meaning: str, empty: str, on_open: Callable[[KeptFrame], None]) -> None:
        self._on_open = on_open
        self._cards: dict[str, FrameCard] = {}
        self._element = block("div", f"strip strip-{title.lower()}")
        with self._element:
            with block("div", "strip-head"):
                text("h3", title)
                text("span", meaning, "quiet")
                self._more = text("span", "", "quiet")
            self._empty = text("p", empty, "empty small")
            self._track = block("div", "strip-track").props(f'data-grid role=group aria-label="{title} memory"')

    def update(self, frames: Sequence[KeptFrame], now_ns: int, *, any_kept: bool) -> None:
        shown = list(frames[-_MAX_CARDS:])
        hidden = len(frames) - len(shown)
        set_text(self._more, f"and {hidden} older" if hidden else "")
        set_visible(self._element, visible=any_kept)
        set_visible(self._empty, visible=not frames)
        set_visible(self._track, visible=bool(frames))
        wanted = {frame.key for frame in shown}
        for key in [key for key in self._cards if key not in wanted]:
            self._cards.pop(key).element.delete()
        for index, frame in enumerate(reversed(shown)):
            card = self._cards.get(frame.key)
            if card is not None:
                card.update(frame, age(now_ns, frame.stamp_ns))
                continue
            with self._track:
                card = FrameCard(frame, age(now_ns, frame.stamp_ns), self._on_open)
            if index < len(self._cards):
                card.element.move(self._track, target_index=index)
            self._cards[frame.key] = card


class _Timeline:
    """All kept frames and alerts, from the oldest frame until now, above an axis with times.

    A tick stores only its own time. Two numbers of the whole timeline, its start and its span, position all ticks.
    """

    def __init__(
        self,
        on_open: Callable[[KeptFrame], None],
        on_open_alert: Callable[[KeptFrame, Sequence[KeptFrame]], None],
    ) -> None:
        self._on_open = on_open
        self._on_open_alert = on_open_alert
        self._alerts: dict[str, ui.element] = {}
        self._frames: dict[str, KeptFrame] = {}
        self._ticks: dict[str, tuple[ui.element, str]] = {}
        self._labels: dict[tuple[int, str], ui.element] = {}
        self._origin_ns = 0
        self._element = block("div", "timeline").props('role=group aria-label="Timeline"')
        with self._element:
            self._line = block("div", "timeline-line").props('data-grid role=group aria-label="Kept frames and alerts"')
            self._axis = block("div", "timeline-labels").props("aria-hidden=true")
            with block("div", "timeline-ends quiet"):
                self._oldest = text("span")
                text("span", "now")

    def update(self, frames: Sequence[KeptFrame], alerts: Sequence[WatchAlert], now_ns: int) -> None:
        set_visible(self._element, visible=bool(frames))
        if not frames:
            return
        first_ns = frames[0].stamp_ns
        if not self._ticks:
            self._origin_ns = first_ns
        oldest = age(now_ns, first_ns)
        set_text(self._oldest, oldest if oldest == "now" else f"{oldest} ago")
        start = seconds_of(first_ns - self._origin_ns)
        span = max(_MIN_SPAN_SEC, seconds_of(now_ns - first_ns))
        self._element.style(f"--start: {start:.1f}; --span: {span:.1f}")
        self._update_labels(first_ns, first_ns + round(span * NANOSECONDS_PER_SECOND))
        self._frames = {frame.key: frame for frame in frames}
        for key in [key for key in self._ticks if key not in self._frames]:
            self._ticks.pop(key)[0].delete()
        for key, frame in self._frames.items():
            self._update_tick(key, frame)
        self._update_alerts({alert.key: alert for alert in alerts if alert.stamp_ns >= first_ns})

    def _update_alerts(self, alerts: Mapping[str, WatchAlert]) -> None:
        for key in self._alerts.keys() - alerts.keys():
            self._alerts.pop(key).delete()
        for key in [key for key in alerts if key not in self._alerts]:
            self._alerts[key] = self._alert_mark(alerts[key])

    def _alert_mark(self, alert: WatchAlert) -> ui.element:
        with self._line:
            mark = block("button", f"alert-mark alert-{'yes' if alert.is_rising else 'no'}")
        mark.props("type=button tabindex=-1")
        mark.props["aria-label"] = mark.props["title"] = f"Alert: {alert_description(alert)}"
        mark.style(f"--at: {seconds_of(alert.stamp_ns - self._origin_ns):.2f}")
        if alert.evidence:
            mark.on("click", lambda: self._on_open_alert(alert.evidence[0], alert.evidence), args=[])
        return mark

    def _update_labels(self, since_ns: int, until_ns: int) -> None:
        margin_ns = round(_LABEL_MARGIN * (until_ns - since_ns))
        marks = time_marks(since_ns + margin_ns, until_ns - margin_ns)
        for mark in self._labels.keys() - marks:
            self._labels.pop(mark).delete()
        for stamp_ns, label in (mark for mark in marks if mark not in self._labels):
            with self._axis:
                shown = text("span", label, "timeline-label")
            self._labels[stamp_ns, label] = shown.style(f"--at: {seconds_of(stamp_ns - self._origin_ns):.2f}")

    def _update_tick(self, key: str, frame: KeptFrame) -> None:
        kind = _kind(frame)
        present = self._ticks.get(key)
        if present is None:
            with self._line:
                tick = block("button", f"tick {kind}").props("type=button tabindex=-1")
            tick.props["aria-label"] = tick.props["title"] = description(frame)
            tick.style(f"--at: {seconds_of(frame.stamp_ns - self._origin_ns):.2f}")
            tick.on("click", lambda: self._open(key), args=[])
            self._ticks[key] = (tick, kind)
        elif present[1] != kind:
            self._ticks[key] = (present[0].classes(remove=present[1], add=kind), kind)

    def _open(self, key: str) -> None:
        frame = self._frames.get(key)
        if frame is not None:
            self._on_open(frame)


def _kind(frame: KeptFrame) -> str:
    if frame.marked:
        return "tick-marked"
    return "tick-star" if frame.in_star else "tick-stream"
