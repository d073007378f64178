"""Images under load by questions or watches: does every image arrive, and are sampled frames on time?

A camera process publishes raw images (rgb8) of a synthetic room to a ``scene_memory`` node with the embedded model in
another process, over DDS in a domain of its own. This process asks one question after the other, or adds watches with a
period of one second, or does nothing, for comparison. Camera and node log the stamps of their images, and the stamps of
one interval are compared. The node has its default settings.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from delayed_vlm_ros.msg import MemoryStats, WatchSettings, WatchState, WatchStateArray
from delayed_vlm_ros.srv import AskScene, Watch
from numpy.typing import NDArray
from rclpy.client import Client

from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import parent_death_prefix
from delayed_vlm_ros.scenes.sprites import COLOURS, SHAPES
from lab.bench import fast_camera
from lab.bench.memory_listener import MemoryListener

_IMAGES, _QUEUE_DEPTH = 15, 15
_SETTLING_SEC = 3.0  # for the subscription to become a reliable one, and for the last messages to arrive
_TIMEOUT_SEC = 300.0
_QUESTION = "What do you see?"
_PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True)
class _Interval:
    """What was asked and reported during the measured interval."""

    began_ns: int
    ended_ns: int
    latencies_sec: list[float]
    failed: int
    watches: list[WatchState]  # when it ended
    checks_before: int
    before: MemoryStats
    after: MemoryStats
    sampled_ns: set[int]


def measure(rate: float, height: int, width: int, seconds: float, watches: int | None = None) -> dict[str, Any]:
    """Ask questions for some time, or let the node check watches, while a camera publishes.

    Args:
        rate: Rate of the camera in Hz.
        height: Image height in pixels.
        width: Image width in pixels.
        seconds: Length of the measured interval in seconds.
        watches: Number of watches; no questions are asked then. None: no watches, and questions one after the other.

    Returns:
        The result that ``bench load --json`` prints.
    """
    with tempfile.TemporaryDirectory() as folder:
        stamps_log, calls_log = Path(folder) / "stamps", Path(folder) / "calls"
        interval = _run(rate, height, width, seconds, watches, stamps_log, calls_log)
        published, received = _read_log(stamps_log, 2), _read_log(calls_log, 3)
    shape = {"height": height, "width": width, "processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    return {"shape": shape, **_summary(interval, _within(interval, published), _within(interval, received))}


def _run(
    rate: float, height: int, width: int, seconds: float, watches: int | None, stamps_log: Path, calls_log: Path
) -> _Interval:
    environment = isolated_environment()
    os.environ.update(environment)
    camera = fast_camera.command("raw", rate, height, width, images=_IMAGES, depth=_QUEUE_DEPTH, log=stamps_log)
    node = [sys.executable, "-m", "lab.bench.timed_node", str(calls_log), "--ros-args"]
    node += ["--params-file", str(config_file("scene_memory.yaml")), "-p", "model.name:=demo"]
    processes = [
        subprocess.Popen([*parent_death_prefix(), *command], env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  ours
        for command in (node, camera)
    ]
    listener = MemoryListener(int(environment["ROS_DOMAIN_ID"]))
    client: Client[Any, Any] = listener.node.create_client(AskScene, "ask_scene")
    try:
        _wait_until_ready(listener, processes)
        listener.listen(_SETTLING_SEC)
        if watches is None:
            return _ask_repeatedly(listener, client, seconds)
        return _watch(listener, watches, seconds)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        listener.close()


def _wait_until_ready(listener: MemoryListener, processes: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SEC
    while not listener.is_ready:
        listener.listen(0.5)
        if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
            sys.exit("the camera or the node did not start: see the output above")


def _ask_repeatedly(listener: MemoryListener, client: Client[Any, Any], seconds: float) -> _Interval:
    latencies, failed = [], 0
    began_ns, before = time.time_ns(), listener.stats[-1]
    while time.time_ns() < began_ns + seconds * 1e9:
        latency, success = _ask(listener, client)
        latencies.append(latency)
        failed += not success
    ended_ns = time.time_ns()
    listener.listen(_SETTLING_SEC)
    return _Interval(began_ns, ended_ns, latencies, failed, [], 0, before, listener.stats[-1], listener.stamps_ns)


def _watch(listener: MemoryListener, count: int, seconds: float) -> _Interval:
    client: Client[Any, Any] = listener.node.create_client(Watch, "scene_memory/watch")
    states: list[WatchStateArray] = []
    listener.node.create_subscription(WatchStateArray, "scene_memory/watches", states.append, 1)
    for colour, shape in itertools.islice(itertools.product(COLOURS, SHAPES), count):
        settings = WatchSettings(name=f"{colour} {shape}", question=f"Is there a {colour} {shape}?", period_sec=1.0)
        future = client.call_async(Watch.Request(settings=settings))
        while not future.done():
            listener.spin_once()
        response: Any = future.result()
        if not response.success:
            sys.exit(response.error_msg)
    listener.listen(_SETTLING_SEC)
    began_ns, before = time.time_ns(), listener.stats[-1]
    checks_before = _checks(states[-1].watches) if states else 0
    listener.listen(seconds)
    ended_ns = time.time_ns()
    watches = list(states[-1].watches) if states else []
    listener.listen(_SETTLING_SEC)
    return _Interval(began_ns, ended_ns, [], 0, watches, checks_before, before, listener.stats[-1], listener.stamps_ns)


def _checks(watches: Sequence[WatchState]) -> int:
    return sum(watch.checks for watch in watches)


def _ask(listener: MemoryListener, client: Client[Any, Any]) -> tuple[float, bool]:
    began = time.monotonic()
    future = client.call_async(AskScene.Request(question=_QUESTION))
    while not future.done():
        listener.spin_once()
        if time.monotonic() > began + _TIMEOUT_SEC:
            sys.exit(f"no answer within {_TIMEOUT_SEC:g} s")
    response: Any = future.result()
    return time.monotonic() - began, bool(response.success)


def _read_log(file: Path, columns: int) -> NDArray[np.int64]:
    content = file.read_bytes()
    row = 8 * columns
    complete = len(content) // row * row  # the process was killed, perhaps while it wrote a row
    return np.frombuffer(content[:complete], "<i8").reshape(-1, columns)


def _within(interval: _Interval, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[(rows[:, 0] >= interval.began_ns) & (rows[:, 0] < interval.ended_ns)]


def _summary(interval: _Interval, attempts: NDArray[np.int64], calls: NDArray[np.int64]) -> dict[str, Any]:
    published = attempts[attempts[:, 1] == 1, 0]
    sampled = sorted(stamp for stamp in interval.sampled_ns if interval.began_ns <= stamp < interval.ended_ns)
    seconds = (interval.ended_ns - interval.began_ns) * 1e-9
    return {
        "seconds": round(seconds, 1),
        "published": len(published),
        "published_hz": round(len(published) / seconds, 2),
        "not_publishable": len(attempts) - len(published),
        "received": len(calls),
        "received_per_published": round(len(set(calls[:, 0].tolist())) / max(1, len(published)), 6),
        "dropped": int(interval.after.images_dropped - interval.before.images_dropped),
        "sampled": len(sampled),
        "largest_gap_between_sampled_sec": round(float(np.diff(sampled).max()) * 1e-9, 3) if len(sampled) > 1 else None,
        "published_to_callback_ms": _spread((calls[:, 1] - calls[:, 0]) * 1e-6),
        "callback_ms": _spread((calls[:, 2] - calls[:, 1]) * 1e-6),
        **_work(interval, seconds),
    }


def _work(interval: _Interval, seconds: float) -> dict[str, Any]:
    if interval.watches:
        device_sec = sum(watch.device_sec_per_hour for watch in interval.watches) / 3600.0
        return {
            "watches": len(interval.watches),
            "unknown": sum(watch.level == WatchState.UNKNOWN for watch in interval.watches),
            "checks_per_watch_and_sec": round(
                (_checks(interval.watches) - interval.checks_before) / len(interval.watches) / seconds, 3
            ),
            "device_duty": round(device_sec, 4),
            "longest_interval_sec": round(max(watch.interval_sec for watch in interval.watches), 3),
        }
    if not interval.latencies_sec:
        return {}
    return {
        "questions": len(interval.latencies_sec),
        "questions_failed": interval.failed,
        "question_ms": _spread(np.array(interval.latencies_sec) * 1e3),
    }


def _spread(milliseconds: NDArray[Any]) -> dict[str, float]:
    percentiles = {f"p{rank:g}": round(float(np.percentile(milliseconds, rank)), 3) for rank in _PERCENTILES}
    return {**percentiles, "max": round(float(milliseconds.max()), 3)}
