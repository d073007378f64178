"""Search for moments on the page: a box for a description, and the moments found."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from nicegui import ui

from delayed_vlm_ros.errors import BusyError, DelayedVlmError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.inference.moments import DEFAULT_MAX_MOMENTS, check_search
from delayed_vlm_ros.web.backend import Backend, CameraState, FoundMoment, KeptFrame, SearchOutcome
from delayed_vlm_ros.web.components import block, set_text, set_visible, text
from delayed_vlm_ros.web.conversation import check_text
from delayed_vlm_ros.web.formatting import clock, quantity, sentence

_SUBMIT = "(event) => { event.preventDefault(); emit(event.target.elements.description.value) }"


class SearchBox:
    """Box for a description, and the moments that fit it.

    Args:
        backend: Scene memory to search.
        searching: Lock of all open pages: one searches at a time.
        max_characters: Maximum length of a description, in characters.
        camera: Returns the camera that the page shows; None if there is none.
        on_open: Callback for a click on a moment, called with its best frame, or with its line of the journal.
    """

    def __init__(
        self,
        backend: Backend,
        searching: asyncio.Lock,
        max_characters: int,
        camera: Callable[[], CameraState | None],
        on_open: Callable[[KeptFrame | JournalLine], None],
    ) -> None:
        self._backend = backend
        self._searching = searching
        self._max_characters = max_characters
        self._camera = camera
        self._on_open = on_open
        with block("form", "search").props("role=search") as form:
            block("input", "field").props(
                f"name=description type=search maxlength={max_characters} "
                'placeholder="Find a moment: a person who carries something" aria-label="Find a moment" '
                "autocomplete=off enterkeyhint=search"
            )
            self._button = text("button", "Find", "primary").props("type=submit")
        self._status = text("p", "", "quiet small").props("role=status")
        self._error = text("p", "", "error").props("role=alert")
        self._found = block("div", "found-track").props('data-grid role=group aria-label="Found moments"')
        self._warnings = block("div", "search-warnings")
        form.on("submit", self._submit, js_handler=_SUBMIT)
        self._show_state("")

    async def _submit(self, event: object) -> None:
        try:
            description = str(getattr(event, "args", "") or "")
            check_search(description, None, None, DEFAULT_MAX_MOMENTS)
            check_text(description, self._max_characters)
            if self._searching.locked():
                raise BusyError("a search is running in this or another browser: wait for its end, then retry")
            async with self._searching:
                self._show_state("Searching…")
                self._button.props("disabled").update()
                camera = self._camera()
                name = camera.name if camera is not None else ""
                outcome = await asyncio.to_thread(self._backend.find, description, name)
        except DelayedVlmError as error:
            self._show_state("", sentence(error))
        else:
            self._show(outcome)
        finally:
            self._button.props(remove="disabled").update()

    def _show_state(self, status: str, error: str = "") -> None:
        set_text(self._status, status)
        set_text(self._error, error)
        set_visible(self._status, visible=bool(status))
        self._found.clear()
        self._warnings.clear()

    def _show(self, outcome: SearchOutcome) -> None:
        fitting = [moment for moment in outcome.moments if moment.fits]
        self._show_state(_summary(len(fitting), outcome))
        with self._found:
            for moment in fitting:
                self._card(moment)
        with self._warnings:
            for warning in outcome.warnings:
                text("p", sentence(warning), "warning")

    def _card(self, moment: FoundMoment) -> None:
        card = block("button", "frame-card found").props("type=button tabindex=-1")
        card.props["aria-label"] = f"{_times(moment)}, score {moment.score:.2f}, {_origin(moment)}"
        shown = moment.frame or moment.line
        if shown is not None:
            card.on("click", lambda: self._on_open(shown), args=[])
        with card:
            with block("span", "frame-image"):
                if moment.jpeg:
                    image = ui.element("img").props('alt=""')
                    image.props["src"] = f"data:image/jpeg;base64,{base64.b64encode(moment.jpeg).decode()}"
            with block("span", "frame-line"):
                text("span", clock(moment.stamp_ns), "frame-time")
                text("span", f"{moment.score:.2f}", "frame-score")
            text("span", _origin(moment), "frame-reason")


def _times(moment: FoundMoment) -> str:
    begin, end = clock(moment.stamp_ns), clock(moment.end_stamp_ns)
    return begin if begin == end else f"{begin} to {end}"


def _origin(moment: FoundMoment) -> str:
    if moment.line is not None:
        return f"journal: {moment.line.caption}"
    return (moment.frame.label or moment.frame.reason) if moment.frame is not None else "no longer kept"


def _summary(fitting: int, outcome: SearchOutcome) -> str:
    searched = quantity(outcome.pairs_searched, "pair")
    if outcome.journal_lines_searched:
        searched = f"{searched} of frames and {quantity(outcome.journal_lines_searched, 'line')} of the journal"
    else:
        searched = f"{searched} of frames"
    return f"{quantity(fitting, 'moment') if fitting else 'No moment'} found in {searched}."
