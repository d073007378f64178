"""Connection of the MCP server to a ``scene_memory`` node."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.agents.conversion import ALERTS_URI, WATCHES_URI, watch_alerts_uri
from delayed_vlm_ros.agents.frame_cache import CachedFrame, FrameCache
from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskError,
    DelayedVlmError,
    NodeNotFoundError,
    PairNotKeptError,
    UnknownCameraError,
)
from delayed_vlm_ros.msg import Alert, KeyFrameArray, MemoryStats, NodeStats, WatchState
from delayed_vlm_ros.ros.client import SceneMemoryClient
from delayed_vlm_ros.ros.initialisation import initialise
from delayed_vlm_ros.ros.log import LoggingNode
from delayed_vlm_ros.ros.time import steady_clock
from delayed_vlm_ros.ros.watch_client import WatchClient
from delayed_vlm_ros.srv import FindMoments
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of
from delayed_vlm_ros.watches.watch import ALERTS_KEPT

DISCOVERY_SEC = 5.0
"""Time after the start in which calls wait for the node, in seconds."""

_SPIN_PERIOD_SEC = 0.1
_SILENT_SEC = 4.0  # the node reports once per second
_CHECK_PERIOD_SEC = 0.5
_REPORTS_SEC = 3.0
_KEY_FRAMES_SEC = 5.0
_SETTLE_SEC = 0.4  # the node publishes a change of the last second at its next check, every 0.25 s
_CLOSE_SEC = 1.6  # the process ends within 2 s
_CAMERA = "camera "
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class NodeBridge:
    """Talks to one ``scene_memory`` node, which need not run yet.

    The methods block; call them from any thread but the executor's.

    Args:
        node: Node in the namespace of the ``scene_memory`` node; an executor spins it.
        on_change: Called in the executor's thread with the URI of each resource that has changed.

    Attributes:
        client: Client of the node.
        watches: Client of its watches.
    """

    def __init__(self, node: Node, on_change: Callable[[str], None]) -> None:
        self._node = node
        self._on_change = on_change
        self._started_at = time.monotonic()
        self._heard_at: float | None = None
        self._clock_ns = (0, 0.0)  # the node's time, and when it was received
        self._statuses: tuple[DiagnosticStatus, ...] = ()
        self._alerts: dict[tuple[int, int], Alert] = {}  # by id and stamp, oldest first
        self._levels: tuple[Any, ...] = ()
        self._frames = FrameCache()
        self._frames_added: dict[str, int] = {}  # by camera
        self._closing = threading.Event()
        self._calls = 0
        self._calls_ended = threading.Condition()
        self.client = SceneMemoryClient(node, on_statistics=self._on_statistics, on_diagnostics=self._on_diagnostics)
        self.watches = WatchClient(self.client, on_alert=self._on_alert, on_states=self._on_states)
        self._timer = node.create_timer(_CHECK_PERIOD_SEC, self._check_node, clock=steady_clock())

    def cancel_calls(self) -> None:
        """Cancel all questions, and those that arrive later. Thread-safe."""
        self._closing.set()

    def close(self) -> None:
        """Cancel all questions, wait a moment for their end, and close the clients."""
        self.cancel_calls()
        with self._calls_ended:
            self._calls_ended.wait_for(lambda: not self._calls, _CLOSE_SEC)
        self.watches.close()
        self.client.close()

    # Messages, in the executor's thread -----------------------------------------------------------------------------

    def _on_statistics(self, message: MemoryStats) -> None:
        self._heard_at = time.monotonic()
        added = int(message.total_frames_added)
        if added < self._frames_added.get(message.camera, 0):  # a reset, or another run, which may use ids again
            self._frames.clear()
        self._frames_added[message.camera] = added

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = tuple(one for one in message.status if one.name.startswith(self.client.status_prefix))
        if statuses:
            self._heard_at = time.monotonic()
            self._clock_ns = nanoseconds_of(message.header.stamp), self._heard_at
            self._statuses = statuses

    def _on_alert(self, alert: Alert) -> None:
        key = int(alert.id), nanoseconds_of(alert.header.stamp)
        if key in self._alerts:  # a restarted node repeats its alerts
            return
        self._alerts = dict(list({**self._alerts, key: alert}.items())[-ALERTS_KEPT:])
        self._on_change(ALERTS_URI)
        self._on_change(watch_alerts_uri(alert.watch))

    def _on_states(self, states: Sequence[WatchState]) -> None:
        levels = tuple((state.settings.name, state.settings.question, state.level, state.reason) for state in states)
        if levels != self._levels:
            self._levels = levels
            self._on_change(WATCHES_URI)

    def _check_node(self) -> None:
        """End the questions to a silent node."""
        if not self.is_connected:
            self.client.fail_running()

    # State ----------------------------------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the node has reported within the last seconds."""
        return self._heard_at is not None and time.monotonic() - self._heard_at < _SILENT_SEC

    @property
    def name(self) -> str:
        """Full name of the node."""
        return f"/{self.client.status_prefix.rstrip(': ')}"

    @property
    def now_ns(self) -> int:
        """The node's time in nanoseconds; 0 before its first report."""
        stamp_ns, received_at = self._clock_ns
        return stamp_ns + round((time.monotonic() - received_at) * NANOSECONDS_PER_SECOND) if stamp_ns else 0

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """The newest alerts of all watches, oldest first."""
        return tuple(self._alerts.values())

    @property
    def diagnostics(self) -> tuple[DiagnosticStatus, ...]:
        """The newest statuses of the node."""
        return self._statuses

    def cameras(self) -> dict[str, str]:
        """Return the image topics of the cameras by name, in the node's order; empty if it is not configured."""
        prefix = f"{self.client.status_prefix}{_CAMERA}"
        return {
            status.name.removeprefix(prefix): next((pair.value for pair in status.values if pair.key == "topic"), "")
            for status in self._statuses
            if status.name.startswith(prefix)
        }

    # Calls ----------------------------------------------------------------------------------------------------------

    def require_node(self) -> None:
        """Check that the node runs; wait for it only in the first seconds after the start.

        Raises:
            AskCancelledError: The bridge is closing.
            NodeNotFoundError: The node does not run.
        """

        def is_found() -> bool:
            return self._closing.is_set() or (self.is_connected and bool(self._statuses) and self._is_discovered())

        remaining_sec = self._started_at + DISCOVERY_SEC - time.monotonic()
        if not self.client.wait_until(is_found, max(0.0, remaining_sec)):
            raise NodeNotFoundError(self.client.no_server_message())
        if self._closing.is_set():
            raise AskCancelledError("the MCP server is shutting down: start it again")

    def _is_discovered(self) -> bool:
        return self.client.service_is_ready() and self.client.action_is_ready() and self.watches.is_ready()

    def ask(
        self,
        goal: AskScene.Goal,
        on_progress: Callable[[AskScene.Feedback], None],
        is_cancelled: Callable[[], bool],
    ) -> AskScene.Result:
        """Ask, and return the result, which may hold an error.

        Args:
            goal: The question, with a deadline.
            on_progress: Called in the executor's thread with each feedback.
            is_cancelled: Returns whether to cancel the question; checked every 50 ms.

        Raises:
            AskTimeoutError: No result arrived.
            NodeNotFoundError: The node does not run, has ended or was restarted.
        """
        self.require_node()
        with self._counted():
            return self.client.stream(goal, on_progress, cancelled=lambda: is_cancelled() or self._closing.is_set())

    def find(
        self,
        description: str,
        *,
        camera: str,
        limits_ns: tuple[int, int],
        max_moments: int,
        timeout_sec: float,
        is_cancelled: Callable[[], bool],
    ) -> FindMoments.Response:
        """Search for moments, and return the response, which may hold an error.

        Args:
            description: What to find.
            camera: Camera to search.
            limits_ns: Earliest and latest time in nanoseconds; 0 for no limit.
            max_moments: Largest number of moments.
            timeout_sec: Deadline in seconds.
            is_cancelled: Returns whether to wait no longer; checked every 50 ms.

        Raises:
            AskCancelledError: The call was cancelled.
            AskTimeoutError: No response arrived.
            NodeNotFoundError: The node does not run.
        """
        self.require_node()
        with self._counted():
            return self.client.find_moments(
                description,
                camera=camera,
                since_ns=limits_ns[0],
                until_ns=limits_ns[1],
                max_moments=max_moments,
                timeout_sec=timeout_sec,
                cancelled=lambda: is_cancelled() or self._closing.is_set(),
            )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._calls_ended:
            self._calls += 1
        try:
            yield
        finally:
            with self._calls_ended:
                self._calls -= 1
                self._calls_ended.notify_all()

    def keep_images(self, frames: Iterable[Any]) -> None:
        """Cache the images of those key frames that newer ones replace soon. Those that have left already are not.

        Args:
            frames: ``KeyFrame`` messages of an answer.
        """
        ids = [frame.id for frame in frames if not frame.in_star]
        if ids:
            with suppress(DelayedVlmError):  # the answer counts
                self._fetch(ids)

    def show_frame(self, frame_id: int) -> tuple[CachedFrame, bool]:
        """Return a key frame with its images, and whether the memory still keeps it.

        Args:
            frame_id: Id of the key frame.

        Raises:
            AskError: The node refuses the request.
            NodeNotFoundError: The node does not run.
            PairNotKeptError: The frame is neither kept nor cached.
        """
        self.require_node()
        if self._fetch([frame_id]):
            cached = self._frames.get(frame_id)
            if cached is not None:
                return cached, True
        cached = self._frames.get(frame_id)
        if cached is None:
            raise PairNotKeptError(
                f"key frame {frame_id} is not kept: it was evicted or never existed; list_key_frames has those that are"
            )
        return cached, False

    def _fetch(self, ids: Sequence[int]) -> bool:
        """Cache the images of key frames; return whether the node keeps any of them."""
        response = self.client.get_frames(ids, image_format="jpeg")
        if not response.success:
            raise AskError(response.error_msg)
        for images in zip(response.key_frames, response.first_images, response.second_images, strict=True):
            self._frames.add(CachedFrame(*images))
        return bool(response.key_frames)

    def key_frames(self, camera: str) -> KeyFrameArray:
        """Return the key frames of a camera, as the node publishes them.

        The topic is subscribed to during the call only.

        Args:
            camera: Name of the camera; empty: the first camera.

        Raises:
            AskError: The node has no cameras.
            NodeNotFoundError: The node does not run.
            UnknownCameraError: No camera has this name.
        """
        self.require_node()
        topic = self._key_frames_topic(camera)
        received: queue.SimpleQueue[KeyFrameArray] = queue.SimpleQueue()
        subscriptions: list[Any] = []
        self.client.in_executor(
            lambda: subscriptions.append(self._node.create_subscription(KeyFrameArray, topic, received.put, _LATCHED))
        )
        try:
            newest = received.get(timeout=_KEY_FRAMES_SEC)
            deadline = time.monotonic() + _SETTLE_SEC
            while time.monotonic() < deadline:
                try:
                    newest = received.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
        except queue.Empty:
            raise NodeNotFoundError(
                f"no key frames on {self._node.resolve_topic_name(topic)} within {_KEY_FRAMES_SEC:g} s: see the tool "
                "status, then retry"
            ) from None
        finally:
            self.client.in_executor(lambda: [self._node.destroy_subscription(one) for one in subscriptions])
        return newest

    def _key_frames_topic(self, camera: str) -> str:
        cameras = list(self.cameras())
        if not cameras:
            raise AskError(f"{self.name} has no cameras: it is not configured, see the tool status")
        if camera and camera not in cameras:
            raise UnknownCameraError(
                f"unknown camera '{camera}': the cameras are {', '.join(cameras)}; leave the name empty for the first "
                "one"
            )
        return f"scene_memory/{camera}/key_frames" if camera and len(cameras) > 1 else "scene_memory/key_frames"

    def reports(self) -> tuple[dict[str, MemoryStats], NodeStats | None]:
        """Return the newest statistics of the cameras and of the node; wait a moment for the first ones.

        Raises:
            NodeNotFoundError: The node does not run.
        """
        self.require_node()

        def are_complete() -> bool:
            return self.client.node_statistics is not None and self.client.statistics_by_camera.keys() >= set(
                self.cameras()
            )

        self.client.wait_until(are_complete, _REPORTS_SEC)
        return dict(self.client.statistics_by_camera), self.client.node_statistics


@contextmanager
def connect_bridge(namespace: str, on_change: Callable[[str], None]) -> Iterator[NodeBridge]:
    """Make a bridge with a ROS context, a node and a thread of its own.

    Args:
        namespace: Namespace of the ``scene_memory`` node.
        on_change: Called in that thread with the URI of each resource that has changed.

    Raises:
        ConfigurationError: ROS cannot be initialised.
    """
    context = Context()
    initialise([], context=context, log_file=False)
    node = LoggingNode(f"delayed_vlm_mcp_{os.getpid()}", context=context, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    bridge = NodeBridge(node, on_change)
    closing = threading.Event()
    thread = threading.Thread(target=_spin, args=(executor, node, closing), name="mcp bridge", daemon=True)
    thread.start()
    try:
        yield bridge
    finally:
        bridge.close()
        closing.set()
        thread.join(_CLOSE_SEC)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def _spin(executor: SingleThreadedExecutor, node: Node, closing: threading.Event) -> None:
    while not closing.is_set():
        try:
            executor.spin_once(timeout_sec=_SPIN_PERIOD_SEC)
        except Exception as error:  # noqa: BLE001  a defect of one callback must not end all others
            node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}", throttle_duration_sec=10.0)
