"""A fast camera with asks back to back: does every image arrive, and do those to remember come on time?

    .venv/bin/python lab/bench/load.py [--json] [--seconds 600] [--rate 30] [--height 480] [--width 640]

A camera process publishes raw images (rgb8) of a synthetic room to a ``scene_memory`` node with the embedded model in
another process, over DDS in a domain of its own, and this process asks, the next question as soon as one is answered.
Camera and node each write down the stamps of their images, and those of one stretch of time are compared. The node's
settings are the defaults.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rclpy
import typer
from delayed_vlm_ros.msg import KeyFrameArray, MemoryStats
from delayed_vlm_ros.srv import AskScene
from numpy.typing import NDArray
from rclpy._rclpy_pybind11 import RCLError
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import ending_with_us
from delayed_vlm_ros.ros.scene_memory import node as scene_memory
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.time import nanoseconds_of
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.time import read_stamp

_IMAGES = 15
_STAMP_AT = 4  # bytes, in a serialised message that begins with a header
_SETTLING_SEC = 3.0  # until the subscription has become a reliable one, and again at the end
_PATIENCE_SEC = 300.0
_QUESTION = "What do you see?"
_PERCENTILES = (50, 90, 99, 99.9)


def _be_camera(rate: float, height: int, width: int, stamps: Path) -> None:
    """Publish until ended."""
    rclpy.init()
    node = Node("fast_camera")
    publisher = node.create_publisher(Image, "image", QoSProfile(depth=15, reliability=ReliabilityPolicy.RELIABLE))
    scene = Scene.from_seed(3)
    messages = [
        bytearray(serialize_message(image_message(render(scene, number * 0.5, height, width))))
        for number in range(_IMAGES)
    ]
    due = time.monotonic()
    with stamps.open("wb", buffering=0) as written:
        for message in itertools.cycle(messages):
            if not rclpy.ok():
                return
            stamp_ns = time.time_ns()
            struct.pack_into("<iI", message, _STAMP_AT, *divmod(stamp_ns, 10**9))
            try:
                publisher.publish(bytes(message))
            except RCLError:  # the middleware found no room in time: nobody takes its images
                written.write(struct.pack("<qq", stamp_ns, 0))
            else:
                written.write(struct.pack("<qq", stamp_ns, 1))
            due = max(due + 1.0 / rate, time.monotonic() - 0.1)
            time.sleep(max(0.0, due - time.monotonic()))


def _be_node(calls: Path) -> int:
    """Run the node, and write down of each image its stamp, when its callback began, and when that ended."""
    receive = CameraMemory.receive
    written = calls.open("wb", buffering=0)

    def timed(camera: CameraMemory, serialised: bytes) -> None:
        began_ns = time.time_ns()
        receive(camera, serialised)
        written.write(struct.pack("<qqq", read_stamp(serialised), began_ns, time.time_ns()))

    CameraMemory.receive = timed  # type: ignore[method-assign]
    return scene_memory.main()


class _Asker:
    """Asks, and hears what the node tells of itself."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("client_id", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._client = self._node.create_client(AskScene, "ask_scene")
        self._node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_stats, 10)
        self._node.create_subscription(KeyFrameArray, "scene_memory/key_frames", self._on_key_frames, 10)
        self.stats: MemoryStats | None = None
        self.stamps_ns: set[int] = set()

    def _on_stats(self, message: MemoryStats) -> None:
        self.stats = message

    def _on_key_frames(self, message: KeyFrameArray) -> None:
        for frame in message.key_frames:
            self.stamps_ns |= {nanoseconds_of(frame.header.stamp), nanoseconds_of(frame.end_stamp)}

    @property
    def is_ready(self) -> bool:
        return self.stats is not None and self.stats.model_state == "ready" and self.stats.unique_frames > 0

    def listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.1)

    def ask(self) -> tuple[float, bool]:
        """Seconds until the answer, and whether it was one."""
        began = time.monotonic()
        future = self._client.call_async(AskScene.Request(question=_QUESTION))
        while not future.done():
            self._executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > began + _PATIENCE_SEC:
                sys.exit(f"no answer within {_PATIENCE_SEC:g} s")
        return time.monotonic() - began, future.result().success

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def _numbers(file: Path, columns: int) -> NDArray[np.int64]:
    content = file.read_bytes()
    whole = len(content) // (8 * columns) * 8 * columns  # a process that was killed may have been writing
    return np.frombuffer(content[:whole], "<i8").reshape(-1, columns)


