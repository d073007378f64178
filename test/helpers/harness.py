"""Nodes in child processes, and a client that communicates with them over DDS."""

from __future__ import annotations

import array
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from delayed_vlm_ros.action import AskScene as AskSceneAction
from delayed_vlm_ros.msg import Alert, MemoryStats, NodeStats, SceneAnswer, WatchSettings, WatchState, WatchStateArray
from delayed_vlm_ros.srv import AskScene, Unwatch, Watch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from fork_server import ForkedProcess, fork_server
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from waiting import PATIENCE_SEC, end_process, wait_until

from delayed_vlm_ros.ros.action_client import SpunActionClient

ROOT = Path(__file__).resolve().parents[2]
HELPERS = Path(__file__).parent
SCENE_MEMORY = ["-m", "delayed_vlm_ros.ros.scene_memory.node"]
FAKE_SCENE_MEMORY = [str(HELPERS / "fake_scene_memory.py")]
FAULTY_SCENE_MEMORY = [str(HELPERS / "faulty_scene_memory.py")]
HELD_SCENE_MEMORY = [str(HELPERS / "held_scene_memory.py")]
SLOW_SCENE_MEMORY = [str(HELPERS / "slow_scene_memory.py")]
ROOM_CAMERA = [str(HELPERS / "room_camera.py")]
BAG_CAMERA = ["-m", "delayed_vlm_ros.cameras.bag_camera"]

# What these nodes import at their start, and what they import to load the embedded model.
_NODE_MODULES = (
    "delayed_vlm_ros.ros.scene_memory.node",
    "delayed_vlm_ros.scenes",
    "delayed_vlm_ros.cameras.bag_camera",
)
_MODEL_MODULES = (
    "delayed_vlm_ros.inference.local.engine",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
    "transformers.models.qwen2_vl.video_processing_qwen2_vl",
)
_WITHOUT_MODEL = (FAKE_SCENE_MEMORY, ROOM_CAMERA, BAG_CAMERA)
_WITH_MODEL = (SCENE_MEMORY, FAULTY_SCENE_MEMORY, HELD_SCENE_MEMORY, SLOW_SCENE_MEMORY)

# Separate from the default context, which other tests use.
CONTEXT = Context()

# Domains whose ports are below Linux's ephemeral range.
_DOMAINS = range(20, 100)
_PORTS_PER_DOMAIN = 250
_FIRST_PORT = 7400

_LATCHED = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# More than the sample period in these tests, which is at most 50 ms.
_IMAGES_APART_NS = 60_000_000


def free_domain() -> tuple[int, socket.socket]:
    """Return an unused domain, and the socket that reserves it while it is open."""
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        base = _FIRST_PORT + _PORTS_PER_DOMAIN * domain
        mark = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", base + _PORTS_PER_DOMAIN - 1))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
                participant.bind(("0.0.0.0", base + 10))
        except OSError:
            mark.close()
            continue
        return domain, mark
    raise RuntimeError("all ROS domains are in use on this machine")


class NodeProcess:
    """A node in a child process, with its output in ``log``.

    The nodes of this module are forked from a process that has imported what they need.

    Args:
        namespace: Namespace of the node.
        command: Arguments of the interpreter.
        parameters: Parameters by name.
        remap: Remapped names.
        environment: Environment variables that are added to those of this process. With PYTHONPATH, the node is started
            in a new interpreter.
        new_interpreter: Whether to start the node in a new interpreter, as a user does.
    """

    def __init__(
        self,
        namespace: str,
        command: list[str],
        parameters: dict[str, Any],
        remap: dict[str, str],
        environment: dict[str, str],
        *,
        new_interpreter: bool = False,
    ) -> None:
        # Append: reading the log moves the position that the node shares.
        self._output = tempfile.TemporaryFile("a+")  # noqa: SIM115  closed with the process
        settings = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        remappings = [item for old, new in remap.items() for item in ("-r", f"{old}:={new}")]
        self.process = self._start(
            [*command, "--ros-args", "-r", f"__ns:={namespace}", *settings, *remappings],
            {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            () if new_interpreter or "PYTHONPATH" in environment else _modules_of(command),
        )

    def _start(
        self, command: list[str], environment: dict[str, str], modules: tuple[str, ...]
    ) -> ForkedProcess | subprocess.Popen[bytes]:
        if modules:
            return fork_server(*modules).start(command, environment, self._output, self._output)
        return subprocess.Popen(
            [sys.executable, *command], stdout=self._output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
        )

    @property
    def log(self) -> str:
        self._output.seek(0)
        return self._output.read()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, number: int = signal.SIGINT, *, times: int = 1) -> tuple[int, float]:
        """Send a signal. Return exit code and seconds until the end, corrected for the machine's load."""
        return end_process(self.process, number, times=times)

    def close(self) -> None:
        if self.alive:
            self.process.kill()
            self.process.wait()
        self._output.close()


