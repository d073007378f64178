#!/usr/bin/env python3
"""Ask a running scene_memory node one question.

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
    """Ask the question and print the response."""
    parser = argparse.ArgumentParser(description="Ask a question about what the camera has seen.")
    parser.add_argument("question")
    parser.add_argument("--last-sec", type=float, default=0.0, help="use only the last seconds; 0: all kept frames")
    parser.add_argument("--timeout-sec", type=float, default=30.0, help="deadline in seconds, model loading included")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])

    rclpy.init(args=sys.argv)
    node = Node("ask")
    client = node.create_client(AskScene, "ask_scene")
    if not client.wait_for_service(SERVICE_WAIT_SEC):
        sys.exit(f"service {client.srv_name} not found: is scene_memory running in this ROS domain and namespace?")
    request = AskScene.Request(
        question=arguments.question,
        last_sec=arguments.last_sec,
        timeout_sec=arguments.timeout_sec,
        client_id=node.get_fully_qualified_name(),  # clients share the queue evenly
    )
    # A node with other callbacks must not wait here: it uses future.add_done_callback(…) instead.
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=arguments.timeout_sec + SERVICE_WAIT_SEC)
    response = future.result()
    if response is None:
        sys.exit("no response: scene_memory has stopped")
    if not response.success:
        sys.exit(f"error {response.error_code}: {response.error_msg}")
    print(response.answer)
    metrics = response.metrics
    print(
        f"  from {len(response.frame_ids)} pairs of frames, the newest {response.newest_frame_age_sec:.1f} s old; "
        f"first token after {metrics.time_to_first_token:.2f} s, answer after {metrics.total_latency:.2f} s"
    )
    for warning in metrics.warnings:
        print(f"  warning: {warning}")


if __name__ == "__main__":
    main()
