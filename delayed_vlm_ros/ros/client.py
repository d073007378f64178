"""Client of a running ``scene_memory`` node: questions, marks, images, statistics and diagnostics."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile

from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BadRequestError, NodeNotFoundError
from delayed_vlm_ros.msg import MemoryStats, NodeStats
from delayed_vlm_ros.ros.action_call import ActionCall
from delayed_vlm_ros.ros.action_client import SpunActionClient
from delayed_vlm_ros.ros.initialisation import check_namespace, initialise, ros_domain
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.srv import AskScene, FindMoments, GetFrames, Mark

_SPIN_PERIOD_SEC = 0.05
_GRACE_SEC = 2.0  # beyond a question's own deadline, for transport
_BUSY_GRACE_SEC = 3.0  # more, for a node that still reports
_SILENT_SEC = 3.0  # without a report, after which a node may hang; it reports once per second
_SEND_SEC = 0.2  # to send a cancellation
_CALL_TIMEOUT_SEC = 10.0
_IDLE_REPORTS = 3  # consecutive reports of an idle node after which a running question may be lost
_IDLE_REPORTS_BEFORE_ACCEPTANCE = 10  # of a question that the node has not accepted
_LOST = "scene_memory was restarted and has lost the question: ask again"

REPLIES = QoSProfile(depth=200)
"""QoS of a service's client. Replies go to all clients: those to others must not push out the one to this client."""