def _spread(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    named = {f"p{rank:g}": round(float(np.percentile(milliseconds, rank)), 3) for rank in _PERCENTILES}
    return {**named, "max": round(float(milliseconds.max()), 3)}


def _measure(rate: float, height: int, width: int, seconds: float, folder: Path) -> dict[str, Any]:
    environment = isolated_environment()
    os.environ.update(environment)
    stamps, calls = folder / "stamps", folder / "calls"
    camera_command = [sys.executable, __file__, "--camera", str(stamps), "--rate", str(rate)]
    camera_command += ["--height", str(height), "--width", str(width)]
    node_command = [sys.executable, __file__, "--node", str(calls), "--ros-args"]
    node_command += ["--params-file", str(config_file("scene_memory.yaml")), "-p", "model.name:=demo"]
    processes = [
        subprocess.Popen([*ending_with_us(), *command], env=environment, stdout=subprocess.DEVNULL)  # noqa: S603  this file
        for command in (node_command, camera_command)
    ]
    client_id = _Asker(int(environment["ROS_DOMAIN_ID"]))
    try:
        give_up = time.monotonic() + _PATIENCE_SEC
        while not client_id.is_ready:
            client_id.listen(0.5)
            if time.monotonic() > give_up or any(process.poll() is not None for process in processes):
                sys.exit("camera or node did not come up: see above")
        client_id.listen(_SETTLING_SEC)
        asks = []
        began_ns, before = time.time_ns(), client_id.stats
        while time.time_ns() < began_ns + seconds * 1e9:
            asks.append(client_id.ask())
        ended_ns = time.time_ns()
        client_id.listen(_SETTLING_SEC)
        after = client_id.stats
    finally:
        for process in processes:
            process.kill()
            process.wait()
        client_id.close()
    tried = _numbers(stamps, 2)
    tried = tried[(tried[:, 0] >= began_ns) & (tried[:, 0] < ended_ns)]
    published = tried[tried[:, 1] == 1, 0]
    received = _numbers(calls, 3)
    received = received[(received[:, 0] >= began_ns) & (received[:, 0] < ended_ns)]
    sampled = sorted(stamp for stamp in client_id.stamps_ns if began_ns <= stamp < ended_ns)
    assert before is not None  # noqa: S101  is_ready
    assert after is not None  # noqa: S101
    latencies = np.array([took for took, _ in asks]) * 1e3
    return {
        "shape": {"height": height, "width": width, "processors": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
        "seconds": round((ended_ns - began_ns) * 1e-9, 1),
        "published": len(published),
        "published_hz": round(len(published) / (ended_ns - began_ns) * 1e9, 2),
        "not_publishable": len(tried) - len(published),
        "received": len(received),
        "received_per_published": round(len(set(received[:, 0].tolist())) / max(1, len(published)), 6),
        "dropped": int(after.images_dropped - before.images_dropped),
        "sampled": len(sampled),
        "largest_gap_between_sampled_sec": round(float(np.diff(sampled).max()) * 1e-9, 3) if len(sampled) > 1 else None,
        "published_to_callback_ms": _spread((received[:, 1] - received[:, 0]) * 1e-6),
        "callback_ms": _spread((received[:, 2] - received[:, 1]) * 1e-6),
        "asks": len(asks),
        "asks_failed": sum(not success for _, success in asks),
        "ask_ms": _spread(latencies),
    }


def main(
    camera: Annotated[str, typer.Option(hidden=True)] = "",
    rate: Annotated[float, typer.Option(help="Images a second.")] = 30.0,
    height: Annotated[int, typer.Option(help="Rows.")] = 480,
    width: Annotated[int, typer.Option(help="Columns.")] = 640,
    seconds: Annotated[float, typer.Option(help="How long to ask.", min=1.0)] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run and print."""
    if camera:
        _be_camera(rate, height, width, Path(camera))
        return
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(rate, height, width, seconds, Path(folder))
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--node"]:
        calls_file = Path(sys.argv.pop(2))
        sys.argv.pop(1)
        sys.exit(_be_node(calls_file))
    typer.run(main)
