"""View of the camera's current image. The browser fetches the image itself, as fast as the network allows."""

from __future__ import annotations

from delayed_vlm_ros.web.backend import CameraState, Diagnostic, Level, SceneState
from delayed_vlm_ros.web.components import block, markup, set_text, set_visible, text
from delayed_vlm_ros.web.formatting import duration, sentence

_IMAGE = '<img alt="Current camera image" hidden><span class="live-size"></span>'


class NowPanel:
    """Image, rate and resolution of one camera.

    Args:
        max_fps: Maximum number of images a browser fetches, per second.
    """

    def __init__(self, max_fps: float) -> None:
        with block("section", "panel now").props('data-view=now aria-label="Now"'):
            with block("header", "panel-head"):
                text("h2", "Now")
                self._rate = text("span", "", "quiet")
            self._frame = block("div", "live").props(f"data-period={1000 / max_fps:.0f}")
            with self._frame:
                markup(_IMAGE, "live-image")
                self._message = text("p", "", "live-message")

    def update(self, state: SceneState, camera: CameraState | None) -> None:
        """Show the current state of a camera; None if there is no camera."""
        name = camera.name if camera is not None else ""
        if self._frame.props.get("data-camera") != name:
            self._frame.props["data-camera"] = name
            self._frame.update()
        message = sentence(problem(state, camera))
        set_text(self._message, message)
        set_visible(self._message, visible=bool(message))
        self._frame.classes(add="silent" if message else None, remove=None if message else "silent")
        rate = f"{camera.input_rate_hz:.1f} fps" if camera is not None and not message else ""
        set_text(self._rate, f"{name} · {rate}" if rate and len(state.cameras) > 1 else rate)


def problem(state: SceneState, camera: CameraState | None) -> str:
    """Return why there is no new image and how to fix it; empty if images arrive."""
    if not state.connected:
        return state.waiting_for
    if camera is None:
        return "no camera reported yet"
    diagnostic = _diagnostic_of(state, camera)
    is_reported = diagnostic is not None and diagnostic.level in (Level.WARN, Level.STALE, Level.ERROR)
    if diagnostic is not None and is_reported and (camera.silent_sec or not camera.input_rate_hz):
        return diagnostic.message
    return _silence(camera)


def _silence(camera: CameraState) -> str:
    """Return for how long the page has received no image; empty while images arrive."""
    topic = f" on {camera.topic}" if camera.topic else ""
    return f"no image{topic} for {duration(camera.silent_sec)}" if camera.silent_sec else ""


def _diagnostic_of(state: SceneState, camera: CameraState) -> Diagnostic | None:
    return next((one for one in state.diagnostics if one.name == f"camera {camera.name}"), None)
