"""View of the memory: the timeline, and Star and Stream as strips of thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from delayed_vlm_ros.web.backend import CameraState, KeptFrame, SceneState
from delayed_vlm_ros.web.components import FrameCard, block, set_text, set_visible, text
from delayed_vlm_ros.web.formatting import age, quantity
from delayed_vlm_ros.web.search_box import SearchBox
from delayed_vlm_ros.web.timeline import Timeline

_MAX_CARDS = 80  # in a strip; a memory may hold a thousand pairs


class MemoryPanel:
    """The memory of one camera.

    Args:
        search: Makes the search box, in the part of the page where it is called.
        timeline: Makes the timeline, in the same way.
        on_open: Callback for a click on a frame, called with the frame.
    """

    def __init__(
        self,
        search: Callable[[], SearchBox],
        timeline: Callable[[], Timeline],
        on_open: Callable[[KeptFrame], None],
    ) -> None:
        with block("section", "panel memory").props('data-view=memory aria-label="Memory"'):
            with block("header", "panel-head"):
                text("h2", "Memory")
                self._counts = text("span", "", "quiet")
            self._empty = text("p", "", "empty")
            search()
            self._timeline = timeline()
            self._star = _Strip(
                "Star",
                "key frames of the whole history",
                "No key frames yet. A frame is added when the scene changes, when something new appears, or when you "
                "mark it.",
                on_open,
            )
            self._stream = _Strip("Stream", "the newest frames", "", on_open)

    def update(self, state: SceneState, camera: CameraState | None) -> None:
        """Show the current memory of a camera; None if there is no camera."""
        frames = camera.frames if camera is not None else ()
        set_visible(self._empty, visible=not frames)
        if not frames:
            set_text(self._empty, _empty(camera))
        set_text(self._counts, _counts(camera))
        self._timeline.update(state, camera)
        self._star.update([frame for frame in frames if frame.in_star], state.now_ns, any_kept=bool(frames))
        self._stream.update([frame for frame in frames if frame.in_stream], state.now_ns, any_kept=bool(frames))


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
