"""The whole way once: a camera node and the memory node as processes of their own, asked through the ROS service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.msg import MemoryStats
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup, exit_on_signals
from delayed_vlm_ros.scenes.story import STORY_SEC

_START_TIMEOUT_SEC = 120.0  # importing torch on a cold disk takes long
_ASK_TIMEOUT_SEC = 120.0
_SAMPLE_FPS = 2.0  # of config/scene_memory.yaml
STORY_FRAMES = round(STORY_SEC * _SAMPLE_FPS)
_SETTLE_SEC = 1.2  # diagnostics come once a second
_SETTLE_TIMEOUT_SEC = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """What a demo shows.

    Attributes:
        questions: Asked one after the other.
        video: A video file or camera device in place of the synthetic camera; empty: synthetic.
        model: As the node's parameter ``model.name``.
        frames: How many frames memory has taken in before the first question.
    """

    questions: Sequence[str]
    video: str = ""
    model: str = "auto"
    frames: int = STORY_FRAMES


@dataclass
class DemoRun:
    """What a demo found.

    Attributes:
        responses: The question and the ``AskScene`` response of each ask.
        statistics: The last statistics message.
        diagnostics: The last status of each name.
        exit_codes: How each node ended.
    """

    responses: list[tuple[str, Any]] = field(default_factory=list)
    statistics: MemoryStats | None = None
    diagnostics: list[DiagnosticStatus] = field(default_factory=list)
    exit_codes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoListener:
    """Where a demo says what happens; each is called as it happens.

    Attributes:
        step: A new step begins, in words.
        filling: The memory's statistics while it fills.
        answered: An ask has its response.
    """

    step: Callable[[str], None]
    filling: Callable[[MemoryStats], None]
    answered: Callable[[str, Any], None]


def run_demo(options: DemoOptions, listener: DemoListener) -> DemoRun:
    """Start camera and memory, let the memory fill, ask, and end everything.

    Raises:
        DelayedVlmError: A node died, or something did not happen in time.
    """
    environment = isolated_environment()
    os.environ.update(environment)  # the middleware of our own client reads it there
    run = DemoRun()
    camera = "video_camera" if options.video else "demo_camera"
    with exit_on_signals(), NodeGroup(environment) as group:
        listener.step(f"starting {camera} and scene_memory in ROS domain {environment['ROS_DOMAIN_ID']}")
        group.start(
            "scene_memory",
            params_file=config_file("scene_memory.yaml"),
            parameters={"model.name": options.model},
        )
        group.start(
            camera,
            params_file=config_file(f"{camera}.yaml"),
            parameters={"video": _absolute(options.video), "loop": True} if options.video else {"story": True},
        )
        with SceneMemoryClient.connect(environment=environment) as client:
            _fill(client, group, options, listener)
            _ask(client, group, options, listener, run)
            client.wait_until(lambda: bool(client.diagnostics), 3.0)
            run.statistics = client.statistics
            run.diagnostics = [client.diagnostics[name] for name in sorted(client.diagnostics)]
        listener.step("shutting down")
        run.exit_codes = group.stop()
    return run


def _absolute(video: str) -> str:
    """A file's path as the camera node, which runs elsewhere, can find it; a device's number as it is."""
    return video if video.isdecimal() else str(Path(video).expanduser().absolute())


def _fill(client: SceneMemoryClient, group: NodeGroup, options: DemoOptions, listener: DemoListener) -> None:
    shown: MemoryStats | None = None

    def is_ready() -> bool:
        nonlocal shown
        group.check()
        for status in client.diagnostics.values():
            if status.level == DiagnosticStatus.ERROR:
                raise DelayedVlmError(f"{status.name}: {status.message}")
        statistics = client.statistics
        if statistics is None:
            return False
        if statistics is not shown:
            shown = statistics
            listener.filling(statistics)
        enough = statistics.total_frames_added >= options.frames
        return enough and statistics.model_state == "ready" and client.service_is_ready()

    listener.step("waiting for the camera; memory fills while the model loads")
    if not client.wait_until(is_ready, _START_TIMEOUT_SEC + 2.0 * options.frames / _SAMPLE_FPS):
        raise DelayedVlmError(_trouble(client, f"the memory did not take in {options.frames} frames in time"))


def _trouble(client: SceneMemoryClient, what: str) -> str:
    words = [
        f"{status.name}: {status.message}"
        for status in client.diagnostics.values()
        if status.level != DiagnosticStatus.OK
    ]
    return "; ".join([what, *words])


def _ask(
    client: SceneMemoryClient, group: NodeGroup, options: DemoOptions, listener: DemoListener, run: DemoRun
) -> None:
    listener.step("asking through the ROS service ask_scene")
    for question in options.questions:
        group.check()
        response = client.ask(question, timeout_sec=_ASK_TIMEOUT_SEC)
        run.responses.append((question, response))
        listener.answered(question, response)
        if not response.success:
            raise DelayedVlmError(f"the question '{question}' was not answered: {response.error_msg}")
    # The statistics and diagnostics of after the last answer, not of before.
    answered = time.monotonic()
    client.clear_reports()

    def settled() -> bool:
        # On a busy machine reports come late, and one from before may still be on its way.
        counted = client.statistics is not None and client.statistics.asks_served >= len(options.questions)
        return counted and time.monotonic() - answered > _SETTLE_SEC

    client.wait_until(settled, _SETTLE_TIMEOUT_SEC)
