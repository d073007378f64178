#!/usr/bin/env python3
"""Ask a running scene_memory node, as a program of yours would.

python3 examples/ask.py "What is on the table?"
python3 examples/ask.py "Is the door open?" --last-sec 10 --ros-args -r __ns:=/robot1
"""

from __future__ import annotations

import argparse
import sys

import rclpy
from delayed_vlm_ros.srv import AskScene
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

SERVICE_WAIT_SEC = 10.0


def main() -> None:
    """Ask one question and print what came back."""
    parser = argparse.ArgumentParser(description="Ask about what the camera saw.")
    parser.add_argument("question")
    parser.add_argument("--last-sec", type=float, default=0.0, help="only the newest so many seconds; 0: everything")
    parser.add_argument("--timeout-sec", type=float, default=30.0, help="deadline, the model's loading included")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])

    rclpy.init(args=sys.argv)
    node = Node("ask")
    client = node.create_client(AskScene, "ask_scene")
    if not client.wait_for_service(SERVICE_WAIT_SEC):
        sys.exit(f"no service {client.srv_name}: is scene_memory running, in this ROS domain and namespace?")
    request = AskScene.Request(
        question=arguments.question,
        last_sec=arguments.last_sec,
        timeout_sec=arguments.timeout_sec,
        client_id=node.get_fully_qualified_name(),  # those who differ in it share the queue evenly
    )
    # In a node that does other things as well, do not wait for it here: future.add_done_callback(…).
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=arguments.timeout_sec + SERVICE_WAIT_SEC)
    response = future.result()
    if response is None:
        sys.exit("no response: the node is gone")
    if not response.success:
        sys.exit(f"error {response.error_code}: {response.error_msg}")
    print(response.answer)
    metrics = response.metrics
    print(
        f"  from {len(response.frames_used)} pairs of frames, the newest {response.newest_frame_age_sec:.1f} s old; "
        f"first token after {metrics.time_to_first_token:.2f} s, whole answer {metrics.total_latency:.2f} s"
    )
    for note in metrics.warnings:
        print(f"  warnings: {note}")


if __name__ == "__main__":
    main()
