"""The page: one view for each open browser, all with the same scene and conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nicegui import ui

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import (
    WATCH_DIAGNOSTIC,
    AnsweredQuestion,
    Backend,
    CameraState,
    KeptFrame,
    Level,
    SceneState,
    WatchAlert,
)
from delayed_vlm_ros.web.components import block, button, markup, set_text, set_visible, text
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.evidence import kept_frames_of
from delayed_vlm_ros.web.formatting import capitalised
from delayed_vlm_ros.web.frame_dialog import FrameDialog
from delayed_vlm_ros.web.health_panel import HealthPanel
from delayed_vlm_ros.web.journal_feed import JournalFeed
from delayed_vlm_ros.web.memory_panel import MemoryPanel
from delayed_vlm_ros.web.moment_dialog import MomentDialog
from delayed_vlm_ros.web.now_panel import NowPanel
from delayed_vlm_ros.web.search_box import SearchBox
from delayed_vlm_ros.web.talk_panel import TalkPanel
from delayed_vlm_ros.web.timeline import Timeline
from delayed_vlm_ros.web.timeline_events import Moment
from delayed_vlm_ros.web.visitors import UnopenedPages
from delayed_vlm_ros.web.watches_panel import WatchesPanel

MAX_LIVE_FPS = 4.0
"""Maximum number of live images a browser fetches, per second."""

_SCENE_PERIOD_SEC = 0.5
_TALK_PERIOD_SEC = 0.1
_JOURNAL_PERIOD_SEC = 1.0
_HEARTBEAT = "heartbeat()"  # in connection.js
_SHOW_QUESTION = "showQuestion()"  # in page.js
_VIEWS = ("talk", "now", "watches", "memory", "health")
_FIRST_VIEW = "talk"  # on a phone
_HEAD = (
    '<link rel="stylesheet" href="/assets/page.css">'
    '<script src="/assets/connection.js" defer></script><script src="/assets/grids.js" defer></script>'
    '<script src="/assets/page.js" defer></script><script src="/assets/timeline.js" defer></script>'
    '<meta name="theme-color" content="#f5f6f8" media="(prefers-color-scheme: light)">'
    '<meta name="theme-color" content="#0f1216" media="(prefers-color-scheme: dark)">'
)
_LOGO = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 7.5h18v9H3z" fill="none" stroke="currentColor" '
    'stroke-width="1.6" stroke-linejoin="round"/><path d="M7 7.5v9M17 7.5v9" stroke="currentColor" '
    'stroke-width="1.6"/><path d="m12 9.2.9 1.9 2 .3-1.5 1.4.4 2-1.8-1-1.8 1 .4-2-1.5-1.4 2-.3z" '
    'fill="var(--star)"/></svg>'
)
_CONNECTION = '<span class="connection-text"></span><button type="button" hidden></button>'
_THEME_BUTTON = (
    '<button type="button" class="plain theme" aria-label="Switch between light and dark" '
    'title="Switch between light and dark">◐</button>'
)


def register_page(backend: Backend, conversation: Conversation, server_id: str, unopened_pages: int) -> None:
    """Serve the page at ``/``.

    Args:
        backend: Scene memory to show.
        conversation: Conversation of all visitors.
        server_id: Identifier of the running server, for the browser to notice a restart.
        unopened_pages: Maximum number of pages without a browser.
    """
    unopened = UnopenedPages(unopened_pages)
    shared = _Shared(JournalFeed(backend), asyncio.Lock())

    @ui.page("/")
    def page() -> None:
        unopened.add(ui.context.client)
        _View(backend, conversation, shared, server_id)


@dataclass(frozen=True)
class _Shared:
    """What all open pages share.

    Attributes:
        journal: Lines of the journal.
        searching: Held during a search.
    """

    journal: JournalFeed
    searching: asyncio.Lock


class _View:
    """The page in one browser."""

    def __init__(self, backend: Backend, conversation: Conversation, shared: _Shared, server_id: str) -> None:
        self._backend = backend
        self._camera_name = ""
        self._state = backend.state()
        ui.add_head_html(_HEAD)
        with block("div", "shell").props(f"data-view={_FIRST_VIEW} data-server={server_id}"):
            markup(_CONNECTION, "connection").props("role=alert")
            self._header()
            with block("div", "board"):  # the question comes first for the keyboard; page.css arranges the panels
                self._talk = TalkPanel(conversation, self._open)
                self._now = NowPanel(MAX_LIVE_FPS)
                self._health = HealthPanel()
                self._watches = WatchesPanel(backend, conversation.max_characters, self._open, self._update)
                self._memory = MemoryPanel(
                    lambda: SearchBox(
                        backend, shared.searching, conversation.max_characters, self._camera, self._open_moment
                    ),
                    lambda: Timeline(shared.journal, self._open_moment, self._limit_to),
                    self._open_kept,
                )
            with block("nav", "tabs").props('aria-label="Views"'):
                for view in _VIEWS:
                    pressed = str(view == _FIRST_VIEW).lower()
                    text("button", view.capitalize(), "tab").props(
                        f"type=button data-show={view} aria-pressed={pressed}"
                    )
        self._dialog = FrameDialog(backend, self._update, self._limit)
        self._moment_dialog = MomentDialog(self._open, self._limit)
        self._update()
        self._talk.update_exchanges()
        ui.timer(_SCENE_PERIOD_SEC, self._update)
        ui.timer(_TALK_PERIOD_SEC, self._talk.update_exchanges)
        ui.timer(_JOURNAL_PERIOD_SEC, shared.journal.refresh)

    def _header(self) -> None:
        with block("header", "top"):
            markup(_LOGO, "logo")
            text("h1", "Scene memory")
            self._status = text("p", "", "status").props("role=status")
            self._cameras = block("div", "cameras").props('data-grid role=group aria-label="Camera"')
            markup(_THEME_BUTTON)
        self._camera_names: tuple[str, ...] | None = None

    def _update(self) -> None:
        self._state = state = self._backend.state()
        camera = self._camera()
        level, message = status_line(state, camera)
        set_text(self._status, message)
        if f"level-{level.value}" not in self._status.classes:
            self._status.classes(replace=f"status level-{level.value}")
        self._update_camera_buttons()
        self._now.update(state, camera)
        self._watches.update(state)
        self._memory.update(state, camera)
        self._health.update(state, camera)
        self._talk.update(state)
        self._dialog.update([frame for one in state.cameras for frame in one.frames], state.now_ns)
        ui.run_javascript(_HEARTBEAT)

    def _camera(self) -> CameraState | None:
        return self._state.camera(self._camera_name) or self._state.camera("")

    def _update_camera_buttons(self) -> None:
        names = tuple(camera.name for camera in self._state.cameras)
        if names == self._camera_names:
            return
        self._camera_names = names
        self._cameras.clear()
        set_visible(self._cameras, visible=len(names) > 1)
        with self._cameras:
            for name in names:
                choice = button(name, self._selector(name), "tab")
                choice.props["aria-pressed"] = str(name == (self._camera_name or names[0])).lower()

    def _selector(self, name: str) -> Callable[[], None]:
        def select() -> None:
            self._camera_name = name
            self._camera_names = None
            self._update()

        return select

    def _open_kept(self, frame: KeptFrame) -> None:
        camera = self._state.camera(frame.camera)
        self._open(frame, camera.frames if camera is not None else ())

    def _open(self, frame: KeptFrame, neighbours: Sequence[KeptFrame]) -> None:
        self._dialog.open(frame, neighbours, self._state.now_ns)

    def _open_moment(self, moment: Moment) -> None:
        """Show a moment of the timeline."""
        if isinstance(moment, KeptFrame):
            self._open_kept(moment)
        elif isinstance(moment, WatchAlert) and moment.evidence:
            self._open(moment.evidence[0], moment.evidence)
        elif isinstance(moment, AnsweredQuestion | JournalLine | WatchAlert):
            self._moment_dialog.open(moment, self._frames_of(moment))

    def _frames_of(self, moment: Moment) -> Sequence[KeptFrame]:
        """Return the frames of an answer that are still kept."""
        if not isinstance(moment, AnsweredQuestion):
            return ()
        return kept_frames_of(moment, [frame for camera in self._state.cameras for frame in camera.frames])

    def _limit(self, since_ns: int, until_ns: int) -> None:
        self._talk.limit(since_ns, until_ns)
        self._talk.update(self._state)
        ui.run_javascript(_SHOW_QUESTION)

    def _limit_to(self, since_ns: int, until_ns: int) -> None:
        self._talk.limit_to(since_ns, until_ns)
        ui.run_javascript(_SHOW_QUESTION)


def status_line(state: SceneState, camera: CameraState | None) -> tuple[Level, str]:
    """Return the level and text of the status line."""
    if not state.connected:
        return Level.ERROR, "Not connected"
    of_scene = [one for one in state.diagnostics if not one.name.startswith(WATCH_DIAGNOSTIC)]
    worst = [diagnostic for diagnostic in of_scene if diagnostic.level in (Level.ERROR, Level.STALE)]
    if worst:
        return worst[0].level, capitalised(worst[0].message)
    if state.model_state == "loading":
        return Level.WARN, "Loading the model; frames are kept meanwhile"
    if camera is not None and camera.silent_sec:
        return Level.STALE, "No new images"
    if camera is None or not camera.input_rate_hz:
        return Level.WARN, "Waiting for images"
    return Level.OK, "Live"
