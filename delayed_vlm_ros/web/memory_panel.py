"""What is kept: a timeline of the whole history, Star and Stream as strips of thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicegui import ui

from delayed_vlm_ros.time import seconds_of
from delayed_vlm_ros.web.backend import CameraState, KeptFrame
from delayed_vlm_ros.web.components import FrameCard, block, say, show, text
from delayed_vlm_ros.web.formatting import age, count_of

_SHOWN = 80
"""Most moments in a strip; a memory may hold a thousand."""

_SHORTEST_SPAN_SEC = 10.0


class MemoryPanel:
    """The memory of one camera.

    Args:
        opened: Called with a moment that somebody chooses.
    """

    def __init__(self, opened: Callable[[KeptFrame], None]) -> None:
        with block("section", "panel memory").props('data-view=memory aria-label="Memory"'):
            with block("header", "panel-head"):
                text("h2", "Memory")
                self._counts = text("span", "", "quiet")
            self._empty = text("p", "", "empty")
            self._timeline = _Timeline(opened)
            self._star = _Strip(
                "Star",
                "key frames of the whole past",
                "No key frame yet. A moment comes here when the scene changes, when something new shows, or when you "
                "mark it.",
                opened,
            )
            self._stream = _Strip("Stream", "the newest frames", "", opened)

    def show(self, camera: CameraState | None, now_ns: int) -> None:
        """Bring it up to date; None: there is no camera."""
        moments = camera.frames if camera is not None else ()
        show(self._empty, visible=not moments)
        if camera is None or not moments:
            topic = f" on {camera.topic}" if camera is not None and camera.topic else ""
            say(self._empty, f"Nothing is kept yet. The first moment comes with the first images{topic}.")
        say(self._counts, _counts(camera))
        self._timeline.show(moments, now_ns)
        self._star.show([moment for moment in moments if moment.in_star], now_ns, any_kept=bool(moments))
        self._stream.show([moment for moment in moments if moment.in_stream], now_ns, any_kept=bool(moments))


def _counts(camera: CameraState | None) -> str:
    if camera is None or not camera.counts.added:
        return ""
    return f"{count_of(camera.counts.unique, 'frame')} kept of {camera.counts.added} taken in"


class _Strip:
    """Moments beside each other, the newest at the right; a new one slides in there."""

    def __init__(self, title: str, meaning: str, empty: str, opened: Callable[[KeptFrame], None]) -> None:
        self._opened = opened
        self._cards: dict[str, FrameCard] = {}
        self._element = block("div", f"strip strip-{title.lower()}")
        with self._element:
            with block("div", "strip-head"):
                text("h3", title)
                text("span", meaning, "quiet")
                self._more = text("span", "", "quiet")
            self._empty = text("p", empty, "empty small")
            self._track = block("div", "strip-track").props(f'role=group aria-label="{title} memory"')

    def show(self, moments: Sequence[KeptFrame], now_ns: int, *, any_kept: bool) -> None:
        shown = list(moments[-_SHOWN:])
        left_out = len(moments) - len(shown)
        say(self._more, f"and {left_out} older" if left_out else "")
        show(self._element, visible=any_kept)
        show(self._empty, visible=not moments)
        show(self._track, visible=bool(moments))
        wanted = {moment.key for moment in shown}
        for key in [key for key in self._cards if key not in wanted]:
            self._cards.pop(key).element.delete()
        newest_first = list(reversed(shown))
        for place, moment in enumerate(newest_first):
            card = self._cards.get(moment.key)
            if card is not None:
                card.show(moment, age(now_ns, moment.stamp_ns))
                continue
            with self._track:
                card = FrameCard(moment, age(now_ns, moment.stamp_ns), self._opened)
            if place < len(self._cards):
                card.element.move(self._track, target_index=place)
            self._cards[moment.key] = card


class _Timeline:
    """The whole history from the oldest kept moment until now, with all that is kept of it.

    Each tick says only when it was; where that is stands in two numbers of the whole.
    """

    def __init__(self, opened: Callable[[KeptFrame], None]) -> None:
        self._opened = opened
        self._ticks: dict[str, tuple[ui.element, str]] = {}
        self._origin_ns = 0
        self._element = block("div", "timeline").props('role=group aria-label="Timeline"')
        with self._element:
            self._line = block("div", "timeline-line")
            with block("div", "timeline-ends quiet"):
                self._oldest = text("span")
                text("span", "now")

    def show(self, moments: Sequence[KeptFrame], now_ns: int) -> None:
        show(self._element, visible=bool(moments))
        if not moments:
            return
        first_ns = moments[0].stamp_ns
        if not self._ticks:
            self._origin_ns = first_ns
        ago = age(now_ns, first_ns)
        say(self._oldest, ago if ago == "now" else f"{ago} ago")
        start = seconds_of(first_ns - self._origin_ns)
        span = max(_SHORTEST_SPAN_SEC, seconds_of(now_ns - first_ns))
        self._line.style(f"--start: {start:.1f}; --span: {span:.1f}")
        wanted = {moment.key: moment for moment in moments}
        for key in [key for key in self._ticks if key not in wanted]:
            self._ticks.pop(key)[0].delete()
        for key, moment in wanted.items():
            kind = _kind(moment)
            there = self._ticks.get(key)
            if there is None:
                with self._line:
                    tick = block("button", f"tick {kind}").props("type=button tabindex=-1")
                tick.props["aria-label"] = f"Moment {moment.id}"
                tick.style(f"--at: {seconds_of(moment.stamp_ns - self._origin_ns):.2f}")
                tick.on("click", lambda key=key: self._open(key), args=[])
            elif there[1] != kind:
                tick = there[0].classes(remove=there[1], add=kind)
            else:
                continue
            self._ticks[key] = (tick, kind)
        self._moments = wanted

    def _open(self, key: str) -> None:
        moment = self._moments.get(key)
        if moment is not None:
            self._opened(moment)


def _kind(moment: KeptFrame) -> str:
    if moment.marked:
        return "tick-marked"
    return "tick-star" if moment.in_star else "tick-stream"
