"""``delayed-vlm ask`` and ``delayed-vlm status``: talk to a ``scene_memory`` node that runs already."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from delayed_vlm_ros.errors import AskError, NodeNotFoundError

_SERVICE_WAIT_SEC = 10.0
_ACTION_WAIT_SEC = 2.0  # beyond the service's: both are the node's
_REPORT_WAIT_SEC = 3.0  # the node reports once a second

_Namespace = Annotated[str, typer.Option(help="Namespace of the node, such as /robot1.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def ask(
    question: Annotated[str, typer.Argument(help="What to ask, in plain words.")],
    camera: Annotated[str, typer.Option(help="Which camera; * means all; the first one unless given.")] = "",
    last: Annotated[float, typer.Option(help="Only the newest so many seconds; 0: everything.", min=0)] = 0.0,
    timeout: Annotated[float, typer.Option(help="Deadline in seconds, a loading model included.", min=0.1)] = 60.0,
    max_new_tokens: Annotated[int, typer.Option(help="Length limit of the answer; 0: the node's.", min=0)] = 0,
    namespace: _Namespace = "/",
    as_json: _Json = False,
) -> None:
    """Ask a running scene_memory node, as ROS_DOMAIN_ID and the other ROS variables find it. Ctrl-C cancels the ask."""
    from delayed_vlm_ros.action import AskScene  # noqa: PLC0415
    from delayed_vlm_ros.cli import output  # noqa: PLC0415
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415

    with SceneMemoryClient.connect(namespace) as client:
        if not client.wait_until(client.service_is_ready, _SERVICE_WAIT_SEC):
            raise NodeNotFoundError(_nobody("service", client.service_name))
        limits = {"camera": camera, "last_sec": last, "timeout_sec": timeout, "max_new_tokens": max_new_tokens}
        if client.wait_until(client.action_is_ready, _ACTION_WAIT_SEC):
            with output.growing_answer(Console(stderr=as_json)) as show, _noticing_ctrl_c() as pressed:
                response = client.stream(AskScene.Goal(question=question, **limits), show, cancelled=pressed)
        else:
            sys.stderr.write("this node has no action ask_scene_stream: the answer comes in one piece\n")
            response = client.ask(question, **limits)
    if as_json:
        sys.stdout.write(json.dumps(output.response_json(response), ensure_ascii=False, indent=2) + "\n")
    elif response.success:
        output.show_response(Console(), question, response)
    if not response.success:
        raise AskError(response.error_msg)


@contextmanager
def _noticing_ctrl_c() -> Iterator[Callable[[], bool]]:
    """While this is open, Ctrl-C raises nothing; gives a function that says whether it was pressed.

    An exception in the middle of rclpy would leave it in pieces, and the ask uncancelled.
    """
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def status(namespace: _Namespace = "/", as_json: _Json = False) -> None:
    """Show what a running scene_memory node says of itself: cameras, model, asks, and what is wrong."""
    from delayed_vlm_ros.cli import output  # noqa: PLC0415
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415

    def found() -> dict[str, Any]:
        return {name: one for name, one in client.diagnostics.items() if name.startswith(client.status_prefix)}

    with SceneMemoryClient.connect(namespace) as client:
        if not client.wait_until(lambda: bool(found()), _SERVICE_WAIT_SEC):
            raise NodeNotFoundError(_nobody("diagnostics of", client.status_prefix.rstrip(": ")))
        prefix = f"{client.status_prefix}camera "
        # A node that is not configured has no cameras, and no statistics to wait for.
        cameras = [name.removeprefix(prefix) for name in found() if name.startswith(prefix)]
        client.wait_until(lambda: client.statistics_by_camera.keys() >= set(cameras), _REPORT_WAIT_SEC)
        on_progress = client.statistics_by_camera
    statuses = list(found().values())
    # In the order in which the node reports its cameras.
    statistics = {name: output.message_fields(on_progress[name]) for name in cameras if name in on_progress}
    if as_json:
        content = {"statistics": statistics, "diagnostics": output.diagnostics_json(statuses)}
        sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    else:
        output.show_diagnostics(Console(), statuses)
        for name, fields in statistics.items():
            output.show_camera_statistics(Console(), name, fields)


def _nobody(what: str, name: str) -> str:
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return (
        f"no {what} {name} within {_SERVICE_WAIT_SEC:g} s: is scene_memory running in ROS domain {domain} and in this "
        "namespace? Set ROS_DOMAIN_ID, and ROS_AUTOMATIC_DISCOVERY_RANGE where it is limited, as for the node"
    )
