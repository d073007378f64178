"""The page: one for each browser that has it open, all of the same scene."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from delayed_vlm_ros.web.backend import Backend, CameraState, KeptFrame, Level, SceneState
from delayed_vlm_ros.web.components import block, drawing, say, show, text
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.frame_dialog import FrameDialog
from delayed_vlm_ros.web.health_panel import HealthPanel
from delayed_vlm_ros.web.memory_panel import MemoryPanel
from delayed_vlm_ros.web.now_panel import NowPanel
from delayed_vlm_ros.web.talk_panel import TalkPanel

LIVE_IMAGES_PER_SECOND = 4.0
"""Most images a second that a page fetches of the camera it shows."""

_SCENE_PERIOD_SEC = 0.5
_TALK_PERIOD_SEC = 0.1
_VIEWS = ("now", "memory", "talk", "health")
_HEAD = (
    '<link rel="stylesheet" href="/assets/page.css"><script src="/assets/page.js" defer></script>'
    '<meta name="theme-color" content="#f5f6f8" media="(prefers-color-scheme: light)">'
    '<meta name="theme-color" content="#0f1216" media="(prefers-color-scheme: dark)">'
)
_LOGO = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 7.5h18v9H3z" fill="none" stroke="currentColor" '
    'stroke-width="1.6" stroke-linejoin="round"/><path d="M7 7.5v9M17 7.5v9" stroke="currentColor" '
    'stroke-width="1.6"/><path d="m12 9.2.9 1.9 2 .3-1.5 1.4.4 2-1.8-1-1.8 1 .4-2-1.5-1.4 2-.3z" '
    'fill="var(--star)"/></svg>'
)


class Page:
    """What is served at ``/``.

    Args:
        backend: The scene.
        conversation: Where questions go.
    """

    def __init__(self, backend: Backend, conversation: Conversation) -> None:
        self._backend = backend
        self._conversation = conversation

    def register(self) -> None:
        """Have it served."""

        @ui.page("/")
        def page() -> None:
            _View(self._backend, self._conversation)


class _View:
    """The page in one browser."""

    def __init__(self, backend: Backend, conversation: Conversation) -> None:
        self._backend = backend
        self._camera_name = ""
        self._state = backend.state()
        ui.add_head_html(_HEAD)
        with block("div", "shell").props("data-view=now"):
            self._header()
            with block("main", "board"):
                self._now = NowPanel(LIVE_IMAGES_PER_SECOND)
                self._health = HealthPanel()
                self._memory = MemoryPanel(self._open_kept)
                self._talk = TalkPanel(conversation, self._open)
            with block("nav", "tabs").props('aria-label="Views"'):
                for view in _VIEWS:
                    text("button", view.capitalize(), "tab").props(f"type=button data-show={view}")
        self._dialog = FrameDialog(backend, self._show, self._limit)
        self._show()
        self._talk.follow()
        ui.timer(_SCENE_PERIOD_SEC, self._show)
        ui.timer(_TALK_PERIOD_SEC, self._talk.follow)

    def _header(self) -> None:
        with block("header", "top"):
            drawing(_LOGO, "logo")
            text("h1", "Scene memory")
            self._status = text("p", "", "status").props("role=status")
            self._cameras = block("div", "cameras").props('role=group aria-label="Camera"')
            drawing(
                '<button type="button" class="plain theme" aria-label="Light or dark" title="Light or dark">◐</button>'
            )
        self._offered: tuple[str, ...] = ()

    def _show(self) -> None:
        self._state = state = self._backend.state()
        camera = self._camera()
        level, words = _status(state, camera)
        say(self._status, words)
        if f"level-{level.value}" not in self._status.classes:
            self._status.classes(replace=f"status level-{level.value}")
        self._offer_cameras()
        self._now.show(state, camera)
        self._memory.show(camera, state.now_ns)
        self._health.show(state, camera)
        self._talk.show(state)
        self._dialog.update([moment for one in state.cameras for moment in one.frames], state.now_ns)

    def _camera(self) -> CameraState | None:
        return self._state.camera(self._camera_name) or self._state.camera("")

    def _offer_cameras(self) -> None:
        names = tuple(camera.name for camera in self._state.cameras)
        if names == self._offered:
            return
        self._offered = names
        self._cameras.clear()
        show(self._cameras, visible=len(names) > 1)
        with self._cameras:
            for name in names:
                choice = text("button", name, "tab").props("type=button")
                choice.on("click", lambda name=name: self._choose(name), args=[])
                choice.props["aria-pressed"] = str(name == (self._camera_name or names[0])).lower()

    def _choose(self, name: str) -> None:
        self._camera_name = name
        self._offered = ()
        self._show()

    def _open_kept(self, moment: KeptFrame) -> None:
        camera = self._state.camera(moment.camera)
        self._open(moment, camera.frames if camera is not None else ())

    def _open(self, moment: KeptFrame, neighbours: Sequence[KeptFrame]) -> None:
        self._dialog.open(moment, neighbours, self._state.now_ns)

    def _limit(self, since_ns: int, until_ns: int) -> None:
        self._talk.limit(since_ns, until_ns)
        self._talk.show(self._state)


def _status(state: SceneState, camera: CameraState | None) -> tuple[Level, str]:
    """The whole in a word or two."""
    if not state.connected:
        return Level.ERROR, "Not connected"
    worst = [condition for condition in state.diagnostics if condition.level in (Level.ERROR, Level.STALE)]
    if worst:
        return worst[0].level, worst[0].message
    if state.model_state == "loading":
        return Level.WARN, "The model is loading; memory fills meanwhile"
    if camera is None or not camera.input_rate_hz:
        return Level.WARN, "Waiting for images"
    return Level.OK, "Live"