def _modules_of(command: list[str]) -> tuple[str, ...]:
    """Return the modules to import before a node is forked; none: it must be started."""
    if command in _WITH_MODEL:
        return (*_NODE_MODULES, *_MODEL_MODULES)
    return _NODE_MODULES if command in _WITHOUT_MODEL else ()


@dataclass(frozen=True)
class Report:
    """A report of a node.

    Attributes:
        after_ns: Lower bound of the time of the reported state: the stamp of the previous report, before which nothing
            is collected. The report's own stamp is made after the state has been collected.
        content: The statistics, or the statuses by name.
    """

    after_ns: int
    content: Any


class Goal:
    """A question sent through the action.

    Attributes:
        feedback: Feedback received so far, oldest first.
    """

    def __init__(self, action: SpunActionClient, message: AskSceneAction.Goal) -> None:
        self.feedback: list[AskSceneAction.Feedback] = []
        self._sent = action.send_goal_async(message, lambda got: self.feedback.append(got.feedback))
        self._result: Any = None
        self._sent.add_done_callback(self._fetch)

    def _fetch(self, sent: Any) -> None:
        self._result = sent.result().get_result_async()

    @property
    def done(self) -> bool:
        return self._result is not None and self._result.done()

    def _wait(self) -> Any:
        wait_until(lambda: self.done, lambda: f"the goal's result; last feedback: {self.feedback[-1:]}")
        return self._result.result()

    def result(self) -> AskSceneAction.Result:
        return self._wait().result

    def status(self) -> str:
        """Wait for the end and return SUCCEEDED, CANCELED or ABORTED."""
        names = {getattr(GoalStatus, name): name for name in dir(GoalStatus) if name.startswith("STATUS_")}
        return names[self._wait().status].removeprefix("STATUS_")

    def wait_for_feedback(self, condition: Callable[[Any], bool]) -> Any:
        """Wait for and return the first feedback that meets the condition."""
        return wait_until(
            lambda: next((got for got in self.feedback.copy() if condition(got)), None),
            lambda: f"feedback; the last: {self.feedback[-2:]}",
        )

    def cancel(self) -> Any:
        """Request cancellation and return the response."""
        wait_until(self._sent.done, "the goal to be accepted")
        future = self._sent.result().cancel_goal_async()
        wait_until(future.done, "a response to the cancellation")
        return future.result()


