"""The demo through ROS 2: a camera node and the memory node in separate processes, asked through the ROS service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticStatus

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.images.video import is_stream
from delayed_vlm_ros.msg import MemoryStats, NodeStats
from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup, exit_on_signals
from delayed_vlm_ros.scenes.story import STORY_SEC
from delayed_vlm_ros.srv import AskScene

_START_TIMEOUT_SEC = 120.0  # importing torch from a cold disk is slow
_ASK_TIMEOUT_SEC = 120.0
_SAMPLE_FPS = 2.0  # as in config/scene_memory.yaml
STORY_FRAMES = round(STORY_SEC * _SAMPLE_FPS)
_SETTLE_SEC = 1.2  # the node reports once per second
_SETTLE_TIMEOUT_SEC = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demo.

    Attributes:
        questions: Questions, asked one by one.
        video: Video file or camera device to use instead of the synthetic camera; empty for the synthetic camera.
        model: Value of the node's parameter ``model.name``.
        frames: Frames to add before the first question.
    """

    questions: Sequence[str]
    video: str = ""
    model: str = "auto"
    frames: int = STORY_FRAMES


@dataclass
class DemoRun:
    """Results of a demo.

    Attributes:
        responses: Each question with its response.
        statistics: Last statistics message of the camera's memory; None if none was received.
        node_statistics: Last statistics message of the node; None if none was received.
        diagnostics: Last status of each name, sorted by name.
        exit_codes: Exit code of each node.
    """

    responses: list[tuple[str, AskScene.Response]] = field(default_factory=list)
    statistics: MemoryStats | None = None
    node_statistics: NodeStats | None = None
    diagnostics: list[DiagnosticStatus] = field(default_factory=list)
    exit_codes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoListener:
    """Callbacks that report the progress of a demo.

    Attributes:
        on_step: Function called with a description of each new step.
        on_statistics: Function called with the statistics of memory and node while the memory fills.
        on_warnings: Function called with the standing warnings, before the first question.
        on_response: Function called with each question and its response.
    """

    on_step: Callable[[str], None]
    on_statistics: Callable[[MemoryStats, NodeStats], None]
    on_warnings: Callable[[Sequence[str]], None]
    on_response: Callable[[str, AskScene.Response], None]


def run_demo(options: DemoOptions, listener: DemoListener) -> DemoRun:
    """Start camera and memory, wait until the memory is filled, ask the questions, and stop the nodes.

    Raises:
        DelayedVlmError: A node died, reported an error, or timed out.
    """
    environment = isolated_environment()
    os.environ.update(environment)  # the middleware of this process reads its settings there
    run = DemoRun()
    camera = "video_camera" if options.video else "demo_camera"
    with exit_on_signals(), NodeGroup(environment) as group:
        listener.on_step(f"starting {camera} and scene_memory in ROS domain {environment['ROS_DOMAIN_ID']}")
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
            run.statistics, run.node_statistics = client.statistics, client.node_statistics
            run.diagnostics = [client.diagnostics[name] for name in sorted(client.diagnostics)]
        listener.on_step("shutting down")
        run.exit_codes = group.stop()
    return run


def _absolute(video: str) -> str:
    """Return an absolute path, since the camera node has another working directory; keep devices and streams."""
    return video if video.isdecimal() or is_stream(video) else str(Path(video).expanduser().absolute())


def _fill(client: SceneMemoryClient, group: NodeGroup, options: DemoOptions, listener: DemoListener) -> None:
    shown: MemoryStats | None = None

    def is_ready() -> bool:
        nonlocal shown
        group.check()
        for status in client.diagnostics.values():
            if status.level == DiagnosticStatus.ERROR:
                raise DelayedVlmError(f"{status.name}: {status.message}")
        statistics, node = client.statistics, client.node_statistics
        if statistics is None or node is None:
            return False
        is_new = statistics is not shown
        if is_new:
            shown = statistics
            listener.on_statistics(statistics, node)
        is_filled = statistics.total_frames_added >= options.frames
        return bool(is_filled and node.model_state == "ready" and client.service_is_ready())

    listener.on_step("waiting for the camera; the memory fills while the model loads")
    timeout_sec = _START_TIMEOUT_SEC + 2.0 * options.frames / _SAMPLE_FPS
    if not client.wait_until(is_ready, timeout_sec):
        causes = [
            f"{status.name}: {status.message}"
            for status in client.diagnostics.values()
            if status.level != DiagnosticStatus.OK
        ]
        failure = f"the memory did not receive {options.frames} frames within {timeout_sec:g} s"
        raise DelayedVlmError("; ".join([failure, *causes]))


def _ask(
    client: SceneMemoryClient, group: NodeGroup, options: DemoOptions, listener: DemoListener, run: DemoRun
) -> None:
    reports = (client.node_statistics, *client.statistics_by_camera.values())
    listener.on_warnings([warning for report in reports if report is not None for warning in report.warnings])
    listener.on_step("asking through the ROS service ask_scene")
    for question in options.questions:
        group.check()
        response = client.ask(question, timeout_sec=_ASK_TIMEOUT_SEC)
        run.responses.append((question, response))
        listener.on_response(question, response)
        if not response.success:
            raise DelayedVlmError(f"no answer to '{question}': {response.error_msg}")
    # Wait for statistics and diagnostics published after the last answer.
    answered = time.monotonic()
    client.clear_reports()

    def is_settled() -> bool:
        # On a busy machine a report from before the last answer may still arrive.
        statistics = client.node_statistics
        is_counted = statistics is not None and statistics.questions_answered >= len(options.questions)
        return is_counted and time.monotonic() - answered > _SETTLE_SEC

    client.wait_until(is_settled, _SETTLE_TIMEOUT_SEC)
