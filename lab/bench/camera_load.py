"""What a fast, large camera costs the memory node: its share of a processor, and whether sampled frames come on time.

    .venv/bin/python lab/bench/camera_load.py [--json] [--seconds 60] [--rate 60] [--height 1080] [--width 1920]

A camera process publishes images of a synthetic room, raw (rgb8) and then as JPEG, to a ``scene_memory`` node in
another process, over DDS in a domain of its own. Nobody asks meanwhile. Beside each run one of a slow camera, at the
rate that the memory samples: what the node costs without the images that it does not need.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import rclpy
import typer
from delayed_vlm_ros.msg import KeyFrameArray, MemoryStats
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.image_publisher import image_message
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup
from delayed_vlm_ros.ros.time import nanoseconds_of
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.time import seconds_of

_SAMPLE_FPS = 2.0
_WARM_UP_SEC = 5.0
_IMAGES = 4
_STAMP_AT = 4  # bytes, in a serialised message that begins with a header
_TICKS = os.sysconf("SC_CLK_TCK")


def _messages(transport: str, height: int, width: int) -> list[bytearray]:
    """Serialised messages; their stamps are written in as they are published."""
    found = []
    for number in range(_IMAGES):
        image = render(Scene.from_seed(3), number * 0.5, height, width)
        if transport == "raw":
            message: Any = image_message(image)
        else:
            message = CompressedImage(format="jpeg")
            message.data.frombytes(cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
        found.append(bytearray(serialize_message(message)))
    return found


def _publish(transport: str, rate: float, height: int, width: int) -> None:
    """The camera: publish until killed."""
    rclpy.init()
    node = Node("fast_camera")
    kind, topic = (Image, "image") if transport == "raw" else (CompressedImage, "image/compressed")
    publisher = node.create_publisher(kind, topic, QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE))
    messages = _messages(transport, height, width)
    due = time.monotonic()
    for number in range(10**9):
        message = messages[number % _IMAGES]
        struct.pack_into("<iI", message, _STAMP_AT, *divmod(time.time_ns(), 10**9))
        publisher.publish(bytes(message))
        due = max(due + 1.0 / rate, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))


class _Listener:
    """Hears what the node tells of itself."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_stats, 10)
        self._node.create_subscription(KeyFrameArray, "scene_memory/key_frames", self._on_key_frames, 10)
        self.forget()

    def _on_stats(self, message: MemoryStats) -> None:
        self.stats.append(message)

    def _on_key_frames(self, message: KeyFrameArray) -> None:
        if not message.key_frames:
            return  # the memory is empty yet
        stamps = {
            nanoseconds_of(stamp) for frame in message.key_frames for stamp in (frame.header.stamp, frame.end_stamp)
        }
        self.stamps_ns |= {stamp for stamp in stamps if stamp > self._since_ns}
        self.ages_sec.append((time.time_ns() - max(stamps)) * 1e-9)

    def listen(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.1)

    def forget(self) -> None:
        """Begin anew."""
        self.stats: list[MemoryStats] = []
        self.stamps_ns: set[int] = set()
        self.ages_sec: list[float] = []
        self._since_ns = time.time_ns()

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)


def _processor_sec(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _is_ready(stats: list[MemoryStats], group: NodeGroup) -> bool:
    """Whether the model is loaded and something is remembered; ends the program when that will never be."""
    if not stats:
        return False
    if stats[-1].model_state == "failed":
        sys.exit(
            f"the model {stats[-1].model} could not be loaded; the end of the node's log:\n{group.log('scene_memory')}"
        )
    return stats[-1].model_state == "ready" and stats[-1].unique_frames > 0


def _measure(transport: str, rate: float, height: int, width: int, seconds: float) -> dict[str, float]:
    """One camera for a while; gives what it cost."""
    environment = isolated_environment()
    os.environ.update(environment)
    command = [sys.executable, __file__, "--publish", transport, "--rate", str(rate)]
    command += ["--height", str(height), "--width", str(width)]
    with NodeGroup(environment) as group:
        parameters = {"model.name": "demo", "image_transport": transport, "memory.sample_fps": _SAMPLE_FPS}
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters=parameters)
        camera = subprocess.Popen(command, env=environment)  # noqa: S603  this file
        listener = _Listener(int(environment["ROS_DOMAIN_ID"]))
        try:
            while not _is_ready(listener.stats, group):
                listener.listen(0.5)
                group.check()
            listener.listen(_WARM_UP_SEC)
            pid = group.pid("scene_memory")
            listener.forget()
            before, camera_before, started = _processor_sec(pid), _processor_sec(camera.pid), time.monotonic()
            listener.listen(seconds)
            took = time.monotonic() - started
            if len(listener.stats) < 2 or len(listener.stamps_ns) < 2:  # noqa: PLR2004  a gap needs two
                sys.exit(f"too little came in {seconds:g} s to measure anything: raise --seconds or --rate")
            first, last = listener.stats[0], listener.stats[-1]
            span = seconds_of(nanoseconds_of(last.header.stamp) - nanoseconds_of(first.header.stamp))
            return {
                "processor_share": (_processor_sec(pid) - before) / took,
                "camera_processor_share": (_processor_sec(camera.pid) - camera_before) / took,
                "received_hz": (last.images_received - first.images_received) / span,
                "sampled_hz": (last.images_sampled - first.images_sampled) / span,
                "dropped": last.images_dropped - first.images_dropped,
                "largest_gap_sec": float(np.diff(sorted(listener.stamps_ns)).max()) * 1e-9,
                "newest_frame_age_max_sec": max(listener.ages_sec),
            }
        finally:
            camera.kill()
            camera.wait()
            listener.close()


def main(
    publish: Annotated[str, typer.Option(hidden=True)] = "",
    rate: Annotated[float, typer.Option(help="Images a second.")] = 60.0,
    height: Annotated[int, typer.Option(help="Rows.")] = 1080,
    width: Annotated[int, typer.Option(help="Columns.")] = 1920,
    seconds: Annotated[float, typer.Option(help="How long each run is.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure raw and compressed images, each fast and slow."""
    if publish:
        _publish(publish, rate, height, width)
        return
    found = {
        f"{transport}_{hz:g}_hz": {key: round(value, 3) for key, value in run.items()}
        for transport in ("raw", "compressed")
        for hz in (rate, _SAMPLE_FPS)
        for run in [_measure(transport, hz, height, width, seconds)]
    }
    result = {"shape": {"height": height, "width": width, "seconds": seconds, "processors": os.cpu_count()}, **found}
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, run in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in run.items()))


if __name__ == "__main__":
    typer.run(main)
