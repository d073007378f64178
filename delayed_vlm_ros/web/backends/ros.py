"""A ``scene_memory`` node, near or on another computer, as the page sees it: by its ROS interface and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from delayed_vlm_ros.errors import MarkError, NodeNotFoundError
from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.msg import KeyFrameArray, MemoryStats, SceneAnswer
from delayed_vlm_ros.srv import GetFrames, Mark
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of
from delayed_vlm_ros.web.backend import (
    AskOutcome,
    CameraState,
    Diagnostic,
    KeptFrame,
    KeptFrameImages,
    Latency,
    Level,
    LiveImage,
    MemoryCounts,
    Question,
    SceneState,
)
from delayed_vlm_ros.web.backends.live_camera import LiveCamera
from delayed_vlm_ros.web.backends.ros_questions import RemoteAsk, RemoteAsks, moment_of

_SILENT_AFTER_SEC = 4.0  # the node reports once a second
_WATCHED_SEC = 4.0
_TEND_PERIOD_SEC = 0.2
_CALL_TIMEOUT_SEC = 10.0
_LATENCIES = 100
_MOST_CALLS = 4  # of ~/get_frames for one batch, whose responses are bounded
_CAMERA = "camera "

_LEVELS = {
    DiagnosticStatus.OK: Level.OK,
    DiagnosticStatus.WARN: Level.WARN,
    DiagnosticStatus.ERROR: Level.ERROR,
    DiagnosticStatus.STALE: Level.STALE,
}


class RosBackend:
    """See ``Backend``. What it hears it hears in the executor's thread; the page calls from its own.

    Statistics and diagnostics come once a second anyway. Key frames and images are subscribed to only while a page
    is open.

    Args:
        node: The node to listen from, in the memory's namespace.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._prefix = node.resolve_topic_name("scene_memory").lstrip("/") + ": "
        self._converter = make_converter()
        self._heard_at = 0.0
        self._watched_until = 0.0
        self._clock_ns = (0, 0.0)  # the node's time, and when it was heard
        self._statuses: tuple[DiagnosticStatus, ...] = ()
        self._statistics: dict[str, MemoryStats] = {}
        self._moments: dict[str, tuple[KeptFrame, ...]] = {}
        self._latencies: deque[Latency] = deque(maxlen=_LATENCIES)
        self._cameras: dict[str, LiveCamera] = {}
        self._key_frames: dict[str, Subscription] = {}
        self._heard = [
            node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_statistics, 10),
            node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10),
            node.create_subscription(SceneAnswer, "scene_memory/answers", self._on_answer, 10),
        ]
        self._get_frames = node.create_client(GetFrames, "scene_memory/get_frames")
        self._mark = node.create_client(Mark, "scene_memory/mark")
        self._asks = RemoteAsks(node, self._waiting_for)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(
            _TEND_PERIOD_SEC, self._tend, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady
        )

    def close(self) -> None:
        """End what the node does not end by itself."""
        for camera in self._cameras.values():
            camera.close()
        self._asks.destroy()

    # What is heard --------------------------------------------------------------------------------------------------

    def _on_statistics(self, message: MemoryStats) -> None:
        self._heard_at = time.monotonic()
        self._statistics[message.camera] = message
        if not message.unique_frames:
            self._moments.pop(message.camera, None)
        if message.camera == next(iter(self._statistics)):
            self._asks.reported(is_busy=bool(message.asks_running or message.asks_waiting))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        mine = tuple(status for status in message.status if status.name.startswith(self._prefix))
        if not mine:
            return
        self._heard_at = time.monotonic()
        self._clock_ns = nanoseconds_of(message.header.stamp), self._heard_at
        self._statuses = mine
        topics = {
            self._name(status).removeprefix(_CAMERA): _value(status, "topic")
            for status in mine
            if self._name(status).startswith(_CAMERA)
        }
        self._follow_cameras(topics)

    def _follow_cameras(self, topics: Mapping[str, str]) -> None:
        present = {name: camera.base_topic for name, camera in self._cameras.items()}
        if present == topics:
            return
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {name: LiveCamera(self._node, name, topic, self._converter) for name, topic in topics.items()}
        self._statistics = {name: told for name, told in self._statistics.items() if name in topics}
        self._moments = {name: kept for name, kept in self._moments.items() if name in topics}

    def _on_answer(self, message: SceneAnswer) -> None:
        if message.success:
            metrics = message.metrics
            self._latencies.append(Latency(metrics.time_to_first_token, metrics.total_latency))

    def _on_key_frames(self, message: KeyFrameArray) -> None:
        self._moments[message.camera] = tuple(moment_of(frame) for frame in message.key_frames)

    def _tend(self) -> None:
        """Listen to what costs something only while somebody looks."""
        now = time.monotonic()
        for camera in self._cameras.values():
            camera.update()
        if not self._is_heard:
            self._asks.lost()
        wanted = set(self._key_frame_topics()) if now < self._watched_until else set()
        for topic in wanted - self._key_frames.keys():
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._key_frames[topic] = self._node.create_subscription(KeyFrameArray, topic, self._on_key_frames, latched)
        for topic in self._key_frames.keys() - wanted:
            self._node.destroy_subscription(self._key_frames.pop(topic))
        if not wanted:
            self._moments = {}

    def _key_frame_topics(self) -> list[str]:
        names = list(self._cameras)
        if len(names) <= 1:
            return ["scene_memory/key_frames"]
        return [f"scene_memory/{name}/key_frames" for name in names]

    # What the page shows --------------------------------------------------------------------------------------------

    @property
    def _is_heard(self) -> bool:
        return bool(self._heard_at) and time.monotonic() - self._heard_at < _SILENT_AFTER_SEC

    def state(self) -> SceneState:
        """See ``Backend``."""
        self._watched_until = time.monotonic() + _WATCHED_SEC
        is_heard = self._is_heard
        clock_ns, heard_at = self._clock_ns
        now_ns = clock_ns + round((time.monotonic() - heard_at) * NANOSECONDS_PER_SECOND) if clock_ns else 0
        statistics, cameras, moments = self._statistics, self._cameras, self._moments
        told = next((statistics[name] for name in cameras if name in statistics), None)
        return SceneState(
            connected=is_heard,
            waiting_for="" if is_heard else self._waiting_for(),
            now_ns=now_ns,
            cameras=tuple(
                _camera_state(name, camera.base_topic, statistics.get(name), moments.get(name, ()))
                for name, camera in cameras.items()
            ),
            diagnostics=self._diagnostics(is_heard=is_heard),
            model=told.model if told is not None else "",
            model_state=told.model_state if told is not None and is_heard else "",
            device=told.device if told is not None else "",
            asks_served=told.asks_served if told is not None else 0,
            asks_failed=told.asks_failed if told is not None else 0,
            latencies=tuple(self._latencies),
        )

    def _diagnostics(self, *, is_heard: bool) -> tuple[Diagnostic, ...]:
        found = tuple(
            Diagnostic(self._name(status), _LEVELS.get(status.level, Level.ERROR), status.message)
            for status in self._statuses
        )
        if is_heard or not found:
            return found
        return (Diagnostic("scene_memory", Level.ERROR, "silent; what stands here is what it said last"), *found)

    def _waiting_for(self) -> str:
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        return (
            f"Nothing is heard of {self._prefix.rstrip(': ')} in ROS domain {domain}. Start it, for example with "
            "ros2 launch delayed_vlm_ros bringup.launch.py, or give this page the node's ROS_DOMAIN_ID and namespace."
        )

    def _name(self, status: DiagnosticStatus) -> str:
        return str(status.name.removeprefix(self._prefix))

    def live_image(self, camera: str) -> LiveImage | None:
        """See ``Backend``."""
        live = self._cameras.get(camera)
        return live.image() if live is not None else None

    def images(self, ids: Sequence[int]) -> Mapping[str, KeptFrameImages]:
        """See ``Backend``."""
        found: dict[str, KeptFrameImages] = {}
        wanted = list(ids)
        for _ in range(_MOST_CALLS):
            if not wanted:
                break
            response = self._call(self._get_frames, GetFrames.Request(ids=wanted, format="jpeg"))
            shown = zip(response.key_frames, response.first_images, response.second_images, strict=True)
            for frame, first, second in shown:
                found[moment_of(frame).key] = KeptFrameImages(bytes(first.data), bytes(second.data))
            wanted = list(response.left_out)
        return found

    def mark(self, frame: KeptFrame, label: str) -> None:
        """See ``Backend``."""
        self._change_mark(Mark.Request(id=frame.id, label=label))

    def unmark(self, frame: KeptFrame) -> None:
        """See ``Backend``."""
        self._change_mark(Mark.Request(id=frame.id, unmark=True))

    def _change_mark(self, request: Mark.Request) -> None:
        response = self._call(self._mark, request)
        if not response.success:
            raise MarkError(response.error_msg)

    def ask(
        self, question: Question, on_progress: Callable[[Progress], None], on_done: Callable[[AskOutcome], None]
    ) -> RemoteAsk:
        """See ``Backend``."""
        return self._asks.ask(question, on_progress, on_done)

    def _call(self, client: Client, request: Any) -> Any:
        """Call a service and wait for its response, in a thread that is not the executor's."""
        if not client.service_is_ready():
            raise NodeNotFoundError(self._waiting_for().rstrip("."))
        arrived = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: arrived.set())
        if not arrived.wait(_CALL_TIMEOUT_SEC):
            client.remove_pending_request(future)
            raise NodeNotFoundError(
                f"{client.srv_name} gave no response within {_CALL_TIMEOUT_SEC:g} s: is the node alive?"
            )
        return future.result()


def _value(status: DiagnosticStatus, key: str) -> str:
    return next((pair.value for pair in status.values if pair.key == key), "")


def _camera_state(name: str, topic: str, told: MemoryStats | None, moments: tuple[KeptFrame, ...]) -> CameraState:
    if told is None:
        return CameraState(name, topic, frames=moments)
    age_sec = told.newest_frame_age_sec
    return CameraState(
        name=name,
        topic=topic,
        input_rate_hz=told.input_rate_hz,
        sampled_rate_hz=told.sampled_rate_hz,
        dropped=told.images_dropped,
        newest_age_sec=age_sec if age_sec >= 0 else None,
        counts=MemoryCounts(
            added=told.total_frames_added,
            unique=told.unique_frames,
            star=told.star_memory_size,
            stream=told.stream_memory_size,
            compression_ratio=told.compression_ratio,
            pixel_bytes=told.pixel_bytes,
            feature_bytes=told.feature_bytes,
            kv_bytes=told.kv_bytes,
            budget_bytes=told.budget_bytes,
        ),
        frames=moments,
    )
