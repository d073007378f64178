"""Robots whose model server is killed and restarted: does every question end in time, and is every frame kept?

Each robot is a ``scene_memory`` node in a process of its own, in a namespace of its own. All ask one server, a process
with the chat interface of vLLM that computes nothing (``test/helpers/chat_server.py``). This process publishes the
robots' images, asks one question after the other at each robot, and kills and restarts the server.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from delayed_vlm_ros.msg import MemoryStats, NodeStats
from delayed_vlm_ros.srv import AskScene
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import parent_death_prefix
from lab.bench.fast_camera import render_images, serialize_images, set_stamp

_ROOT = Path(__file__).parents[2]
_SERVER = _ROOT / "test" / "helpers" / "chat_server.py"
_HEIGHT, _WIDTH, _IMAGES = 96, 128, 20
_START_TIMEOUT_SEC = 180.0
_SETTLING_SEC = 3.0
_DISCOVERY_SEC = 2.0
_LATE_SEC = 0.5  # for the response to travel, after the deadline
_QUESTION = "What is on the left?"
_OUTAGES = ((0.25, 0.05), (0.6, 0.05))  # start and length, as shares of the run
_ERRORS = {value: name for name, value in vars(AskScene.Response).items() if name.isupper() and isinstance(value, int)}
_RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)


@dataclass(frozen=True)
class Question:
    """One question that has ended.

    Attributes:
        began: Time of the request, in seconds on the clock of ``time.monotonic``.
        seconds: Time until the response.
        error: Name of the error code; empty: answered.
        message: Message of the error.
        bytes_sent: Bytes sent to the server.
    """

    began: float
    seconds: float
    error: str
    message: str
    bytes_sent: int


@dataclass
class _Robot:
    """One node, with its clients in this process."""

    process: subprocess.Popen[bytes]
    log: Path
    published: int = 0  # since the run began
    received_before: int = 0
    due: float = 0.0  # of the next image, on the clock of ``time.monotonic``
    asks_at: float = 0.0
    began: float = 0.0
    pending: Any = None
    stats: MemoryStats | None = None
    largest_age_sec: float = 0.0  # of the newest kept frame, in all reports while images were published
    model_state: str = ""
    model_faults: list[float] = field(default_factory=list)  # times of reports of a fault of the model
    questions: list[Question] = field(default_factory=list)


@dataclass(frozen=True)
class _Outage:
    killed: float
    restarted: float


def measure(robots: int, seconds: float, rate: float, pause_sec: float, timeout_sec: float) -> dict[str, Any]:
    """Run robots while their server is killed and restarted twice.

    Args:
        robots: Number of robots.
        seconds: Length of the run in seconds.
        rate: Images per second of each robot.
        pause_sec: Time between an answer and the robot's next question, in seconds.
        timeout_sec: Deadline of each question, in seconds.

    Returns:
        The result that ``bench outage --json`` prints.
    """
    environment = isolated_environment()
    with tempfile.TemporaryDirectory() as folder, _Server() as server:
        fleet = _Fleet(robots, server.port, Path(folder), environment, 1.0 / rate, pause_sec, timeout_sec)
        try:
            fleet.wait_until_ready()
            before = [_resident_mb(robot.process.pid) for robot in fleet.robots]
            outages = _run(fleet, server, seconds)
            fleet.finish()
            after = [_resident_mb(robot.process.pid) for robot in fleet.robots if robot.process.poll() is None]
            result = _summary(fleet, outages, timeout_sec)
        finally:
            fleet.close()
    shape = {"robots": robots, "seconds": seconds, "rate_hz": rate, "processors": os.cpu_count()}
    memory = {"before": round(max(before), 1), "after": round(max(after, default=0.0), 1)}
    return {"shape": shape, **result, "largest_resident_mb": memory}


def _run(fleet: _Fleet, server: _Server, seconds: float) -> list[_Outage]:
    began = time.monotonic()
    outages = []
    for start, length in _OUTAGES:
        fleet.spin_until(began + start * seconds)
        server.kill()
        killed = time.monotonic()
        fleet.spin_until(began + (start + length) * seconds)
        server.start()
        outages.append(_Outage(killed, time.monotonic()))
    fleet.spin_until(began + seconds)
    return outages


class _Server:
    """The server's process."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> _Server:
        self.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        command = [*parent_death_prefix(), sys.executable, str(_SERVER), "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  this project's own program
        if self._process.stdout is None or not self._process.stdout.readline():
            sys.exit("the server did not start: see the output above")

    def kill(self) -> None:
        """End the process without warning."""
        self._process.kill()
        self._process.wait()


class _Fleet:
    """All robots, and the node in this process that publishes their images and asks them."""

    def __init__(
        self,
        count: int,
        port: int,
        folder: Path,
        environment: dict[str, str],
        period_sec: float,
        pause_sec: float,
        timeout_sec: float,
    ) -> None:
        self._period_sec, self._pause_sec, self._timeout_sec = period_sec, pause_sec, timeout_sec
        self._model = f"openai:http://127.0.0.1:{port}/v1"
        self._publishes = self._asks = False
        self._images = serialize_images(render_images(_IMAGES, _HEIGHT, _WIDTH))
        self._context = Context()
        domain = int(environment["ROS_DOMAIN_ID"])
        os.environ.update(environment)
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("fleet", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self.robots = [self._start(number, folder, environment) for number in range(count)]
        self._publishers = [self._node.create_publisher(Image, f"robot_{n}/image", _RELIABLE) for n in range(count)]
        self._clients: list[Any] = [self._node.create_client(AskScene, f"robot_{n}/ask_scene") for n in range(count)]
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)

    def _start(self, number: int, folder: Path, environment: dict[str, str]) -> _Robot:
        name, log = f"robot_{number}", folder / f"robot_{number}.log"
        command = [*parent_death_prefix(), sys.executable, "-m", "delayed_vlm_ros.ros.scene_memory.node", "--ros-args"]
        command += ["-r", f"__ns:=/{name}", "-p", f"model.name:={self._model}"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)  # noqa: S603
        robot = _Robot(process, log, due=time.monotonic())

        def on_stats(message: MemoryStats) -> None:
            robot.stats = message
            if self._asks:
                robot.largest_age_sec = max(robot.largest_age_sec, message.newest_frame_age_sec)

        def on_node_stats(message: NodeStats) -> None:
            robot.model_state = message.model_state

        self._node.create_subscription(MemoryStats, f"{name}/scene_memory/memory_stats", on_stats, 10)
        self._node.create_subscription(NodeStats, f"{name}/scene_memory/node_stats", on_node_stats, 10)
        return robot

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name, _, subject = status.name.partition("/scene_memory: ")
            if subject == "model" and status.level != status.OK:
                self.robots[int(name.rpartition("_")[2])].model_faults.append(time.monotonic())

    def wait_until_ready(self) -> None:
        """Wait until each robot has a model, and all of its images arrive."""
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while not all(robot.model_state == "ready" for robot in self.robots):
            self._spin_once()
            dead = [robot for robot in self.robots if robot.process.poll() is not None]
            if dead or time.monotonic() > deadline:
                log = (dead or self.robots)[0].log.read_text(errors="replace")[-2000:]
                sys.exit(f"a robot did not start:\n{log}")
        self.spin_until(time.monotonic() + _DISCOVERY_SEC)
        for robot in self.robots:
            robot.due = time.monotonic()
        self._publish(_SETTLING_SEC)
        if not all(robot.stats is not None and robot.stats.unique_frames for robot in self.robots):
            sys.exit("no frames arrive at a robot")
        for robot in self.robots:  # the first images may be lost: a subscription is not reliable from the start
            robot.received_before, robot.published = _received(robot), 0
        self._publishes = self._asks = True

    def _publish(self, seconds: float) -> None:
        """Publish for some time, and wait until it is reported."""
        self._publishes = True
        self.spin_until(time.monotonic() + seconds)
        self._publishes = False
        self.spin_until(time.monotonic() + _SETTLING_SEC)
        for robot in self.robots:
            robot.due = time.monotonic()

    def spin_until(self, end: float) -> None:
        """Publish and ask until a time on the clock of ``time.monotonic``."""
        while time.monotonic() < end:
            self._spin_once()

    def finish(self) -> None:
        """Ask no more, wait for the last responses, and for the reports of the last images."""
        self._asks = False
        end = time.monotonic() + self._timeout_sec + _SETTLING_SEC
        while any(robot.pending is not None for robot in self.robots) and time.monotonic() < end:
            self._spin_once()
        self._publishes = False
        self.spin_until(time.monotonic() + _SETTLING_SEC)

    def close(self) -> None:
        """End all robots."""
        for robot in self.robots:
            robot.process.send_signal(signal.SIGINT)
        for robot in self.robots:
            try:
                robot.process.wait(10.0)
            except subprocess.TimeoutExpired:
                robot.process.kill()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _spin_once(self) -> None:
        self._executor.spin_once(timeout_sec=0.005)
        now = time.monotonic()
        for number, robot in enumerate(self.robots):
            if self._publishes and now >= robot.due:
                robot.due += self._period_sec
                message = self._images[robot.published % _IMAGES]
                set_stamp(message, time.time_ns())
                self._publishers[number].publish(bytes(message))
                robot.published += 1
            if robot.pending is not None and robot.pending.done():
                self._record(robot, now)
            if self._asks and robot.pending is None and now >= robot.asks_at:
                robot.began = now
                request = AskScene.Request(question=_QUESTION, timeout_sec=self._timeout_sec)
                robot.pending = self._clients[number].call_async(request)

    def _record(self, robot: _Robot, now: float) -> None:
        response = robot.pending.result()
        error = "" if response.success else _ERRORS[response.error_code]
        sent = int(response.metrics.bytes_sent)
        robot.questions.append(Question(robot.began, now - robot.began, error, response.error_msg, sent))
        robot.pending, robot.asks_at = None, now + self._pause_sec


def _summary(fleet: _Fleet, outages: list[_Outage], timeout_sec: float) -> dict[str, Any]:
    questions = [question for robot in fleet.robots for question in robot.questions]
    answered = [question for question in questions if not question.error]
    failed = [question for question in questions if question.error]
    return {
        "nodes_died": sum(robot.process.poll() is not None for robot in fleet.robots),
        "questions": len(questions),
        "answered": len(answered),
        "errors": dict(Counter(f"{question.error}: {question.message}" for question in failed)),
        "without_response": sum(robot.pending is not None for robot in fleet.robots),
        "without_sentence": sum(not question.message for question in failed),
        "later_than_deadline": sum(question.seconds > timeout_sec + _LATE_SEC for question in questions),
        "longest_question_sec": round(max(question.seconds for question in questions), 3),
        "answer_ms": _spread([question.seconds for question in answered]),
        "error_ms": _spread([question.seconds for question in failed]),
        "kilobytes_sent_per_answer": round(
            sum(question.bytes_sent for question in answered) / max(1, len(answered)) / 1e3, 2
        ),
        "outages": [_outage(fleet, outage) for outage in outages],
        "images_published": sum(robot.published for robot in fleet.robots),
        **_images(fleet),
        "largest_frame_age_sec": round(max(robot.largest_age_sec for robot in fleet.robots), 2),
    }


def _images(fleet: _Fleet) -> dict[str, int]:
    stats = [robot.stats for robot in fleet.robots if robot.stats is not None]
    received = sum(_received(robot) - robot.received_before for robot in fleet.robots)
    faults = {name: sum(int(getattr(one, name)) for one in stats) for name in ("images_dropped", "images_missed")}
    return {"images_received": received, **faults}


def _received(robot: _Robot) -> int:
    return 0 if robot.stats is None else int(robot.stats.images_received)


def _outage(fleet: _Fleet, outage: _Outage) -> dict[str, Any]:
    """Return how long the server was away, and how soon the robots noticed its end and its return."""
    reported, back, during = [], [], 0
    for robot in fleet.robots:
        faults = [at - outage.killed for at in robot.model_faults if at > outage.killed]
        ended = [question for question in robot.questions if question.began + question.seconds > outage.restarted]
        reported += faults[:1]
        back += [one.began + one.seconds - outage.restarted for one in ended if not one.error][:1]
        during += sum(outage.killed < one.began < outage.restarted for one in robot.questions)
    return {
        "seconds": round(outage.restarted - outage.killed, 1),
        "questions": during,
        "robots_that_report_it": len(reported),
        "latest_report_sec": round(max(reported, default=-1.0), 2),
        "robots_with_an_answer_after_it": len(back),
        "latest_first_answer_sec": round(max(back, default=-1.0), 2),
    }


def _spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    return {f"p{rank}": round(float(np.percentile(seconds, rank)) * 1e3, 1) for rank in (50, 95, 100)}


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
