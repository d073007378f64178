"""Cost of a fast, large camera to the ``scene_memory`` node: processor share, and whether sampled frames are on time.

A camera process publishes images of a synthetic room, raw (rgb8) and then as JPEG, to a ``scene_memory`` node in
another process, over DDS in a domain of its own. No questions are asked. For each transport a second run uses a slow
camera, at the rate at which the memory samples: it shows the cost of the node without the images that it skips.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from delayed_vlm_ros.resources import config_file
from delayed_vlm_ros.ros.isolation import isolated_environment
from delayed_vlm_ros.ros.process_group import NodeGroup
from delayed_vlm_ros.time import nanoseconds_of, seconds_of
from lab.bench import fast_camera
from lab.bench.memory_listener import MemoryListener
from lab.bench.process_stats import processor_sec

_SAMPLE_FPS = 2.0
_WARM_UP_SEC = 5.0


def measure(rate: float, height: int, width: int, seconds: float) -> dict[str, Any]:
    """Measure both transports, each with a fast and a slow camera.

    Args:
        rate: Rate of the fast camera in Hz.
        height: Image height in pixels.
        width: Image width in pixels.
        seconds: Length of each run in seconds.

    Returns:
        The result that ``bench camera-load --json`` prints.
    """
    runs = {
        f"{transport}_{hz:g}_hz": _measure_run(transport, hz, height, width, seconds)
        for transport in fast_camera.TRANSPORTS
        for hz in (rate, _SAMPLE_FPS)
    }
    return {"shape": {"height": height, "width": width, "seconds": seconds, "processors": os.cpu_count()}, **runs}


def _measure_run(transport: str, rate: float, height: int, width: int, seconds: float) -> dict[str, float]:
    environment = isolated_environment()
    os.environ.update(environment)
    with NodeGroup(environment) as group:
        parameters = {"model.name": "demo", "image_transport": transport, "memory.sample_fps": _SAMPLE_FPS}
        group.start("scene_memory", params_file=config_file("scene_memory.yaml"), parameters=parameters)
        command = fast_camera.command(transport, rate, height, width)
        camera = subprocess.Popen(command, env=environment)  # noqa: S603  our own module
        listener = MemoryListener(int(environment["ROS_DOMAIN_ID"]))
        try:
            _wait_until_ready(listener, group)
            listener.listen(_WARM_UP_SEC)
            pid = group.pid("scene_memory")
            listener.reset()
            before, camera_before, started = processor_sec(pid), processor_sec(camera.pid), time.monotonic()
            listener.listen(seconds)
            took = time.monotonic() - started
            shares = {
                "processor_share": (processor_sec(pid) - before) / took,
                "camera_processor_share": (processor_sec(camera.pid) - camera_before) / took,
            }
            return {name: round(value, 3) for name, value in {**shares, **_summary(listener, seconds)}.items()}
        finally:
            camera.kill()
            camera.wait()
            listener.close()


def _wait_until_ready(listener: MemoryListener, group: NodeGroup) -> None:
    while not listener.is_ready:
        node = listener.node_stats
        if node is not None and node.model_state == "failed":
            log = group.log("scene_memory")
            sys.exit(f"cannot load the model {node.model}. The end of the node's log:\n{log}")
        listener.listen(0.5)
        group.check()


def _summary(listener: MemoryListener, seconds: float) -> dict[str, float]:
    if len(listener.stats) < 2 or len(listener.stamps_ns) < 2:  # noqa: PLR2004  a gap needs two
        sys.exit(f"too few messages received in {seconds:g} s: raise --seconds or --rate")
    first, last = listener.stats[0], listener.stats[-1]
    span = seconds_of(nanoseconds_of(last.header.stamp) - nanoseconds_of(first.header.stamp))
    return {
        "received_hz": (last.images_received - first.images_received) / span,
        "sampled_hz": (last.images_sampled - first.images_sampled) / span,
        "dropped": last.images_dropped - first.images_dropped,
        "largest_gap_sec": float(np.diff(sorted(listener.stamps_ns)).max()) * 1e-9,
        "newest_frame_age_max_sec": max(listener.ages_sec),
    }
