"""One moment, large: its two images, its stamp, its mark, and questions about the time from or up to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from nicegui import ui

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.memory.marks import MAX_LABEL_CHARACTERS
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.web.backend import Backend, KeptFrame
from delayed_vlm_ros.web.components import block, button, say, show, text, thumbnail
from delayed_vlm_ros.web.formatting import age, clock

# What is typed stands in the browser alone: a value kept here would overwrite it with every change of the page.
_CLEAR_LABEL = "document.querySelector('.marking input').value = ''"


class FrameDialog:
    """Opens over the page; closed by Esc, by its button, or by a click beside it.

    Args:
        backend: Where moments are marked.
        changed: Called when a mark has been set or taken off.
        limited: Called with since and until (nanoseconds; 0: leave that one) for the next questions.
    """

    def __init__(self, backend: Backend, changed: Callable[[], None], limited: Callable[[int, int], None]) -> None:
        self._backend = backend
        self._changed = changed
        self._limited = limited
        self._moment: KeptFrame | None = None
        self._neighbours: Sequence[KeptFrame] = ()
        self._now_ns = 0
        with ui.dialog() as self._dialog, block("article", "enlarged").props('aria-label="Moment"'):
            with block("header", "enlarged-head"):
                self._title = text("h2")
                self._previous = button("←", lambda: self._step(-1), "plain older").props('aria-label="Older moment"')
                self._next = button("→", lambda: self._step(1), "plain newer").props('aria-label="Newer moment"')
                button("✕", self._dialog.close, "plain").props("aria-label=Close")
            self._images = block("div", "enlarged-images")
            self._facts = block("dl", "facts")
            with block("form", "marking") as form:
                self._label = block("input", "field").props(
                    f'name=label maxlength={MAX_LABEL_CHARACTERS} aria-label="Name of the mark" autocomplete=off'
                )
                self._mark = text("button", "★ Mark", "primary").props("type=submit")
                self._unmark = button("Take the mark off", self._take_mark_off, "plain")
            form.on(
                "submit",
                self._set_mark,
                js_handler="(event) => { event.preventDefault(); emit(event.target.label.value) }",
            )
            text("p", "A marked moment stays in Star memory, whatever comes after it.", "quiet small")
            self._error = text("p", "", "error").props("role=alert")
            with block("footer", "enlarged-foot"):
                button("Ask from here on", lambda: self._limit(since=True), "plain")
                button("Ask up to here", lambda: self._limit(since=False), "plain")

    def open(self, moment: KeptFrame, neighbours: Sequence[KeptFrame], now_ns: int) -> None:
        """Show a moment.

        Args:
            moment: It.
            neighbours: The moments that the arrows lead to, in time order.
            now_ns: The time on the cameras' clock.
        """
        self._neighbours = neighbours
        self._now_ns = now_ns
        self._fill(moment)
        self._dialog.open()

    def update(self, moments: Sequence[KeptFrame], now_ns: int) -> None:
        """Follow what has become of the moment that is shown."""
        shown = self._moment
        if shown is None or not self._dialog.value:
            return
        self._now_ns = now_ns
        present = next((moment for moment in moments if moment.key == shown.key), None)
        if present is not None and present != shown:
            self._fill(present)

    def _fill(self, moment: KeptFrame) -> None:
        is_other = self._moment is None or self._moment.key != moment.key
        was_whole = not is_other and self._moment is not None and self._moment.end_stamp_ns != self._moment.stamp_ns
        self._moment = moment
        say(self._title, f"Moment {moment.id}")
        keys = [one.key for one in self._neighbours]
        place = keys.index(moment.key) if moment.key in keys else -1
        show(self._previous, visible=place > 0)
        show(self._next, visible=0 <= place < len(keys) - 1)
        is_whole = moment.end_stamp_ns != moment.stamp_ns
        if is_other or is_whole != was_whole:
            self._images.clear()
            with self._images:
                thumbnail(moment).props('alt="First image"')
                if is_whole:
                    thumbnail(moment, second=True).props('alt="Second image"')
        self._facts.clear()
        with self._facts:
            for name, value in _facts(moment, self._now_ns):
                text("dt", name)
                text("dd", value)
        if is_other:
            ui.run_javascript(_CLEAR_LABEL)
            say(self._error, "")
        named = moment.label or "A name for it (optional)"
        if self._label.props.get("placeholder") != named:
            self._label.props["placeholder"] = named
            self._label.update()
        say(self._mark, "Rename" if moment.marked else "★ Mark")
        show(self._unmark, visible=moment.marked)

    def _step(self, by: int) -> None:
        keys = [moment.key for moment in self._neighbours]
        if self._moment is None or self._moment.key not in keys:
            return
        place = keys.index(self._moment.key) + by
        if 0 <= place < len(keys):
            self._fill(self._neighbours[place])

    async def _set_mark(self, event: object) -> None:
        label = str(getattr(event, "args", "") or "")[:MAX_LABEL_CHARACTERS].strip()
        moment = self._moment
        if moment is not None:
            await self._change(lambda: self._backend.mark(moment, label))

    async def _take_mark_off(self) -> None:
        moment = self._moment
        if moment is not None:
            await self._change(lambda: self._backend.unmark(moment))

    async def _change(self, change: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(change)
        except DelayedVlmError as error:
            say(self._error, f"{error}.")
        else:
            say(self._error, "")
            self._changed()

    def _limit(self, *, since: bool) -> None:
        moment = self._moment
        if moment is not None:
            self._limited(moment.stamp_ns if since else 0, 0 if since else moment.end_stamp_ns)
            self._dialog.close()


def _facts(moment: KeptFrame, now_ns: int) -> list[tuple[str, str]]:
    kept = " and ".join(name for name, is_in in (("Star", moment.in_star), ("Stream", moment.in_stream)) if is_in)
    ago = age(now_ns, moment.stamp_ns)
    facts = [
        ("Taken", clock(moment.stamp_ns) + (f", {ago} ago" if ago != "now" else "")),
        ("Stamp", f"{moment.stamp_ns // NANOSECONDS_PER_SECOND}.{moment.stamp_ns % NANOSECONDS_PER_SECOND:09d} s"),
        ("Camera", moment.camera),
        ("Score", f"{moment.importance:.2f}" + (f", {moment.reason}" if moment.reason else "")),
        ("Kept in", kept or "neither any more"),
    ]
    if moment.marked:
        facts.append(("Mark", moment.label or "without a name"))
    return facts
