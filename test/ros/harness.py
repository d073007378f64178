"""Nodes as processes of their own, and a client that talks to them over DDS."""

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from delayed_vlm_ros.msg import MemoryStats, SceneAnswer
from delayed_vlm_ros.srv import AskScene
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

ROOT = Path(__file__).resolve().parents[2]
SCENE_MEMORY = ["-m", "delayed_vlm_ros.nodes.scene_memory"]
FAKE_SCENE_MEMORY = [str(Path(__file__).with_name("fake_scene_memory.py"))]

# Of these tests alone: other tests use the default one.
CONTEXT = Context()

# Where domains' ports lie below those the system hands out by itself.
_DOMAINS = range(20, 100)
_PORTS_PER_DOMAIN = 250
_FIRST_PORT = 7400


def free_domain() -> tuple[int, socket.socket]:
    """A domain that nobody on this machine uses, and the socket that marks it as taken while it is open."""
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


def wait_until(condition: Callable[[], Any], timeout_sec: float, what: str | Callable[[], str]) -> Any:
    """The condition's first true value.

    Args:
        condition: Looked at many times a second.
        timeout_sec: How long to wait for it.
        what: What is waited for; may be a function, to tell how things stand in the end.

    Raises:
        AssertionError: It did not become true in time.
    """
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_sec} s: {what() if callable(what) else what}")


class NodeProcess:
    """A node in a process of its own, with its output in ``log``."""

    def __init__(
        self,
        namespace: str,
        command: list[str],
        parameters: dict[str, Any],
        remap: dict[str, str],
        environment: dict[str, str],
    ) -> None:
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        settings = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
        remappings = [item for old, new in remap.items() for item in ("-r", f"{old}:={new}")]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--ros-args", "-r", f"__ns:={namespace}", *settings, *remappings],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        )

    @property
    def log(self) -> str:
        self._output.seek(0)
        return self._output.read()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, number: int = signal.SIGINT, *, times: int = 1, timeout_sec: float = 5.0) -> tuple[int, float]:
        """Send a signal; gives exit code and seconds until the end."""
        started = time.monotonic()
        for _ in range(times):
            self.process.send_signal(number)
            time.sleep(0.02)
        code = self.process.wait(timeout_sec)
        return code, time.monotonic() - started

    def close(self) -> None:
        if self.alive:
            self.process.kill()
            self.process.wait()
        self._output.close()


class Client:
    """Everything a test needs of ROS, in a namespace; spins in a thread."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.node = rclpy.create_node("client", namespace=namespace, context=CONTEXT)
        self.diagnostics: dict[str, Any] = {}
        self.stats: MemoryStats | None = None
        self.answers: list[SceneAnswer] = []
        self.diagnostic_times: list[float] = []
        self._clients: dict[str, Any] = {}
        self._publishers: dict[tuple[str, bool], Any] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_stats, 10)
        self.node.create_subscription(SceneAnswer, "scene_memory/answers", self.answers.append, 10)
        self._executor = SingleThreadedExecutor(context=CONTEXT)
        self._executor.add_node(self.node)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f"{self.namespace.lstrip('/')}/scene_memory: "
        mine = {status.name[len(prefix) :]: status for status in message.status if status.name.startswith(prefix)}
        if mine:
            self.diagnostics = mine
            self.diagnostic_times.append(time.monotonic())

    def _on_stats(self, message: MemoryStats) -> None:
        self.stats = message

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()

    # Services

    def start_call(self, service_type: Any, name: str, request: Any) -> Any:
        """Call a service; gives the future."""
        client = self._clients.get(name) or self._clients.setdefault(name, self.node.create_client(service_type, name))
        assert client.wait_for_service(timeout_sec=20.0), f"no service {name}"
        return client.call_async(request)

    def call(self, service_type: Any, name: str, request: Any, timeout_sec: float = 20.0) -> Any:
        """Call a service; gives the response."""
        future = self.start_call(service_type, name, request)
        wait_until(future.done, timeout_sec, f"an answer of {name}")
        return future.result()

    def start_ask(self, question: str = "What is there?", **fields: Any) -> Any:
        return self.start_call(AskScene, "ask_scene", AskScene.Request(question=question, **fields))

    def ask(self, question: str = "What is there?", **fields: Any) -> AskScene.Response:
        return self.call(AskScene, "ask_scene", AskScene.Request(question=question, **fields))

    def reset(self) -> Trigger.Response:
        return self.call(Trigger, "scene_memory/reset", Trigger.Request())

    def state(self) -> str:
        return self.call(GetState, "scene_memory/get_state", GetState.Request()).current_state.label

    def transition(self, label: str) -> bool:
        request = ChangeState.Request(transition=Transition(label=label))
        return self.call(ChangeState, "scene_memory/change_state", request).success

    def set_parameters(self, values: dict[str, Any]) -> tuple[bool, str]:
        messages: list[ParameterMessage] = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        result = self.call(SetParametersAtomically, "scene_memory/set_parameters_atomically", request).result
        return result.successful, result.reason

    # Pictures

    def publish(self, message: Any, topic: str = "image", *, reliable: bool = True) -> None:
        key = (topic, reliable)
        if key not in self._publishers:
            policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
            self._publishers[key] = self.node.create_publisher(
                type(message), topic, QoSProfile(depth=10, reliability=policy)
            )
        self._publishers[key].publish(message)

    def image(self, *, height: int = 48, width: int = 64, shade: int = 100, **fields: Any) -> Image:
        """A grey rgb8 picture, stamped now; fields may be overwritten."""
        message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
        message.header.stamp = self.node.get_clock().now().to_msg()
        message.header.frame_id = "lens"
        message.data = array.array("B", bytes([shade]) * (height * width * 3))
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    def show_pictures(self, count: int, *, topic: str = "image", timeout_sec: float = 20.0) -> None:
        """Publish pictures, every time another one, until that many more are remembered."""
        wait_until(lambda: self.stats, timeout_sec, "statistics")
        before = self.stats.images_sampled
        shade = 0

        def remembered() -> bool:
            nonlocal shade
            shade = (shade + 40) % 256
            self.publish(self.image(shade=shade), topic)
            time.sleep(0.03)
            return self.stats.images_sampled >= before + count

        wait_until(remembered, timeout_sec, f"{count} pictures remembered")

    # What the node tells

    def wait_for_status(self, name: str, condition: Callable[[Any], bool], timeout_sec: float = 15.0) -> Any:
        def found() -> Any:
            status = self.diagnostics.get(name)
            return status if status is not None and condition(status) else None

        return wait_until(found, timeout_sec, lambda: f"status {name}; the last ones are {self.diagnostics}")

    def wait_for_stats(self, condition: Callable[[MemoryStats], bool], timeout_sec: float = 15.0) -> MemoryStats:
        def found() -> MemoryStats | None:
            stats = self.stats
            return stats if stats is not None and condition(stats) else None

        return wait_until(found, timeout_sec, lambda: f"statistics; the last ones are {self.stats}")

    def wait_until_active(self, timeout_sec: float = 20.0) -> None:
        self.wait_for_status("lifecycle", lambda status: status.message == "active", timeout_sec)
        # The pictures' publisher must be known to the node before its pictures count.
        self.publish(self.image())
        wait_until(lambda: self.node.count_subscribers("image") > 0, timeout_sec, "a subscription to image")


def values_of(status: Any) -> dict[str, str]:
    """A status's values by key."""
    return {value.key: value.value for value in status.values}