class SceneMemoryClient:
    """Talks to one ``scene_memory`` node.

    ``ask_async`` and ``stream_async`` return immediately; the node's executor calls their callbacks. The other calls
    block. There are two constructors:

    * ``SceneMemoryClient.connect()`` makes a node of its own, which the blocking calls spin. For scripts.
    * ``SceneMemoryClient(node)`` uses a node that an executor spins. Blocking calls must come from another thread than
      the executor's.

    Args:
        node: Node in the namespace of the ``scene_memory`` node.
        on_statistics: Called in the executor's thread with each camera's statistics message; None: not called.
        on_diagnostics: Called in the executor's thread with each diagnostics message of any node; None: not called.
        spins: Whether blocking calls spin the node's executor themselves.

    Attributes:
        node: See above.
        service_name: Resolved name of the service ``ask_scene``.
        status_prefix: First part of the names of the node's diagnostics, such as ``robot1/scene_memory: ``.
    """

    def __init__(
        self,
        node: Node,
        *,
        on_statistics: Callable[[MemoryStats], None] | None = None,
        on_diagnostics: Callable[[DiagnosticArray], None] | None = None,
        spins: bool = False,
    ) -> None:
        self.node = node
        self._spins = spins
        self._listeners = on_statistics, on_diagnostics
        self.service_name: str = node.resolve_service_name("ask_scene")
        self.status_prefix: str = node.resolve_topic_name("scene_memory").lstrip("/") + ": "
        self._client_id: str = node.get_fully_qualified_name()
        self._running: set[StreamedQuestion] = set()  # of the executor's thread
        self._newest: MemoryStats | None = None
        self._statistics: dict[str, MemoryStats] = {}
        self._node_statistics: NodeStats | None = None
        self._reported_at: float | None = None
        self._diagnostics: dict[str, DiagnosticStatus] = {}
        # Another thread may spin the node: from here on, callbacks may run.
        self._ask: Client[Any, Any] = node.create_client(AskScene, "ask_scene", qos_profile=REPLIES)
        self._mark: Client[Any, Any] = node.create_client(Mark, "scene_memory/mark", qos_profile=REPLIES)
        self._get_frames: Client[Any, Any] = node.create_client(
            GetFrames, "scene_memory/get_frames", qos_profile=REPLIES
        )
        self._find: Client[Any, Any] = node.create_client(FindMoments, "scene_memory/find_moments", qos_profile=REPLIES)
        self._stream = SpunActionClient(
            node,
            AskSceneAction,
            "ask_scene_stream",
            goal_service_qos_profile=REPLIES,
            result_service_qos_profile=REPLIES,
            cancel_service_qos_profile=REPLIES,
        )
        self._subscriptions = [
            node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_statistics, 10),
            node.create_subscription(NodeStats, "scene_memory/node_stats", self._on_node_statistics, 10),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
        ]

    @classmethod
    @contextmanager
    def connect(
        cls, namespace: str = "/", *, environment: Mapping[str, str] = os.environ
    ) -> Iterator[SceneMemoryClient]:
        """Make a client with a ROS context and a node of its own.

        Args:
            namespace: Namespace of the ``scene_memory`` node.
            environment: Source of ``ROS_DOMAIN_ID``. The middleware reads all other variables from ``os.environ``.

        Raises:
            BadRequestError: The namespace or the domain is invalid.
            ConfigurationError: The ROS arguments of the command line are invalid.
        """
        check_namespace(namespace)
        context = Context()
        initialise(context=context, domain=ros_domain(environment), log_file=False)
        node = LoggingNode(f"delayed_vlm_client_{os.getpid()}", context=context, namespace=namespace)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        client = cls(node, spins=True)
        try:
            yield client
        finally:
            executor.shutdown()
            client.close()
            node.destroy_node()
            rclpy.try_shutdown(context=context)

    def close(self) -> None:
        """Destroy the action client, which the node does not do."""
        self._stream.destroy()

    # Reports of the node --------------------------------------------------------------------------------------------

    @property
    def statistics(self) -> MemoryStats | None:
        """The newest statistics message of any camera; None before the first."""
        return self._newest

    @property
    def statistics_by_camera(self) -> Mapping[str, MemoryStats]:
        """The newest statistics message of each camera."""
        return self._statistics

    @property
    def node_statistics(self) -> NodeStats | None:
        """The newest statistics message of the node; None before the first."""
        return self._node_statistics

    @property
    def diagnostics(self) -> Mapping[str, DiagnosticStatus]:
        """The newest status of each name of the ``scene_memory`` node."""
        return self._diagnostics

    def clear_reports(self) -> None:
        """Discard the statistics and diagnostics received so far."""
        self._newest, self._statistics, self._node_statistics, self._diagnostics = None, {}, None, {}

    def _on_statistics(self, message: MemoryStats) -> None:
        self._newest = message
        self._statistics = {**self._statistics, message.camera: message}
        if self._listeners[0] is not None:
            self._listeners[0](message)

    def _on_node_statistics(self, message: NodeStats) -> None:
        self._node_statistics = message
        self._reported_at = time.monotonic()
        is_busy = bool(message.questions_running or message.questions_waiting)
        for question in tuple(self._running):
            if not question.may_be_lost(is_busy=is_busy):
                continue
            if question.is_accepted:
                question.check()
            else:
                question.fail(NodeNotFoundError(self.no_server_message()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        own = {status.name: status for status in message.status if status.name.startswith(self.status_prefix)}
        self._diagnostics = {**self._diagnostics, **own}
        if self._listeners[1] is not None:
            self._listeners[1](message)

    # Non-blocking calls ---------------------------------------------------------------------------------------------

    def service_is_ready(self) -> bool:
        """Return whether the service ``ask_scene`` is available."""
        return bool(self._ask.service_is_ready())

    def search_is_ready(self) -> bool:
        """Return whether the service ``find_moments`` is available."""
        return bool(self._find.service_is_ready())

    def action_is_ready(self) -> bool:
        """Return whether the action ``ask_scene_stream`` is available."""
        return bool(self._stream.server_is_ready())

    def ask_async(self, request: AskScene.Request) -> Any:
        """Ask through the service; return the rclpy future of the response. Sets the request's ``client_id``."""
        request.client_id = self._client_id
        return self._ask.call_async(request)

    def stream_async(
        self,
        goal: AskSceneAction.Goal,
        on_progress: Callable[[AskSceneAction.Feedback], None],
        on_done: Callable[[StreamedQuestion], None] | None = None,
    ) -> StreamedQuestion:
        """Ask through the action. Sets the goal's ``client_id``. Thread-safe.

        Args:
            goal: The question.
            on_progress: Called in the executor's thread with each feedback.
            on_done: Called once in the executor's thread with the question when it has ended.
        """
        goal.client_id = self._client_id
        question = StreamedQuestion(goal, on_progress, self.in_executor)
        question.future.add_done_callback(lambda _: self._running.discard(question))
        if on_done is not None:
            question.future.add_done_callback(lambda _: on_done(question))
        if not self.in_executor(lambda: self._send(question)):
            question.fail(NodeNotFoundError("the client's node has no executor: add it to one that spins, then retry"))
        return question

    def fail_running(self) -> None:
        """End all running questions because the node is unreachable; called in the executor's thread."""
        for question in tuple(self._running):
            question.fail(NodeNotFoundError(self.no_server_message()))

    def no_server_message(self) -> str:
        """Return why the node may be unreachable, and the remedy."""
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        return (
            f"no scene_memory node at {self.status_prefix.rstrip(': ')} in ROS domain {domain}: start it, for example "
            "with ros2 launch delayed_vlm_ros bringup.launch.py, or set ROS_DOMAIN_ID and the namespace as for the node"
        )

    def _send(self, question: StreamedQuestion) -> None:
        if not self.action_is_ready():
            question.fail(NodeNotFoundError(self.no_server_message()))
            return
        self._running.add(question)
        question.send(self._stream)

    def in_executor(self, act: Callable[[], Any]) -> bool:
        """Run a function in the executor's thread; return False if the node is in no executor."""
        executor = self.node.executor
        if executor is None:
            return False
        executor.create_task(act)
        return True

    # Blocking calls -------------------------------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], timeout_sec: float) -> bool:
        """Receive messages until a condition holds; return whether it does.

        Args:
            condition: Checked after every message and every 50 ms.
            timeout_sec: Longest wait in seconds.
        """
        deadline = time.monotonic() + timeout_sec
        while not condition():
            if time.monotonic() > deadline:
                return False
            executor = self.node.executor if self._spins else None
            if executor is not None:
                executor.spin_once(timeout_sec=_SPIN_PERIOD_SEC)
            else:
                time.sleep(_SPIN_PERIOD_SEC)
        return True

    def ask(
        self,
        question: str,
        *,
        timeout_sec: float,
        max_new_tokens: int = 0,
        camera: str = "",
        last_sec: float = 0.0,
        parse_time: bool = False,
        scope: int = AskScene.Request.SCOPE_ALL,
        include_frames: bool = False,
    ) -> AskScene.Response:
        """Ask through the service and return the response, which may hold an error.

        Args:
            question: Question in plain text.
            timeout_sec: Deadline of the question in seconds.
            max_new_tokens: Maximum length of the answer in tokens; 0: the node's default.
            camera: Camera to ask about; empty: the first camera; ``*``: all cameras.
            last_sec: Use only frames of the last seconds; 0: all frames.
            parse_time: Whether to read time limits from the question's own words; ``time_understood`` of the response
                says what was read.
            scope: ``SCOPE_ALL``, or ``SCOPE_NOW`` for a question about the present.
            include_frames: Whether the response has the key frames and not only their ids.

        Raises:
            BadRequestError: The deadline is not positive.
            NodeNotFoundError: The node is unreachable.
            AskTimeoutError: No response arrived.
        """
        request = AskScene.Request(
            question=question,
            timeout_sec=_checked_timeout(timeout_sec),
            max_new_tokens=max_new_tokens,
            camera=camera,
            last_sec=last_sec,
            parse_time=parse_time,
            scope=scope,
            include_frames=include_frames,
        )
        self.wait_for_server(self.service_is_ready, timeout_sec)
        pending = self.ask_async(request)
        started = time.monotonic()
        self._wait_with_grace(partial(self._wait, pending), pending.done, timeout_sec)
        if not pending.done():
            self._ask.remove_pending_request(pending)
            raise AskTimeoutError(self._no_response("the service ask_scene", started))
        return pending.result()

    def find_moments(
        self,
        description: str,
        *,
        timeout_sec: float,
        camera: str = "",
        since_ns: int = 0,
        until_ns: int = 0,
        max_moments: int = 0,
        include_thumbnails: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> FindMoments.Response:
        """Return the response with the moments that fit a description, best first, or with an error.

        Args:
            description: What to find, or a yes/no question that ends with "?".
            timeout_sec: Deadline of the search in seconds.
            camera: Camera to search; empty: the first camera; ``*``: all cameras.
            since_ns: Earliest stamp in nanoseconds; 0: no limit.
            until_ns: Latest stamp in nanoseconds; 0: no limit.
            max_moments: Largest number of moments; 0: 10.
            include_thumbnails: Whether each moment has a small image.
            cancelled: Returns whether to wait no longer; checked every 50 ms. The node searches until its deadline.

        Raises:
            AskCancelledError: The wait was cancelled.
            AskTimeoutError: No response arrived.
            BadRequestError: The deadline is not positive.
            NodeNotFoundError: The node is unreachable.
        """
        request = FindMoments.Request(
            description=description,
            camera=camera,
            since=time_message(since_ns),
            until=time_message(until_ns),
            max_moments=max_moments,
            include_thumbnails=include_thumbnails,
            timeout_sec=_checked_timeout(timeout_sec),
            client_id=self._client_id,
        )
        self.wait_for_server(self._find.service_is_ready, timeout_sec)
        started = time.monotonic()
        pending = self._find.call_async(request)

        def is_over() -> bool:
            return bool(pending.done()) or cancelled()

        self._wait_with_grace(partial(self.wait_until, is_over), is_over, timeout_sec)
        if not pending.done():
            self._find.remove_pending_request(pending)
            if cancelled():
                raise AskCancelledError("the search was cancelled; the node may continue it until its deadline")
            raise AskTimeoutError(self._no_response("the service find_moments", started))
        return pending.result()

    def stream(
        self,
        goal: AskSceneAction.Goal,
        on_progress: Callable[[AskSceneAction.Feedback], None],
        *,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> AskSceneAction.Result:
        """Ask through the action and return the result, which may hold an error.

        Args:
            goal: The question, with a deadline.
            on_progress: Called with each feedback.
            cancelled: Returns whether to cancel the question; checked every 50 ms.

        Raises:
            BadRequestError: The deadline is not positive.
            NodeNotFoundError: The node is unreachable, or was restarted.
            AskTimeoutError: No result arrived.
        """
        _checked_timeout(goal.timeout_sec)
        self.wait_for_server(self.action_is_ready, goal.timeout_sec)
        started = time.monotonic()
        question = self.stream_async(goal, on_progress)
        done = question.future.done

        def is_over() -> bool:
            return done() or cancelled()

        self._wait_with_grace(partial(self.wait_until, is_over), is_over, goal.timeout_sec)
        if not done():
            question.cancel()
            self.wait_until(done, _GRACE_SEC if cancelled() else _SEND_SEC)
            question.fail(AskTimeoutError(self._no_response("the action ask_scene_stream", started)))
        return question.future.result()

    def mark(
        self,
        *,
        pair_id: int = 0,
        stamp_ns: int = 0,
        camera: str = "",
        label: str = "",
        unmark: bool = False,
        timeout_sec: float = _CALL_TIMEOUT_SEC,
    ) -> Mark.Response:
        """Mark a kept pair, or remove its mark; return the response, which may hold an error.

        Args:
            pair_id: Id of the pair; 0: select it by its stamp.
            stamp_ns: Stamp near the pair in nanoseconds; 0: the newest pair.
            camera: Camera of the pair; empty: the camera that keeps the id, or the first camera.
            label: Name shown with the pair.
            unmark: Remove the mark.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable.
        """
        stamp = time_message(stamp_ns)
        request = Mark.Request(id=pair_id, stamp=stamp, camera=camera, label=label, unmark=unmark)
        return self.call(self._mark, request, timeout_sec)

    def get_frames(
        self,
        ids: Sequence[int] = (),
        *,
        camera: str = "",
        image_format: str = "png",
        timeout_sec: float = _CALL_TIMEOUT_SEC,
    ) -> GetFrames.Response:
        """Return the response with the images of kept pairs, or with an error.

        Args:
            ids: Ids of the pairs; empty: all kept pairs.
            camera: Camera of the pairs; empty: all cameras if ids are given, otherwise the first; ``*``: all cameras.
            image_format: ``png`` or ``jpeg``.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable.
        """
        request = GetFrames.Request(ids=list(ids), camera=camera, format=image_format)
        return self.call(self._get_frames, request, timeout_sec)

    def call(self, client: Client[Any, Any], request: Any, timeout_sec: float) -> Any:
        """Send a request to a service and return the response.

        Args:
            client: Client of the service, of this node.
            request: The request.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        self.wait_for_server(client.service_is_ready, timeout_sec)
        started = time.monotonic()
        pending = client.call_async(request)
        self._wait(pending, timeout_sec)
        if not pending.done():
            client.remove_pending_request(pending)
            raise NodeNotFoundError(self._no_response(client.srv_name, started))
        return pending.result()

    def _wait_with_grace(
        self, wait: Callable[[float], object], is_over: Callable[[], bool], timeout_sec: float
    ) -> None:
        """Wait for a response until its deadline, and somewhat longer: more if the node still reports."""
        wait(timeout_sec + _GRACE_SEC)
        if not is_over() and self._is_reporting():
            wait(_BUSY_GRACE_SEC)

    def _is_reporting(self) -> bool:
        return self._reported_at is not None and time.monotonic() - self._reported_at < _SILENT_SEC

    def _no_response(self, source: str, started: float) -> str:
        """Return what is known of a node that did not respond since a time of ``time.monotonic``, in seconds."""
        missing = f"no response from {source} within {time.monotonic() - started:.1f} s"
        stats = self._node_statistics
        if stats is None or not self._is_reporting():
            return f"{missing}, and no report of the node either: it hangs or its machine is unreachable, see its log"
        return (
            f"{missing}, but the node is alive (model {stats.model_state}, {stats.questions_running} running and "
            f"{stats.questions_waiting} waiting questions): its machine is busy, retry later or allow more time"
        )

    def wait_for_server(self, is_ready: Callable[[], bool], timeout_sec: float) -> None:
        """Wait until a server is discovered, which takes a moment after ``connect``.

        Args:
            is_ready: Returns whether it is.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: It was not discovered.
        """
        if not is_ready() and not (self._spins and self.wait_until(is_ready, min(timeout_sec, _CALL_TIMEOUT_SEC))):
            raise NodeNotFoundError(self.no_server_message())

    def _wait(self, pending: Any, timeout_sec: float) -> None:
        """Wait until an rclpy future is done or the time is over."""
        if self._spins:
            self.wait_until(pending.done, timeout_sec)
            return
        done = threading.Event()
        pending.add_done_callback(lambda _: done.set())
        done.wait(timeout_sec)


class StreamedQuestion(ActionCall[AskSceneAction.Result]):
    """A question that was sent through the action; made by ``SceneMemoryClient.stream_async``.

    Attributes:
        text: The answer so far.
    """

    def __init__(
        self,
        goal: AskSceneAction.Goal,
        on_progress: Callable[[AskSceneAction.Feedback], None],
        in_executor: Callable[[Callable[[], Any]], bool],
    ) -> None:
        super().__init__(goal, self._on_progress, in_executor, _LOST)
        self.text = ""
        self._listener = on_progress
        self._idle_reports = 0  # since the node was last busy

    def may_be_lost(self, *, is_busy: bool) -> bool:
        """Return whether the node may have lost the question, as after a restart; called for each of its reports.

        On a busy machine, several reports may overtake a response.

        Args:
            is_busy: Whether the node has any question.
        """
        self._idle_reports = 0 if is_busy else self._idle_reports + 1
        if self._idle_reports < (_IDLE_REPORTS if self.is_accepted else _IDLE_REPORTS_BEFORE_ACCEPTANCE):
            return False
        self._idle_reports = 0
        return True

    def _on_progress(self, feedback: Any) -> None:
        self._idle_reports = 0
        self.text = feedback.text
        self._listener(feedback)


def _checked_timeout(timeout_sec: float) -> float:
    if not timeout_sec > 0:
        raise BadRequestError(f"'timeout_sec' must be greater than 0, got {timeout_sec}")
    return timeout_sec
