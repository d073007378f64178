"""Dialog with a moment of the timeline that is no kept frame: a question, a line of the journal, or an alert."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nicegui import ui

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import AnsweredQuestion, KeptFrame, WatchAlert
from delayed_vlm_ros.web.components import block, button, set_text, text
from delayed_vlm_ros.web.evidence import EvidenceStrip
from delayed_vlm_ros.web.formatting import clock, sentence


class MomentDialog:
    """Modal dialog; closed with Esc, with its button, or by a click outside.

    Args:
        on_open: Callback for a click on a frame, called with the frame and all frames of the answer.
        on_limit: Callback for the limits of the next questions, called with ``since`` and ``until`` in nanoseconds; 0
            leaves a limit unchanged.
    """

    def __init__(
        self,
        on_open: Callable[[KeptFrame, Sequence[KeptFrame]], None],
        on_limit: Callable[[int, int], None],
    ) -> None:
        self._on_open = on_open
        self._on_limit = on_limit
        self._stamps_ns = (0, 0)
        with ui.dialog() as self._dialog, block("article", "frame-dialog moment-dialog").props('aria-label="Moment"'):
            with block("header", "frame-dialog-head"):
                self._title = text("h2")
                button("✕", self._dialog.close, "plain").props("aria-label=Close")
            self._content = block("div")
            with block("footer", "frame-dialog-foot"):
                button("Ask from here on", lambda: self._limit(self._stamps_ns[0], 0), "plain")
                button("Ask up to here", lambda: self._limit(0, self._stamps_ns[1]), "plain")

    def open(self, moment: AnsweredQuestion | JournalLine | WatchAlert, frames: Sequence[KeptFrame]) -> None:
        """Show a moment.

        Args:
            moment: The moment.
            frames: Frames of an answer that are still kept.
        """
        self._stamps_ns = moment.stamp_ns, moment.stamp_ns
        self._content.clear()
        with self._content:
            if isinstance(moment, JournalLine):
                self._stamps_ns = moment.stamp_ns, moment.end_stamp_ns
                set_text(self._title, f"Journal of {clock(moment.stamp_ns)}")
                _show_line(moment)
            elif isinstance(moment, AnsweredQuestion):
                set_text(self._title, f"Question of {clock(moment.stamp_ns)}")
                self._show_question(moment, frames)
            else:
                set_text(self._title, f"Alert of {clock(moment.stamp_ns)}")
                text("p", f"{moment.question} {'Yes' if moment.is_rising else 'No'}", "moment-text")
                text("p", f"{moment.camera}, probability {moment.p_yes:.2f}. Its frames are not known.", "quiet")
        self._dialog.open()

    def _show_question(self, asked: AnsweredQuestion, frames: Sequence[KeptFrame]) -> None:
        with block("div", "asked"):
            text("p", asked.question, "question")
        text("p", asked.answer, "answer")
        text("p", sentence(asked.error), "error")
        for warning in asked.warnings:
            text("p", sentence(warning), "warning")
        if frames:
            kept = {frame.key for frame in frames}
            EvidenceStrip(frames, self._open_frame, [one for one in asked.evidence if one.frame.key in kept])
        left = len(asked.frame_ids) - len(frames)
        if left > 0:
            text("p", f"{left} of its {len(asked.frame_ids)} pairs are no longer kept.", "quiet small")

    def _open_frame(self, frame: KeptFrame, frames: Sequence[KeptFrame]) -> None:
        self._dialog.close()
        self._on_open(frame, frames)

    def _limit(self, since_ns: int, until_ns: int) -> None:
        self._on_limit(since_ns, until_ns)
        self._dialog.close()


def _show_line(line: JournalLine) -> None:
    image = ui.element("img")
    image.props["src"] = f"/journal/{line.id}.jpg"
    image.props["alt"] = ""
    text("p", line.caption, "moment-text")
    facts = [line.camera, line.reason, f"marked {line.label}" if line.label else ""]
    text("p", " · ".join(fact for fact in facts if fact), "quiet")
    text("p", "Its frames are no longer kept. The journal is not part of any answer.", "quiet small")
