"""Exchange large images between two processes through the middleware, as a camera and the node do."""

from __future__ import annotations

import os
import time
from array import array
from concurrent.futures import Future
from typing import Any

from delayed_vlm_ros.doctor.running import Answer, in_background, run_child

_HEIGHT, _WIDTH = 1080, 1920
_BYTES = _HEIGHT * _WIDTH * 3
_BEST_EFFORT_IMAGES = 5
_PERIOD_SEC = 0.1
_MATCH_TIMEOUT_SEC = 5.0
_ARRIVAL_TIMEOUT_SEC = 5.0
_START_SEC = 3.0  # of a process, before it receives
_END = "end"


def exchange(timeout_sec: float) -> Answer:
    """Send images from one process to another.

    Args:
        timeout_sec: Longest time in seconds.

    Returns:
        ``bytes`` of an image; ``matched``, whether the processes discovered each other; ``reliable_sec``, the time of a
        reliable image, None if it did not arrive; and the numbers of best-effort images sent and received.
    """
    topic = f"/_delayed_vlm_doctor_{os.getpid()}"
    receiving: Future[Answer] = in_background(
        lambda: run_child("self_test:receive", topic, timeout_sec - _START_SEC, timeout_sec=timeout_sec)
    )
    sent = run_child("self_test:send", topic, timeout_sec=timeout_sec)
    received = receiving.result()
    if sent.error or received.error:
        return sent if sent.error else received
    arrivals = dict(received.value)
    started = sent.value["reliable_ns"]
    arrived = arrivals.get("reliable")
    return Answer(
        {
            "bytes": _BYTES,
            "matched": sent.value["matched"],
            "reliable_sec": (arrived - started) * 1e-9 if arrived else None,
            "best_effort_sent": _BEST_EFFORT_IMAGES,
            "best_effort_received": sum(name.startswith("best_effort") for name in arrivals),
        }
    )


def send(topic: str) -> dict[str, Any]:
    """Publish one reliable image, then several best-effort images; for a child process."""
    from rclpy.duration import Duration  # noqa: PLC0415  needs ROS
    from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: PLC0415
    from sensor_msgs.msg import Image  # noqa: PLC0415

    from delayed_vlm_ros.doctor.ros_node import doctor_node  # noqa: PLC0415

    with doctor_node() as (node, _executor):
        reliable = node.create_publisher(Image, topic, QoSProfile(depth=5))
        best_effort = node.create_publisher(
            Image, f"{topic}_best_effort", QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        )
        matched = _wait_for_match(reliable) and _wait_for_match(best_effort)
        image = Image(height=_HEIGHT, width=_WIDTH, encoding="rgb8", step=_WIDTH * 3, data=array("B", bytes(_BYTES)))
        started = time.monotonic_ns()
        image.header.frame_id = "reliable"
        reliable.publish(image)
        for number in range(_BEST_EFFORT_IMAGES if matched else 0):
            time.sleep(_PERIOD_SEC)
            image.header.frame_id = f"best_effort {number}"
            best_effort.publish(image)
        reliable.publish(Image(header=image.header.__class__(frame_id=_END)))
        reliable.wait_for_all_acked(Duration(seconds=_ARRIVAL_TIMEOUT_SEC))  # once destroyed, it sends nothing again
    return {"matched": matched, "reliable_ns": started}


def receive(topic: str, seconds: float) -> list[tuple[str, int]]:
    """Receive images until the last one; for a child process.

    Args:
        topic: Topic of the reliable images.
        seconds: Longest time in seconds.

    Returns:
        Name of each image, and time of its arrival in nanoseconds.
    """
    from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: PLC0415  needs ROS
    from sensor_msgs.msg import Image  # noqa: PLC0415

    from delayed_vlm_ros.doctor.ros_node import doctor_node  # noqa: PLC0415

    arrivals: list[tuple[str, int]] = []

    def note(image: Image) -> None:
        arrivals.append((image.header.frame_id, time.monotonic_ns()))

    with doctor_node() as (node, executor):
        best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscriptions = [
            node.create_subscription(Image, topic, note, QoSProfile(depth=5)),
            node.create_subscription(Image, f"{topic}_best_effort", note, best_effort),
        ]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not any(name == _END for name, _ in arrivals):
            executor.spin_once(timeout_sec=0.1)
        executor.spin_once(timeout_sec=_PERIOD_SEC)  # the topics may overtake each other
        del subscriptions
    return arrivals


def _wait_for_match(publisher: Any) -> bool:
    deadline = time.monotonic() + _MATCH_TIMEOUT_SEC
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
