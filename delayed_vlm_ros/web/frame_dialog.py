"""Dialog with the two images of a kept pair, its stamp and mark, and limits for the next questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nicegui import ui

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.memory.marks import MAX_LABEL_CHARACTERS
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.web.backend import Backend, KeptFrame
from delayed_vlm_ros.web.components import block, button, set_text, set_visible, text, thumbnail
from delayed_vlm_ros.web.formatting import age, clock, sentence

# The typed label lives in the browser only: a value on the server would overwrite it with every update of the page.
_CLEAR_LABEL = "document.querySelector('.marking input').value = ''"


class FrameDialog:
    """Modal dialog; closed with Esc, with its button, or by a click outside.

    Args:
        backend: Scene memory that stores the marks.
        on_change: Callback for a changed mark.
        on_limit: Callback for the limits of the next questions, called with ``since`` and ``until`` in nanoseconds; 0
            leaves a limit unchanged.
    """

    def __init__(self, backend: Backend, on_change: Callable[[], None], on_limit: Callable[[int, int], None]) -> None:
        self._backend = backend
        self._on_change = on_change
        self._on_limit = on_limit
        self._frame: KeptFrame | None = None
        self._neighbours: Sequence[KeptFrame] = ()
        self._now_ns = 0
        with ui.dialog() as self._dialog, block("article", "frame-dialog").props('aria-label="Frame"'):
            with block("header", "frame-dialog-head"):
                self._title = text("h2")
                self._previous = button("←", lambda: self._step(-1), "plain older").props('aria-label="Older frame"')
                self._next = button("→", lambda: self._step(1), "plain newer").props('aria-label="Newer frame"')
                button("✕", self._dialog.close, "plain").props("aria-label=Close")
            self._images = block("div", "frame-dialog-images")
            self._facts = block("dl", "facts")
            with block("form", "marking") as form:
                self._label = block("input", "field").props(
                    f'name=label maxlength={MAX_LABEL_CHARACTERS} aria-label="Label" autocomplete=off'
                )
                self._mark = text("button", "★ Mark", "primary").props("type=submit")
                self._unmark = button("Unmark", self._remove_mark, "plain")
            form.on(
                "submit",
                self._set_mark,
                js_handler="(event) => { event.preventDefault(); emit(event.target.label.value) }",
            )
            text("p", "A marked frame stays in Star memory until you unmark it.", "quiet small")
            self._error = text("p", "", "error").props("role=alert")
            with block("footer", "frame-dialog-foot"):
                button("Ask about this", lambda: self._limit(since=True, until=True), "plain")
                button("Ask from here on", lambda: self._limit(since=True, until=False), "plain")
                button("Ask up to here", lambda: self._limit(since=False, until=True), "plain")

    def open(self, frame: KeptFrame, neighbours: Sequence[KeptFrame], now_ns: int) -> None:
        """Show a kept pair.

        Args:
            frame: Pair to show.
            neighbours: Pairs for the arrow buttons, oldest first.
            now_ns: Current time on the cameras' clock, in nanoseconds.
        """
        self._neighbours = neighbours
        self._now_ns = now_ns
        self._show(frame)
        self._dialog.open()

    def update(self, frames: Sequence[KeptFrame], now_ns: int) -> None:
        """Show the current state of the open pair, if it is among ``frames``."""
        shown = self._frame
        if shown is None or not self._dialog.value:
            return
        self._now_ns = now_ns
        current = next((frame for frame in frames if frame.key == shown.key), None)
        if current is not None and current != shown:
            self._show(current)

    def _show(self, frame: KeptFrame) -> None:
        is_other = self._frame is None or self._frame.key != frame.key
        was_complete = not is_other and self._frame is not None and _is_complete(self._frame)
        self._frame = frame
        set_text(self._title, f"Frame of {clock(frame.stamp_ns)}")
        keys = [one.key for one in self._neighbours]
        index = keys.index(frame.key) if frame.key in keys else -1
        set_visible(self._previous, visible=index > 0)
        set_visible(self._next, visible=0 <= index < len(keys) - 1)
        if is_other or _is_complete(frame) != was_complete:
            self._images.clear()
            with self._images:
                thumbnail(frame).props('alt="First image"')
                if _is_complete(frame):
                    thumbnail(frame, second=True).props('alt="Second image"')
        self._facts.clear()
        with self._facts:
            for name, value in _facts(frame, self._now_ns):
                text("dt", name)
                text("dd", value)
        if is_other:
            ui.run_javascript(_CLEAR_LABEL)
            set_text(self._error, "")
        placeholder = frame.label or "Label (optional)"
        if self._label.props.get("placeholder") != placeholder:
            self._label.props["placeholder"] = placeholder
            self._label.update()
        set_text(self._mark, "Change label" if frame.marked else "★ Mark")
        set_visible(self._unmark, visible=frame.marked)

    def _step(self, by: int) -> None:
        keys = [frame.key for frame in self._neighbours]
        if self._frame is None or self._frame.key not in keys:
            return
        index = keys.index(self._frame.key) + by
        if 0 <= index < len(keys):
            self._show(self._neighbours[index])

    async def _set_mark(self, event: object) -> None:
        label = str(getattr(event, "args", "") or "")[:MAX_LABEL_CHARACTERS].strip()
        frame = self._frame
        if frame is not None:
            await self._change(lambda: self._backend.mark(frame, label))

    async def _remove_mark(self) -> None:
        frame = self._frame
        if frame is not None:
            await self._change(lambda: self._backend.unmark(frame))

    async def _change(self, change: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(change)
        except DelayedVlmError as error:
            set_text(self._error, sentence(error))
        else:
            set_text(self._error, "")
            self._on_change()

    def _limit(self, *, since: bool, until: bool) -> None:
        frame = self._frame
        if frame is not None:
            self._on_limit(frame.stamp_ns if since else 0, frame.end_stamp_ns if until else 0)
            self._dialog.close()


def _is_complete(frame: KeptFrame) -> bool:
    return frame.end_stamp_ns != frame.stamp_ns


def _facts(frame: KeptFrame, now_ns: int) -> list[tuple[str, str]]:
    memories = " and ".join(name for name, holds in (("Star", frame.in_star), ("Stream", frame.in_stream)) if holds)
    ago = age(now_ns, frame.stamp_ns)
    facts = [
        ("Age", ago),
        ("Stamp", f"{frame.stamp_ns // NANOSECONDS_PER_SECOND}.{frame.stamp_ns % NANOSECONDS_PER_SECOND:09d} s"),
        ("Pair id", str(frame.id)),
        ("Camera", frame.camera),
        ("Score", f"{frame.importance:.2f}" + (f", {frame.reason}" if frame.reason else "")),
        ("Memory", memories or "no longer kept"),
    ]
    if frame.marked:
        facts.append(("Mark", frame.label or "no label"))
    return facts
