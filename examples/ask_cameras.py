#!/usr/bin/env python3
"""Ask the same question about all cameras of a node.

python3 examples/ask_cameras.py "Is a person there?"
"""

from __future__ import annotations

import argparse
import sys

import rclpy
from delayed_vlm_ros.srv import AskScene
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

ALL_CAMERAS = "*"
SERVICE_WAIT_SEC = 10.0
TIMEOUT_SEC = 60.0  # for all cameras, which are asked one after the other


def main() -> None:
    """Ask, and print a line for each camera."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("question")
    question = parser.parse_args(remove_ros_args(sys.argv)[1:]).question
    rclpy.init(args=sys.argv)
    node = Node("ask_cameras")
    client = node.create_client(AskScene, "ask_scene")
    if not client.wait_for_service(SERVICE_WAIT_SEC):
        sys.exit(f"service {client.srv_name} not found: is scene_memory running in this ROS domain and namespace?")
    request = AskScene.Request(question=question, camera=ALL_CAMERAS, timeout_sec=TIMEOUT_SEC)
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_SEC + SERVICE_WAIT_SEC)
    response = future.result()
    if response is None:
        sys.exit("no response: scene_memory has stopped")
    if not response.success:  # no camera has answered
        sys.exit(f"error {response.error_code}: {response.error_msg}")
    for one in response.camera_answers:  # those that answered first
        if one.success:
            print(f"{one.camera}: {one.answer} ({one.newest_frame_age_sec:.1f} s ago)")
        else:
            print(f"{one.camera}: error {one.error_code}: {one.error_msg}")


if __name__ == "__main__":
    main()
