"""Small pieces of the page. Text goes into elements as text, so markup in it is shown and never run."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from delayed_vlm_ros.web.backend import KeptFrame


def text(tag: str, words: str = "", classes: str = "") -> TextElement:
    """An element that holds nothing but text."""
    element = TextElement(tag=tag, text=words)
    element.classes(classes)
    return element


def block(tag: str, classes: str = "") -> ui.element:
    """An element to put others into."""
    return ui.element(tag).classes(classes)


def button(words: str, act: Callable[[], object], classes: str = "") -> TextElement:
    """A button with words on it."""
    element = text("button", words, classes)
    element.props("type=button").on("click", act, args=[])
    return element


def drawing(markup: str, classes: str = "") -> ui.html:
    """Markup of the page's own; never with anything in it that somebody typed."""
    return ui.html(markup, sanitize=False).classes(classes)


def show(element: ui.element, *, visible: bool) -> None:
    """Show or hide an element; touches it only when that changes."""
    if element.visible != visible:
        element.set_visibility(visible)


def say(element: TextElement, words: str) -> None:
    """Change an element's text, if it is another one."""
    if element.text != words:
        element.set_text(words)


def thumbnail(moment: KeptFrame, *, second: bool = False) -> ui.element:
    """A moment's image."""
    which = "second" if second else "first"
    image = ui.element("img")
    image.props["src"] = f"/moments/{moment.key}/{which}.jpg"
    image.props["alt"] = ""
    image.props["decoding"] = "async"
    return image


class FrameCard:
    """A moment as a button: image, age, score, reason and mark.

    Args:
        moment: What it shows.
        when: When it was, in words.
        opened: Called with the moment when somebody chooses it.
    """

    def __init__(self, moment: KeptFrame, when: str, opened: Callable[[KeptFrame], None]) -> None:
        self._moment = moment
        self.element = block("button", "moment").props("type=button")
        self.element.on("click", lambda: opened(self._moment), args=[])
        with self.element:
            with block("span", "moment-image"):
                thumbnail(moment)
                self._mark = text("span", "★", "moment-mark")
            with block("span", "moment-line"):
                self._age = text("span", "", "moment-age")
                self._score = text("span", "", "moment-score")
            self._reason = text("span", "", "moment-reason")
        self._described = ""
        self.show(moment, when)

    def show(self, moment: KeptFrame, when: str) -> None:
        """Bring it up to date."""
        self._moment = moment
        say(self._age, when)
        say(self._score, f"{moment.importance:.2f}")
        say(self._reason, moment.label or moment.reason)
        show(self._mark, visible=moment.marked)
        marked = f", marked {moment.label}".rstrip() if moment.marked else ""
        described = f"Moment {moment.id}, {moment.reason or 'not notable'}, score {moment.importance:.2f}{marked}"
        if described != self._described:
            self._described = described
            self.element.props["aria-label"] = described
            self.element.update()
