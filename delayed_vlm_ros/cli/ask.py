"""``delayed-vlm ask``: ask a running ``scene_memory`` node."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from delayed_vlm_ros.cli import options, output, terminal
from delayed_vlm_ros.cli.interrupts import deferred_interrupt
from delayed_vlm_ros.errors import AskError, NodeNotFoundError
from delayed_vlm_ros.inference.finish import finish_warnings

DISCOVERY_SEC = 10.0
"""Maximum time to discover the node, in seconds."""

_ACTION_DISCOVERY_SEC = 2.0  # after the service, which belongs to the same node
_MIN_TIMEOUT_SEC = 0.1


def ask(
    question: Annotated[str, typer.Argument(help="Question in plain text.")],
    camera: Annotated[str, typer.Option(help="Camera to ask about; * for all cameras.", show_default="the first")] = "",
    last: Annotated[float, typer.Option(help="Use only frames of the last seconds; 0 for all frames.", min=0)] = 0.0,
    now: Annotated[
        bool, typer.Option("--now", help="Use only the newest frames: a question about the present.")
    ] = False,
    parse_time: Annotated[
        bool, typer.Option("--parse-time", help="Use only frames of the time that the question's words state.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            help="Deadline, in s, including the time to find the node and to load a model.", min=_MIN_TIMEOUT_SEC
        ),
    ] = 60.0,
    max_new_tokens: Annotated[
        int, typer.Option(help="Maximum length of the answer, in tokens; 0 for the node's default.", min=0)
    ] = 0,
    namespace: options.Namespace = "/",
    verbose: options.Verbose = False,
    as_json: options.Json = False,
) -> None:
    """Ask a running scene_memory node. Ctrl-C cancels the question.

    The ROS environment variables, such as ROS_DOMAIN_ID, select the node.
    """
    # Requires ROS.
    from delayed_vlm_ros.action import AskScene  # noqa: PLC0415
    from delayed_vlm_ros.ros.client import SceneMemoryClient  # noqa: PLC0415

    with SceneMemoryClient.connect(namespace) as client:
        deadline = time.monotonic() + timeout
        scope = AskScene.Goal.SCOPE_NOW if now else AskScene.Goal.SCOPE_ALL

        def remaining(limit: float = timeout) -> float:
            return max(_MIN_TIMEOUT_SEC, min(limit, round(deadline - time.monotonic(), 1)))

        discovery_sec = remaining(DISCOVERY_SEC)
        if not client.wait_until(client.service_is_ready, discovery_sec):
            raise NodeNotFoundError(not_found_message(f"service {client.service_name}", discovery_sec))
        if client.wait_until(client.action_is_ready, remaining(_ACTION_DISCOVERY_SEC)):
            goal = AskScene.Goal(
                question=question,
                camera=camera,
                last_sec=last,
                parse_time=parse_time,
                scope=scope,
                timeout_sec=remaining(),
                max_new_tokens=max_new_tokens,
                include_frames=as_json,
            )
            with output.live_answer(terminal.console(stderr=as_json)) as show, deferred_interrupt() as interrupted:
                response = client.stream(goal, show, cancelled=interrupted)
        else:
            terminal.write("no action ask_scene_stream: the answer is shown when it is complete", stderr=True)
            response = client.ask(
                question,
                camera=camera,
                last_sec=last,
                parse_time=parse_time,
                scope=scope,
                timeout_sec=remaining(),
                max_new_tokens=max_new_tokens,
                include_frames=as_json,
            )
    if as_json:
        terminal.write_json(output.response_json(response))
    elif response.success:
        view = output.AnswerView(terminal.console(), verbose)
        metrics = response.metrics
        of_this_answer = finish_warnings(metrics.finish_reason, metrics.answer_tokens)
        view.show_standing(warning for warning in metrics.warnings if warning not in of_this_answer)
        view.show_response(question, response)
    if not response.success:
        raise AskError(response.error_msg)


def not_found_message(missing: str, waited_sec: float = DISCOVERY_SEC) -> str:
    """Return the error message for a node whose service or diagnostics were not discovered."""
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return (
        f"no {missing} within {waited_sec:g} s in ROS domain {domain}: check that scene_memory runs in this "
        "namespace, and set ROS_DOMAIN_ID and ROS_AUTOMATIC_DISCOVERY_RANGE to the node's values"
    )
