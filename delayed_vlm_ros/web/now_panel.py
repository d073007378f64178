"""The camera's image as it is now. The browser fetches it by itself, at the pace at which images come through."""

from __future__ import annotations

from delayed_vlm_ros.web.backend import CameraState, Diagnostic, Level, SceneState
from delayed_vlm_ros.web.components import block, drawing, say, show, text

_IMAGE = '<img alt="The camera\'s image" hidden><span class="live-size"></span>'


class NowPanel:
    """Image, rate and resolution of one camera."""

    def __init__(self, images_per_second: float) -> None:
        with block("section", "panel now").props('data-view=now aria-label="Now"'):
            with block("header", "panel-head"):
                text("h2", "Now")
                self._rate = text("span", "", "quiet")
            self._frame = block("div", "live").props(f"data-period={1000 / images_per_second:.0f}")
            with self._frame:
                drawing(_IMAGE, "live-image")
                self._words = text("p", "", "live-words")

    def show(self, state: SceneState, camera: CameraState | None) -> None:
        """Bring it up to date; None: there is no camera."""
        name = camera.name if camera is not None else ""
        if self._frame.props.get("data-camera") != name:
            self._frame.props["data-camera"] = name
            self._frame.update()
        words = _trouble(state, camera)
        say(self._words, words)
        show(self._words, visible=bool(words))
        self._frame.classes(add="silent" if words else None, remove=None if words else "silent")
        rate = f"{camera.input_rate_hz:.1f} images a second" if camera is not None and not words else ""
        say(self._rate, f"{name} · {rate}" if rate and len(state.cameras) > 1 else rate)


def _trouble(state: SceneState, camera: CameraState | None) -> str:
    """Why there is no image, and what to do; empty where there is one."""
    if not state.connected:
        return state.waiting_for
    if camera is None:
        return "No camera is reported yet."
    condition = _condition_of(state, camera)
    if condition is None or condition.level not in (Level.WARN, Level.STALE, Level.ERROR):
        return ""
    return condition.message if not camera.input_rate_hz else ""


def _condition_of(state: SceneState, camera: CameraState) -> Diagnostic | None:
    return next((one for one in state.diagnostics if one.name == f"camera {camera.name}"), None)