class Spinning:
    """Spins nodes in a thread until ``close``.

    Attributes:
        executor: Executor of the nodes.
    """

    def __init__(self, *nodes: Any) -> None:
        self.executor = SingleThreadedExecutor(context=CONTEXT)
        for node in nodes:
            self.executor.add_node(node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self.executor.spin_once(timeout_sec=0.05)

    @property
    def is_alive(self) -> bool:
        """Whether the thread spins."""
        return self._thread.is_alive()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.executor.shutdown()


class Client:
    """ROS client of one namespace, spun in a thread.

    A received report may be older than the test's last action, and a state may pass before the test checks. So every
    report is kept, and a test selects those after a time, by default the time of the call. To find an event that is in
    one report only, use the stamp of the last report before the event.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.node = rclpy.create_node("client", namespace=namespace, context=CONTEXT)
        self.answers: list[SceneAnswer] = []
        self.alerts: list[Alert] = []
        self.watches: list[WatchState] = []  # newest
        self.report_stamps_ns: list[int] = []
        self._statuses: list[Report] = []
        self._stats: list[Report] = []
        self._node_stats: list[Report] = []
        self._clients: dict[str, Any] = {}
        self._action: SpunActionClient | None = None
        self._publishers: dict[tuple[str, bool], Any] = {}
        self._last_stamp_ns = 0
        self._shown = 0
        self._connected = False
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.node.create_subscription(MemoryStats, "scene_memory/memory_stats", partial(_record, self._stats), 100)
        self.node.create_subscription(NodeStats, "scene_memory/node_stats", partial(_record, self._node_stats), 100)
        self.node.create_subscription(SceneAnswer, "scene_memory/answers", self.answers.append, 100)
        self.node.create_subscription(Alert, "scene_memory/alerts", self.alerts.append, _LATCHED)
        self.node.create_subscription(WatchStateArray, "scene_memory/watches", self._on_watches, _LATCHED)
        self._spinning = Spinning(self.node)

    def _on_watches(self, message: WatchStateArray) -> None:
        self.watches = list(message.watches)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f"{self.namespace.lstrip('/')}/scene_memory: "
        mine = {status.name[len(prefix) :]: status for status in message.status if status.name.startswith(prefix)}
        if mine:
            before = self.report_stamps_ns[-1] if self.report_stamps_ns else 0
            self._statuses.append(Report(before, mine))
            self.report_stamps_ns.append(nanoseconds(message.header.stamp))

    def now_ns(self) -> int:
        """Return the time of the nodes' clock, in nanoseconds."""
        return self.node.get_clock().now().nanoseconds

    def close(self) -> None:
        self._spinning.close()
        if self._action is not None:
            self._action.destroy()
        self.node.destroy_node()

    # Services

    def start_call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and return the future."""
        client = self._clients.get(name) or self._clients.setdefault(name, self.node.create_client(service_type, name))
        assert client.wait_for_service(timeout_sec=PATIENCE_SEC), f"no service {name}"
        return client.call_async(request)

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service and return the response."""
        future = self.start_call(service_type, name, request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def start_ask(self, question: str = "What is there?", **fields: Any) -> Any:
        """Ask a question and return the future. The default deadline is ``PATIENCE_SEC``."""
        request = AskScene.Request(question=question, **{"timeout_sec": PATIENCE_SEC, "include_frames": True, **fields})
        return self.start_call(AskScene, "ask_scene", request)

    def ask(self, question: str = "What is there?", **fields: Any) -> AskScene.Response:
        """Ask a question and return the response."""
        future = self.start_ask(question, **fields)
        wait_until(future.done, "an answer of ask_scene")
        return future.result()

    def start_goal(self, question: str = "What is there?", **fields: Any) -> Goal:
        """Ask a question through the action and return the goal. The default deadline is ``PATIENCE_SEC``."""
        if self._action is None:
            self._action = SpunActionClient(self.node, AskSceneAction, "ask_scene_stream")
        assert self._action.wait_for_server(timeout_sec=PATIENCE_SEC), "no action ask_scene_stream"
        message = AskSceneAction.Goal(
            question=question, **{"timeout_sec": PATIENCE_SEC, "include_frames": True, **fields}
        )
        return Goal(self._action, message)

    def watch(self, name: str, question: str, **fields: Any) -> Watch.Response:
        """Add a watch with a short period and return the response."""
        settings = WatchSettings(name=name, question=question, **{"period_sec": 0.1, "yes_checks": 1, **fields})
        return self.call(Watch, "scene_memory/watch", Watch.Request(settings=settings))

    def unwatch(self, name: str) -> Unwatch.Response:
        return self.call(Unwatch, "scene_memory/unwatch", Unwatch.Request(name=name))

    def wait_for_watch(self, name: str, condition: Callable[[WatchState], bool]) -> WatchState:
        """Wait for and return a published state of a watch that meets the condition."""
        return wait_until(
            lambda: next((got for got in self.watches if got.settings.name == name and condition(got)), None),
            lambda: f"a state of watch {name}; the last: {self.watches}",
        )

    def wait_for_alert(self, condition: Callable[[Alert], bool] = lambda _: True, *, after: int = 0) -> Alert:
        """Wait for and return the first alert after the first ``after`` ones that meets the condition."""
        return wait_until(
            lambda: next((got for got in self.alerts[after:] if condition(got)), None),
            lambda: f"an alert; so far {[(got.watch, got.edge) for got in self.alerts]}",
        )

    def reset(self) -> Trigger.Response:
        return self.call(Trigger, "scene_memory/reset", Trigger.Request())

    def state(self) -> str:
        return self.call(GetState, "scene_memory/get_state", GetState.Request()).current_state.label

    def transition(self, label: str = "", number: int = 0) -> bool:
        """Request a transition by its label or, as nav2's lifecycle manager does, by its number."""
        self._connected = False  # the node's subscriptions depend on its state
        request = ChangeState.Request(transition=Transition(label=label, id=number))
        return self.call(ChangeState, "scene_memory/change_state", request).success

    def start_setting(self, values: dict[str, Any], node: str = "scene_memory") -> Any:
        """Set parameters and return the future."""
        messages: list[ParameterMessage] = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        return self.start_call(SetParametersAtomically, f"{node}/set_parameters_atomically", request)

    def set_parameters(self, values: dict[str, Any], node: str = "scene_memory") -> tuple[bool, str]:
        """Set parameters. Return whether it succeeded, and the reason if not."""
        future = self.start_setting(values, node)
        wait_until(future.done, "parameters to be set")
        return future.result().result.successful, future.result().result.reason

    # Images

    def publish(self, message: Any, topic: str = "image", *, reliable: bool = True, depth: int = 10) -> None:
        """Publish on a topic. ``depth`` applies to the first message of a topic."""
        key = (topic, reliable)
        if key not in self._publishers:
            policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            self._publishers[key] = self.node.create_publisher(
                type(message), topic, QoSProfile(depth=depth, reliability=policy)
            )
        self._publishers[key].publish(message)

    def image(
        self, *, height: int = 48, width: int = 64, shade: int = 100, frame_id: str = "lens", **fields: Any
    ) -> Image:
        """Return a grey rgb8 image with the present stamp; fields may be overridden.

        Waits until an image is due after the last one.
        """
        time.sleep(max(0, self._last_stamp_ns + _IMAGES_APART_NS - self.now_ns()) * 1e-9)
        message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.header.frame_id = frame_id
        message.data = array.array("B", bytes([shade]) * (height * width * 3))
        self._last_stamp_ns = nanoseconds(message.header.stamp)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def connect_images(self) -> None:
        """Publish images until one arrives; all later ones then arrive too.

        DDS guarantees this for a reliable subscription that has discovered its publisher. The node's subscription
        becomes reliable after it has discovered that its cameras are.
        """
        if self._connected:
            return
        topic = self.node.resolve_topic_name("image")

        def reliable() -> bool:
            readers = self.node.get_subscriptions_info_by_topic(topic)
            return {reader.qos_profile.reliability for reader in readers} == {ReliabilityPolicy.RELIABLE}

        def arrived() -> bool:
            self._show_image()
            return bool(self._find_image(range(first, self._shown + 1)))

        self._show_image()
        wait_until(reliable, f"a reliable subscription to {topic}")
        first = self._shown + 1
        wait_until(arrived, lambda: f"an image at the node; last reports: {self._statuses[-2:]}")
        self._connected = True

    def show_images(self, count: int) -> None:
        """Publish different images and wait until all of them are in the memory."""
        self.connect_images()
        for _ in range(count):
            self._show_image()
        self._wait_for_last_image()

    def show_with_poses(self, shades: Sequence[int]) -> list[int]:
        """Replace the memory by grey images with poses: x is the number of the image. Return their stamps.

        Waits until all of them are in the memory. Poses are best effort: the first ones may be lost.
        """

        def publish(number: int, shade: int) -> int:
            image, pose = self.image(shade=shade), PoseStamped()
            pose.header.stamp, pose.header.frame_id = image.header.stamp, "map"
            pose.pose.position.x = float(number)
            self.publish(pose, "pose")
            time.sleep(0.02)
            self.publish(image)
            return nanoseconds(image.header.stamp)

        def arrived() -> bool:
            publish(0, shades[0])
            return any(frame.pose_valid for frame in self.ask().frames_used)

        self.connect_images()
        wait_until(arrived, "a frame with a pose")
        self.reset()
        stamps = [publish(number, shade) for number, shade in enumerate(shades)]
        self.wait_for_stats(lambda stats: stats.unique_frames == len(stamps))
        return stamps

    def _show_image(self) -> None:
        self._shown += 1
        self.publish(self.image(shade=self._shown * 40 % 256, frame_id=_frame_id(self._shown)))

    def _wait_for_last_image(self) -> None:
        last = range(self._shown, self._shown + 1)
        what = f"image {self._shown} in the memory"
        wait_until(lambda: self._find_image(last), lambda: f"{what}; last reports: {self._statuses[-2:]}")

    def _find_image(self, numbers: range) -> Any:
        """Return the first report in which one of these images is the newest in the memory."""
        names = {_frame_id(number) for number in numbers}
        return self.find_status("camera camera", lambda status: status.hardware_id in names, 0)

    # Reports

    def find_status(self, name: str, condition: Callable[[Any], bool], since_ns: int) -> Any:
        """Return the first status of this name after a time that meets the condition; None if there is none."""
        found = (report.content.get(name) for report in self._statuses.copy() if report.after_ns >= since_ns)
        return next((status for status in found if status is not None and condition(status)), None)

    def wait_for_report(self, name: str, condition: Callable[[Any], bool], since_ns: int) -> tuple[Any, int]:
        """Return the first status of this name published after a time that meets the condition, and its stamp."""

        def found() -> tuple[Any, int] | None:
            reports = zip(self.report_stamps_ns.copy(), self._statuses.copy(), strict=False)
            published = ((report.content.get(name), stamp_ns) for stamp_ns, report in reports if stamp_ns >= since_ns)
            return next(((status, at) for status, at in published if status is not None and condition(status)), None)

        return wait_until(found, lambda: f"{name}: a status; the last: {self.newest_status(name)}")

    def newest_status(self, name: str) -> Any:
        """Return the last status of this name; None before the first."""
        return next((report.content[name] for report in reversed(self._statuses) if name in report.content), None)

    def find_stats(self, condition: Callable[[MemoryStats], bool], since_ns: int) -> MemoryStats | None:
        """Return the first statistics after a time that meet the condition; None if there are none."""
        return _first(self._stats, condition, since_ns)

    def wait_for_status(
        self, name: str, condition: Callable[[Any], bool] = lambda _: True, *, since_ns: int | None = None
    ) -> Any:
        """Wait for the first status of this name that meets the condition, after a time or from now on."""
        since_ns = self.now_ns() if since_ns is None else since_ns
        return wait_until(
            lambda: self.find_status(name, condition, since_ns),
            lambda: f"status {name}; last reports: {self._statuses[-2:]}",
        )

    def wait_for_stats(
        self, condition: Callable[[MemoryStats], bool] = lambda _: True, *, since_ns: int | None = None
    ) -> MemoryStats:
        """Wait for the first statistics that meet the condition, after a time or from now on."""
        since_ns = self.now_ns() if since_ns is None else since_ns
        return wait_until(
            lambda: self.find_stats(condition, since_ns), lambda: f"statistics; the last: {self._stats[-2:]}"
        )

    def wait_for_node_stats(
        self, condition: Callable[[NodeStats], bool] = lambda _: True, *, since_ns: int | None = None
    ) -> NodeStats:
        """Wait for the first statistics of the node that meet the condition, after a time or from now on."""
        since_ns = self.now_ns() if since_ns is None else since_ns
        return wait_until(
            lambda: _first(self._node_stats, condition, since_ns),
            lambda: f"statistics of the node; the last: {self._node_stats[-2:]}",
        )

    def wait_until_active(self) -> None:
        def settled(status: Any) -> bool:
            return status.message == "active" or status.level == DiagnosticStatus.ERROR  # waiting longer does not help

        status = self.wait_for_status("lifecycle", settled)
        assert status.message == "active", status.message

    def wait_until_ready(self) -> None:
        """Wait until the node is active and its model is loaded."""
        self.wait_until_active()
        self.wait_for_node_stats(lambda stats: stats.model_state == "ready")


@contextmanager
def showing(observer: Client) -> Iterator[None]:
    """Show images all the time: a check of a watch needs a new one."""
    ends = threading.Event()

    def show() -> None:
        while not ends.wait(0.1):
            observer.publish(observer.image())

    observer.connect_images()
    thread = threading.Thread(target=show)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _record(reports: list[Report], message: Any) -> None:
    reports.append(Report(nanoseconds(reports[-1].content.header.stamp) if reports else 0, message))


def _first(reports: list[Report], condition: Callable[[Any], bool], since_ns: int) -> Any:
    found = (report.content for report in reports.copy() if report.after_ns >= since_ns)
    return next((stats for stats in found if condition(stats)), None)


def values_of(status: Any) -> dict[str, str]:
    """Return the values of a status by key."""
    return {value.key: value.value for value in status.values}


def nanoseconds(stamp: Any) -> int:
    """Return a message's stamp in nanoseconds."""
    return stamp.sec * 10**9 + stamp.nanosec


def _frame_id(number: int) -> str:
    return f"lens_{number}"
