"""Backend of the page for a ``scene_memory`` node on this or another computer. Uses only the node's ROS interface."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from delayed_vlm_ros.action import AskScene
from delayed_vlm_ros.errors import AskError, DelayedVlmError, ImageError, MarkError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.msg import Alert, KeyFrameArray, MemoryStats, SceneAnswer
from delayed_vlm_ros.ros.client import SceneMemoryClient, StreamedQuestion
from delayed_vlm_ros.ros.journal_client import JournalClient, to_journal_line
from delayed_vlm_ros.ros.output.messages import watch_settings
from delayed_vlm_ros.ros.watch_client import WatchClient
from delayed_vlm_ros.srv import Mark
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, nanoseconds_of
from delayed_vlm_ros.watches import Watch
from delayed_vlm_ros.web.backend import (
    MAX_ALERTS,
    MAX_ANSWERS,
    MAX_JOURNAL_LINES,
    WATCH_DIAGNOSTIC,
    AnsweredQuestion,
    AskOutcome,
    Diagnostic,
    KeptFrame,
    KeptFrameImages,
    Latency,
    Level,
    LiveImage,
    Question,
    SceneState,
    SearchOutcome,
    WatchAlert,
    WatchedQuestion,
)
from delayed_vlm_ros.web.backends.live_camera import LiveCamera
from delayed_vlm_ros.web.backends.ros_conversion import (
    to_answered_question,
    to_camera_state,
    to_diagnostic,
    to_goal,
    to_kept_frame,
    to_kept_images,
    to_outcome,
    to_search_outcome,
    to_watch_alert,
    to_watched_question,
)
from delayed_vlm_ros.web.camera_record import CameraRecord

MAX_LIVE_PIXELS = 32_000_000
"""Maximum height × width of a camera's image on the page. The node's own limit does not apply to this process."""

_SILENT_AFTER_SEC = 4.0  # the node reports once a second
_WATCHED_SEC = 4.0
_UPDATE_PERIOD_SEC = 0.2
_LATENCIES = 100
_MAX_CALLS = 4  # calls of ~/get_frames for one batch; each response has a size limit
_SEARCH_TIMEOUT_SEC = 120.0
_CAMERA = "camera "


@dataclass(frozen=True)
class _RunningQuestion:
    question: StreamedQuestion

    def stop(self) -> None:
        self.question.cancel()


class RosBackend:
    """The ``Backend`` of a ``scene_memory`` node.

    Messages arrive in the executor's thread; the page calls from other threads.

    Statistics and diagnostics are always subscribed to: one message a second. Key frames and images are subscribed to
    only while a page is open.

    Args:
        node: Node in the namespace of the ``scene_memory`` node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._converter = make_converter(MAX_LIVE_PIXELS)
        self._received_at = 0.0
        self._watched_until = 0.0
        self._clock_ns = (0, 0.0)  # the node's time, and when it was received
        self._statuses: tuple[DiagnosticStatus, ...] = ()
        self._statistics: dict[str, MemoryStats] = {}
        self._frames: dict[str, tuple[KeptFrame, ...]] = {}
        self._latencies: deque[Latency] = deque(maxlen=_LATENCIES)
        self._cameras: dict[str, LiveCamera] = {}
        self._key_frames: dict[str, Subscription[KeyFrameArray]] = {}
        self._client = SceneMemoryClient(node, on_statistics=self._on_statistics, on_diagnostics=self._on_diagnostics)
        self._watches = WatchClient(self._client, on_alert=self._on_alert)
        self._journal = JournalClient(self._client)
        self._alerts: dict[str, WatchAlert] = {}  # by key, oldest first
        self._answered: deque[AnsweredQuestion] = deque(maxlen=MAX_ANSWERS)
        self._records: dict[str, CameraRecord] = {}
        self._prefix = self._client.status_prefix
        self._answers = node.create_subscription(SceneAnswer, "scene_memory/answers", self._on_answer, 10)
        self._timer = node.create_timer(
            _UPDATE_PERIOD_SEC,
            self._update,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    def close(self) -> None:
        """Close what the node does not close."""
        for camera in self._cameras.values():
            camera.close()
        self._watches.close()
        self._client.close()

    # Messages -------------------------------------------------------------------------------------------------------

    def _on_statistics(self, message: MemoryStats) -> None:
        self._received_at = time.monotonic()
        self._statistics[message.camera] = message
        record = self._records.setdefault(message.camera, CameraRecord(_SILENT_AFTER_SEC))
        record.observe(nanoseconds_of(message.header.stamp), int(message.images_received))
        if not message.unique_frames:
            self._frames.pop(message.camera, None)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        statuses = tuple(status for status in message.status if status.name.startswith(self._prefix))
        if not statuses:
            return
        self._received_at = time.monotonic()
        self._clock_ns = nanoseconds_of(message.header.stamp), self._received_at
        self._statuses = statuses
        prefix = f"{self._prefix}{_CAMERA}"
        self._follow_cameras(
            {
                status.name.removeprefix(prefix): _value(status, "topic")
                for status in statuses
                if status.name.startswith(prefix)
            }
        )

    def _follow_cameras(self, topics: Mapping[str, str]) -> None:
        if topics == {name: camera.base_topic for name, camera in self._cameras.items()}:
            return
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {name: LiveCamera(self._node, name, topic, self._converter) for name, topic in topics.items()}
        self._statistics = {name: message for name, message in self._statistics.items() if name in topics}
        self._frames = {name: frames for name, frames in self._frames.items() if name in topics}

    def _on_answer(self, message: SceneAnswer) -> None:
        if message.success:
            metrics = message.metrics
            self._latencies.append(Latency(metrics.time_to_first_token, metrics.total_latency))
        stamp_ns = max(self._now_ns(), nanoseconds_of(message.header.stamp))  # a camera's clock may be ahead
        self._answered.append(to_answered_question(message, stamp_ns))

    def _on_alert(self, message: Alert) -> None:
        alert = to_watch_alert(message)
        alerts = {**self._alerts, alert.key: alert}  # a restarted node repeats its alerts
        self._alerts = dict(list(alerts.items())[-MAX_ALERTS:])

    def _on_key_frames(self, message: KeyFrameArray) -> None:
        self._frames[message.camera] = tuple(to_kept_frame(frame) for frame in message.key_frames)

    def _update(self) -> None:
        """Subscribe to the costly topics while a page is open, and end questions to a silent node."""
        for camera in self._cameras.values():
            camera.update()
        if not self._is_connected:
            self._client.fail_running()
        wanted = set(self._key_frame_topics()) if time.monotonic() < self._watched_until else set()
        for topic in wanted - self._key_frames.keys():
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._key_frames[topic] = self._node.create_subscription(KeyFrameArray, topic, self._on_key_frames, latched)
        for topic in self._key_frames.keys() - wanted:
            self._node.destroy_subscription(self._key_frames.pop(topic))
        if not wanted:
            self._frames = {}

    def _key_frame_topics(self) -> list[str]:
        names = list(self._cameras)
        if len(names) <= 1:
            return ["scene_memory/key_frames"]
        return [f"scene_memory/{name}/key_frames" for name in names]

    # State ----------------------------------------------------------------------------------------------------------

    @property
    def _is_connected(self) -> bool:
        return bool(self._received_at) and time.monotonic() - self._received_at < _SILENT_AFTER_SEC

    def state(self) -> SceneState:
        """Return the current state, and keep the costly topics subscribed for a few seconds."""
        self._watched_until = time.monotonic() + _WATCHED_SEC
        connected = self._is_connected
        statistics, cameras, frames = self._statistics, self._cameras, self._frames
        node = self._client.node_statistics
        return SceneState(
            connected=connected,
            waiting_for="" if connected else _sentence(self._client.no_server_message()),
            now_ns=self._now_ns(),
            cameras=tuple(
                replace(
                    to_camera_state(name, camera.base_topic, statistics.get(name), frames.get(name, ())),
                    silent_sec=camera.silent_sec,
                    spans=self._records[name].spans if name in self._records else (),
                )
                for name, camera in cameras.items()
            ),
            diagnostics=self._diagnostics(connected=connected),
            model=node.model if node is not None else "",
            warnings=tuple(node.warnings) if node is not None else (),
            model_state=node.model_state if node is not None and connected else "",
            device=node.device if node is not None else "",
            questions_answered=node.questions_answered if node is not None else 0,
            questions_failed=node.questions_failed if node is not None else 0,
            latencies=tuple(self._latencies),
            watches=self._watched_questions(connected=connected),
            alerts=tuple(self._alerts.values()),
            answers=tuple(self._answered.copy()),
        )

    def _now_ns(self) -> int:
        """Return the current time on the node's clock, in nanoseconds; 0 before its first message."""
        clock_ns, received_at = self._clock_ns
        return clock_ns + round((time.monotonic() - received_at) * NANOSECONDS_PER_SECOND) if clock_ns else 0

    def _watched_questions(self, *, connected: bool) -> tuple[WatchedQuestion, ...]:
        questions = tuple(map(to_watched_question, self._watches.states or ()))
        if not connected:
            return tuple(one.unknown("no connection to the node") for one in questions)
        prefix = f"{self._prefix}{WATCH_DIAGNOSTIC}"
        overdue = {
            status.name.removeprefix(prefix): status.message
            for status in self._statuses
            if status.name.startswith(prefix) and status.level == DiagnosticStatus.STALE
        }
        return tuple(replace(one, warning=overdue.get(one.watch.name, one.warning)) for one in questions)

    def _diagnostics(self, *, connected: bool) -> tuple[Diagnostic, ...]:
        received = tuple(to_diagnostic(status, self._prefix) for status in self._statuses)
        if connected or not received:
            return received
        return (Diagnostic("scene_memory", Level.ERROR, "silent; the page shows its last messages"), *received)

    def live_image(self, camera: str) -> LiveImage | None:
        """Return the newest image of a camera; None before its first image."""
        live = self._cameras.get(camera)
        return live.image() if live is not None else None

    def images(self, ids: Sequence[int], image_format: str = "jpeg") -> Mapping[str, KeptFrameImages]:
        """Return the images of kept pairs by ``KeptFrame.key``, without the pairs that left the memory."""
        found: dict[str, KeptFrameImages] = {}
        wanted = list(ids)
        for _ in range(_MAX_CALLS):
            if not wanted:
                break
            response = self._client.get_frames(wanted, image_format=image_format)
            returned = zip(response.key_frames, response.first_images, response.second_images, strict=True)
            for frame, first, second in returned:
                try:
                    found[to_kept_frame(frame).key] = to_kept_images(first, second)
                except ImageError as error:
                    self._node.get_logger().warning(f"kept frame: {error}", throttle_duration_sec=10.0)
            wanted = list(response.left_out)
        return found

    def find(self, description: str, camera: str) -> SearchOutcome:
        """Return the moments that fit a description, and lines of the journal."""
        response = self._client.find_moments(
            description, camera=camera, include_thumbnails=True, timeout_sec=_SEARCH_TIMEOUT_SEC
        )
        if not response.success:
            raise AskError(response.error_msg)
        kept = {frame.id: frame for frames in self._frames.values() for frame in frames}
        return to_search_outcome(response, kept)

    def journal(self, after_id: int, *, since_ns: int = 0, until_ns: int = 0) -> tuple[JournalLine, ...]:
        """Return the newest lines of the journal; none without a node that has one."""
        if not self._journal.is_ready():
            return ()  # no node, or one without this service: the status says so
        lines: list[JournalLine] = []
        for response in self._journal.pages(MAX_JOURNAL_LINES, since_ns=since_ns, until_ns=until_ns):
            if not response.success:
                raise AskError(response.error_msg)
            new = [to_journal_line(moment) for moment in response.lines if moment.journal_id > after_id]
            lines += new
            if len(new) < len(response.lines):
                break
        return tuple(reversed(lines))

    def journal_image(self, line_id: int) -> bytes:
        """Return the small JPEG image of a line of the journal; empty if there is none."""
        response = self._journal.get_journal(before_id=line_id + 1, max_lines=1, include_thumbnails=True)
        (image,) = [moment.thumbnail for moment in response.lines if moment.journal_id == line_id] or [None]
        return to_kept_images(image, image).first if image is not None else b""

    # Requests -------------------------------------------------------------------------------------------------------

    def mark(self, frame: KeptFrame, label: str) -> None:
        """Protect a pair from eviction, or change its label."""
        _check(self._client.mark(pair_id=frame.id, label=label))

    def unmark(self, frame: KeptFrame) -> None:
        """Remove the protection of a pair."""
        _check(self._client.mark(pair_id=frame.id, unmark=True))

    def watch(self, watch: Watch) -> None:
        """Add a standing question."""
        _check_watch(self._watches.watch(watch_settings(watch)))

    def unwatch(self, name: str) -> None:
        """Remove a standing question."""
        _check_watch(self._watches.unwatch(name))

    def ask(
        self, question: Question, on_progress: Callable[[Progress], None], on_done: Callable[[AskOutcome], None]
    ) -> _RunningQuestion:
        """Start answering a question."""

        def on_feedback(feedback: Any) -> None:
            on_progress(Progress(Stage(feedback.stage), feedback.text, feedback.answer_tokens))

        return _RunningQuestion(
            self._client.stream_async(to_goal(question), on_feedback, lambda streamed: on_done(_outcome(streamed)))
        )


def _outcome(streamed: StreamedQuestion) -> AskOutcome:
    """Return the outcome of a question that has ended."""
    try:
        result = streamed.future.result()
    except DelayedVlmError as error:
        return AskOutcome(answer=streamed.text, error=_sentence(str(error)))
    if result.success:
        return to_outcome(result)
    was_stopped = streamed.is_cancelled and result.error_code == AskScene.Result.CANCELLED
    return AskOutcome(answer=streamed.text, error=f"{result.error_msg}.", was_stopped=was_stopped)


def _check(response: Mark.Response) -> None:
    if not response.success:
        raise MarkError(response.error_msg)


def _check_watch(response: Any) -> None:
    if not response.success:
        raise AskError(response.error_msg)


def _value(status: DiagnosticStatus, key: str) -> str:
    return next((pair.value for pair in status.values if pair.key == key), "")


def _sentence(message: str) -> str:
    return f"{message[:1].upper()}{message[1:]}."
