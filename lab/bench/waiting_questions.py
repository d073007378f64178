"""Cost of questions that wait: threads, processor time and latency of a ``scene_memory`` node with a fake engine.

A source tree is measured by itself or against another one, in alternating turns, so that both see the same load.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from delayed_vlm_ros.srv import AskScene
from rclpy.client import Client
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import parent_death_prefix
from lab.bench.memory_listener import MemoryListener
from lab.bench.process_stats import processor_sec

_ROOT = Path(__file__).parents[2]
_TIMEOUT_SEC = 120.0
_SETTLING_SEC = 2.0
_QUEUE_SIZE = 64


def measure(waiting: int, seconds: float, turns: int, clock_hz: float, against: Path | None) -> dict[str, Any]:
    """Measure one tree, or two in alternating turns.

    Args:
        waiting: Questions that wait for the model.
        seconds: Length of each measured interval in seconds.
        turns: Measurements of each tree.
        clock_hz: Rate of ``/clock`` in Hz; 0: no simulated time.
        against: Root of another tree; None: measure only this one.

    Returns:
        The medians over the turns, for each tree.
    """
    trees = {"this": _ROOT, **({"other": against} if against else {})}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    for _ in range(turns):
        for name, tree in trees.items():
            results[name].append(_measure(tree, waiting, seconds, clock_hz))
    summary = {
        name: {key: round(median(turn[key] for turn in measured), 4) for key in measured[0]}
        for name, measured in results.items()
    }
    shape = {"waiting": waiting, "seconds": seconds, "turns": turns, "clock_hz": clock_hz, "processors": os.cpu_count()}
    return {"shape": shape, **summary}


def _measure(tree: Path, waiting: int, seconds: float, clock_hz: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, _node(tree, clock_hz) as (pid, session):
        result: dict[str, float] = {"threads_idle": _threads(pid), "cpu_idle": session.load(pid, seconds)}
        release = Path(folder) / "release"
        held = [session.ask(f"hold {release}" if number == 0 else "waits") for number in range(waiting)]
        session.until(lambda: session.waiting == waiting - 1)
        result["threads_waiting"] = _threads(pid)
        result["cpu_waiting"] = session.load(pid, seconds)
        refused = session.latencies_ms(seconds, question="")
        result |= {"refused_ms_p50": _percentile(refused, 50), "refused_ms_p99": _percentile(refused, 99)}
        release.touch()
        session.until(lambda: all(future.done() for future in held))
        cpu_before, began = processor_sec(pid), time.monotonic()
        answered = session.parallel_latencies_ms(seconds, waiting)
        rate = len(answered) / (time.monotonic() - began)
        return result | {
            "answers_per_sec": rate,
            "answer_ms_p50": _percentile(answered, 50),
            "answer_ms_p99": _percentile(answered, 99),
            "cpu_ms_per_answer": (processor_sec(pid) - cpu_before) / len(answered) * 1e3,
        }


@contextmanager
def _node(tree: Path, clock_hz: float) -> Iterator[tuple[int, _Session]]:
    environment = isolated_environment()
    os.environ.update(environment)
    command = [sys.executable, str(tree / "test" / "helpers" / "fake_scene_memory.py"), "--ros-args"]
    command += ["-p", f"ask.queue_size:={_QUEUE_SIZE}", "-p", "memory.sample_fps:=50.0"]
    command += ["-p", f"use_sim_time:={'true' if clock_hz else 'false'}"]
    process = subprocess.Popen(  # noqa: S603  this project's own program
        [*parent_death_prefix(), *command],
        env={**environment, "PYTHONPATH": str(tree)},
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    session = _Session(int(environment["ROS_DOMAIN_ID"]), clock_hz)
    try:
        session.prepare()
        yield process.pid, session
    finally:
        process.kill()
        process.wait()
        session.listener.close()


class _Session:
    """Client and camera of one node under test."""

    def __init__(self, domain: int, clock_hz: float) -> None:
        self.listener = MemoryListener(domain)
        node = self.listener.node
        self._client: Client[Any, Any] = node.create_client(AskScene, "ask_scene", qos_profile=QoSProfile(depth=200))
        self._images = node.create_publisher(
            Image, "image", QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        )
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._clock_period_sec = 1.0 / clock_hz if clock_hz else 0.0
        self._clock_due = 0.0

    @property
    def waiting(self) -> int:
        return int(self.listener.node_stats.questions_waiting) if self.listener.node_stats is not None else 0

    def prepare(self) -> None:
        """Publish images until the memory has frames, then let discovery settle."""

        def is_ready() -> bool:
            image = Image(height=48, width=64, encoding="rgb8", step=192, data=bytes(48 * 192))
            image.header.stamp.sec, image.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
            self._images.publish(image)
            return self.listener.is_ready

        self.until(is_ready)
        self.until(self._client.service_is_ready)
        future = self.ask("Discovery?")
        self.until(future.done)
        self._spin(_SETTLING_SEC)

    def ask(self, question: str) -> Any:
        return self._client.call_async(AskScene.Request(question=question, timeout_sec=_TIMEOUT_SEC))

    def until(self, condition: Any) -> None:
        give_up = time.monotonic() + _TIMEOUT_SEC
        while not condition():
            self._spin_once()
            if time.monotonic() > give_up:
                sys.exit("the node under test does not respond")

    def load(self, pid: int, seconds: float) -> float:
        """Return the processor time of the node per second."""
        before, began = processor_sec(pid), time.monotonic()
        self._spin(seconds)
        return (processor_sec(pid) - before) / (time.monotonic() - began)

    def latencies_ms(self, seconds: float, question: str) -> list[float]:
        """Ask one question after another."""
        return self.parallel_latencies_ms(seconds, 1, question)

    def parallel_latencies_ms(self, seconds: float, count: int, question: str = "What?") -> list[float]:
        """Keep a number of questions outstanding."""
        latencies: list[float] = []
        end = time.monotonic() + seconds
        pending = [(time.monotonic(), self.ask(question)) for _ in range(count)]
        while pending:
            self._spin_once()
            now = time.monotonic()
            for began, future in [(began, future) for began, future in pending if future.done()]:
                pending.remove((began, future))
                latencies.append((now - began) * 1e3)
                if now < end:
                    pending.append((time.monotonic(), self.ask(question)))
        return latencies

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._spin_once()

    def _spin_once(self) -> None:
        if self._clock_period_sec and time.monotonic() >= self._clock_due:
            self._clock_due = time.monotonic() + self._clock_period_sec
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(time.time_ns(), 10**9)
            self._clock.publish(clock)
        self.listener.spin_once(min(self._clock_period_sec or 0.1, 0.1))


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _percentile(latencies_ms: list[float], rank: int) -> float:
    return float(np.percentile(latencies_ms, rank))
