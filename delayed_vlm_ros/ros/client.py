"""A client of a running ``scene_memory`` node: its service and action, its statistics, its diagnostics.

For programs that do nothing else meanwhile: every call spins the client's own node until it has what it wants.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.exceptions import InvalidNamespaceException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_namespace import validate_namespace

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.errors import AskTimeoutError, BadRequestError
from delayed_vlm_ros.msg import MemoryStats
from delayed_vlm_ros.srv import AskScene

_SPIN_PERIOD_SEC = 0.05
# A service's replies go to all of its clients: those to others must not push out the one to this one.
_REPLIES = QoSProfile(depth=200)
_GRACE_SEC = 5.0  # beyond the ask's own deadline, for the way there and back


class SceneMemoryClient:
    """Talks to one ``scene_memory`` node; made by ``scene_memory_client``.

    Attributes:
        service_name: The node's service, resolved.
        reported_name: What its statuses' names begin with.
        statistics: The newest that came, of whichever camera.
        statistics_by_camera: The newest that came of each camera.
        diagnostics: The newest statuses that came, of all nodes, by name.
    """

    def __init__(self, node: Node, executor: SingleThreadedExecutor) -> None:
        self._executor = executor
        self.service_name = node.resolve_service_name("ask_scene")
        self.reported_name = node.resolve_topic_name("scene_memory").lstrip("/") + ": "  # before each status's own
        self._name = node.get_fully_qualified_name()
        self._asking = node.create_client(AskScene, "ask_scene", qos_profile=_REPLIES)
        self._streaming = ActionClient(
            node,
            AskSceneAction,
            "ask_scene_stream",
            goal_service_qos_profile=_REPLIES,
            result_service_qos_profile=_REPLIES,
            cancel_service_qos_profile=_REPLIES,
        )
        self._subscriptions = [
            node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_statistics, 10),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
        ]
        self.statistics: MemoryStats | None = None
        self.statistics_by_camera: dict[str, MemoryStats] = {}
        self.diagnostics: dict[str, DiagnosticStatus] = {}

    def wait_until(self, condition: Callable[[], bool], timeout_sec: float) -> bool:
        """Receive messages until a condition holds.

        Args:
            condition: Looked at after every message, and every 50 ms.
            timeout_sec: How long at most.

        Returns:
            Whether it holds.
        """
        deadline = time.monotonic() + timeout_sec
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=_SPIN_PERIOD_SEC)
        return True

    def service_is_ready(self) -> bool:
        """Whether the node's service is there."""
        return bool(self._asking.service_is_ready())

    def action_is_ready(self) -> bool:
        """Whether the node's action is there."""
        return bool(self._streaming.server_is_ready())

    def ask(
        self, question: str, *, timeout_sec: float, max_new_tokens: int = 0, camera: str = "", last_sec: float = 0.0
    ) -> Any:
        """Ask through the service.

        Args:
            question: Plain text.
            timeout_sec: Deadline of the ask.
            camera: Which camera; empty: the first; ``*``: all.
            last_sec: Only the newest so many seconds; 0: everything.
            max_new_tokens: Length limit of the answer; 0: the node's default.

        Returns:
            The ``AskScene`` response, an error's included.

        Raises:
            AskTimeoutError: No response came at all.
        """
        request = AskScene.Request(
            question=question,
            timeout_sec=timeout_sec,
            max_new_tokens=max_new_tokens,
            camera=camera,
            last_sec=last_sec,
            client_id=self._name,
        )
        pending = self._asking.call_async(request)
        return self._wait_for(pending, "the service ask_scene", timeout_sec)

    def stream(
        self,
        goal: AskSceneAction.Goal,
        on_progress: Callable[[AskSceneAction.Feedback], None],
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Any:
        """Ask through the action.

        Args:
            goal: What to ask, with a deadline; asked in this client's name.
            told: Called with each feedback.
            cancelled: Whether the client_id wants it no more; looked at every 50 ms.

        Returns:
            The result, an error's included; it has the fields of an ``AskScene`` response.

        Raises:
            AskTimeoutError: No result came at all.
        """
        goal.client_id = self._name
        sending = self._streaming.send_goal_async(goal, lambda message: on_progress(message.feedback))
        handle = self._wait_for(sending, "the action ask_scene_stream", 0.0)
        fetching = handle.get_result_async()
        if self.wait_until(lambda: fetching.done() or cancelled(), goal.timeout_sec) and not fetching.done():
            handle.cancel_goal_async()
        return self._wait_for(fetching, "the action ask_scene_stream", 0.0).result

    def destroy(self) -> None:
        """Take the action's client down, which the node does not do by itself."""
        self._streaming.destroy()

    def _wait_for(self, pending: Any, what: str, timeout_sec: float) -> Any:
        if not self.wait_until(pending.done, timeout_sec + _GRACE_SEC):
            raise AskTimeoutError(f"{what} gave no response within {timeout_sec + _GRACE_SEC:g} s: is the node alive?")
        return pending.result()

    def _on_statistics(self, message: MemoryStats) -> None:
        self.statistics = message
        self.statistics_by_camera[message.camera] = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.diagnostics.update({status.name: status for status in message.status})


@contextmanager
def scene_memory_client(environment: dict[str, str], namespace: str = "/") -> Iterator[SceneMemoryClient]:
    """A client in a ROS context of its own.

    Args:
        environment: Its ``ROS_DOMAIN_ID`` counts; the rest of ROS's variables must stand in ``os.environ`` already,
            as the middleware reads them there.
        namespace: Of the node to talk to.

    Raises:
        BadRequestError: The namespace is none, or the domain no number.
    """
    try:
        validate_namespace(namespace)
    except InvalidNamespaceException as error:
        raise BadRequestError(f"'{namespace}' is no namespace ({error}): give one such as /robot1") from None
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    if not domain.isdecimal():
        raise BadRequestError(f"ROS_DOMAIN_ID is '{domain}': give a number from 0 to 101")
    context = Context()
    rclpy.init(
        context=context,
        domain_id=int(domain),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    node = Node(f"delayed_vlm_client_{os.getpid()}", context=context, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = SceneMemoryClient(node, executor)
    try:
        yield client
    finally:
        executor.shutdown()
        client.destroy()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
