"""Status line and titles of the page."""

from __future__ import annotations

import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from delayed_vlm_ros.web.backend import CameraState, Diagnostic, Level, SceneState
from delayed_vlm_ros.web.health_panel import component_title
from delayed_vlm_ros.web.now_panel import problem
from delayed_vlm_ros.web.page import status_line

LIVE = CameraState("camera", "/image", input_rate_hz=10.0)
SILENT = CameraState("camera", "/image", input_rate_hz=10.0, silent_sec=4.2)
STALE = Diagnostic("camera camera", Level.STALE, "no image for 5 s")


def scene(camera, *diagnostics, connected=True):
    return SceneState(connected, "start the node" * (not connected), cameras=(camera,), diagnostics=diagnostics)


@pytest.mark.parametrize(
    ("state", "level", "message"),
    [
        (scene(LIVE), Level.OK, "Live"),
        (scene(SILENT), Level.STALE, "No new images"),
        (scene(LIVE, STALE), Level.STALE, "No image for 5 s"),
        (scene(CameraState("camera")), Level.WARN, "Waiting for images"),
        (scene(SILENT, connected=False), Level.ERROR, "Not connected"),
    ],
)
def test_status_line_is_live_only_while_images_arrive(state, level, message):
    assert status_line(state, state.cameras[0]) == (level, message)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (scene(LIVE), ""),
        (scene(SILENT), "no image on /image for 4 s"),
        (scene(SILENT, STALE), "no image for 5 s"),
        (scene(LIVE, STALE), ""),
        (scene(LIVE, connected=False), "start the node"),
    ],
)
def test_old_image_is_covered_by_the_reason(state, message):
    assert problem(state, state.cameras[0]) == message


@pytest.mark.parametrize(
    ("name", "cameras", "title"),
    [
        ("camera camera", ["camera"], "Camera"),
        ("memory camera", ["camera"], "Memory"),
        ("camera front", ["front", "rear"], "Camera front"),
        ("memory rear", ["front", "rear"], "Memory rear"),
        ("model", ["camera"], "Model"),
        ("scene_memory", [], "scene_memory"),
    ],
)
def test_title_names_a_camera_only_where_there_are_several(name, cameras, title):
    assert component_title(name, cameras) == title
