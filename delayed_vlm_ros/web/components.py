"""Building blocks of the page. Text is always inserted as text, so markup in it is shown and never executed."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from delayed_vlm_ros.web.backend import KeptFrame, WatchAlert
from delayed_vlm_ros.web.formatting import clock


def text(tag: str, content: str = "", classes: str = "") -> TextElement:
    """Create an element that contains only text."""
    element = TextElement(tag=tag, text=content)
    element.classes(classes)
    return element


def block(tag: str, classes: str = "") -> ui.element:
    """Create an element that contains other elements."""
    return ui.element(tag).classes(classes)


def button(label: str, on_click: Callable[[], object], classes: str = "") -> TextElement:
    """Create a button with a text label."""
    element = text("button", label, classes)
    element.props("type=button").on("click", on_click, args=[])
    return element


def markup(content: str, classes: str = "") -> ui.html:
    """Create an element from trusted HTML. Never pass user input."""
    return ui.html(content, sanitize=False).classes(classes)


def set_visible(element: ui.element, *, visible: bool) -> None:
    """Show or hide an element; send nothing to the browser without a change."""
    if element.visible != visible:
        element.set_visibility(visible)


def set_text(element: TextElement, content: str) -> None:
    """Set the text of an element; send nothing to the browser without a change."""
    if element.text != content:
        element.set_text(content)


def thumbnail(frame: KeptFrame, *, second: bool = False) -> ui.element:
    """Create the first or second image of a kept pair."""
    which = "second" if second else "first"
    image = ui.element("img")
    image.props["src"] = f"/frames/{frame.key}/{which}.jpg"
    image.props["alt"] = ""
    image.props["decoding"] = "async"
    return image


def description(frame: KeptFrame) -> str:
    """Return the time of a kept pair and the reason for keeping it."""
    return f"Frame of {clock(frame.stamp_ns)}, {frame.reason or 'unremarkable'}"


def alert_description(alert: WatchAlert) -> str:
    """Return question, answer and time of an alert."""
    return f"{alert.question} {'Yes' if alert.is_rising else 'No'}, {clock(alert.stamp_ns)}"


class FrameCard:
    """Button with the image, time, score, reason and mark of a kept pair, for a group with ``data-grid`` (grids.js).

    Args:
        frame: Pair to show.
        time: Age or clock time of the pair, as text.
        on_open: Callback for a click, called with the pair.
        relevance: Share of an answer that rests on the pair, 0..1, to show instead of the score; None outside evidence.
    """

    def __init__(
        self,
        frame: KeptFrame,
        time: str,
        on_open: Callable[[KeptFrame], None],
        relevance: float | None = None,
    ) -> None:
        self._frame = frame
        self._relevance = relevance
        self._aria_label = ""
        self.element = block("button", "frame-card").props("type=button tabindex=-1")
        self.element.on("click", lambda: on_open(self._frame), args=[])
        with self.element:
            with block("span", "frame-image"):
                thumbnail(frame)
                self._mark = text("span", "★", "frame-mark")
            with block("span", "frame-line"):
                self._time = text("span", "", "frame-time")
                self._score = text("span", "", "frame-score")
            self._reason = text("span", "", "frame-reason")
        self.update(frame, time)

    def update(self, frame: KeptFrame, time: str) -> None:
        """Show the current state of the pair."""
        self._frame = frame
        set_text(self._time, time)
        relevance = self._relevance
        set_text(self._score, f"{frame.importance:.2f}" if relevance is None else f"{relevance:.0%}")
        set_text(self._reason, frame.label or frame.reason)
        set_visible(self._mark, visible=frame.marked)
        mark = f", marked {frame.label}".rstrip() if frame.marked else ""
        value = f"score {frame.importance:.2f}" if relevance is None else f"relevance {relevance:.0%}"
        aria_label = f"{description(frame)}, {value}{mark}"
        if aria_label != self._aria_label:
            self._aria_label = aria_label
            self.element.props["aria-label"] = aria_label
            self.element.update()
