#!/usr/bin/env python3
"""Publish where the camera was when it saw what a question is about, as a goal for nav2 (topic goal_pose).

python3 examples/go_to_answer.py "Where is the red box?"
python3 examples/go_to_answer.py "Where is the red box?" --optical --ros-args -r __ns:=/robot1

Requires poses of the camera: the parameter pose.source of scene_memory. nav2 listens to goal_pose, as for rviz's goals.
"""

from __future__ import annotations

import argparse
import sys

import rclpy
from delayed_vlm_ros.srv import AskScene
from drive_to_alert import ground_pose  # next to this file
from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

WAIT_SEC = 10.0
TIMEOUT_SEC = 60.0


def main() -> None:
    """Ask, publish the goal, and print answer and goal."""
    parser = argparse.ArgumentParser(description="Send a robot to where it saw the answer to a question.")
    parser.add_argument("question")
    parser.add_argument("--optical", action="store_true", help="poses are those of an optical frame (z ahead)")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])

    rclpy.init(args=sys.argv)
    node = Node("go_to_answer")
    goals = node.create_publisher(PoseStamped, "goal_pose", 1)
    client = node.create_client(AskScene, "ask_scene")
    if not client.wait_for_service(WAIT_SEC):
        sys.exit(f"service {client.srv_name} not found: is scene_memory running in this ROS domain and namespace?")
    future = client.call_async(AskScene.Request(question=arguments.question, timeout_sec=TIMEOUT_SEC))
    rclpy.spin_until_future_complete(node, future, timeout_sec=TIMEOUT_SEC + WAIT_SEC)
    response = future.result()
    if response is None or not response.success:
        sys.exit("no response: scene_memory has stopped" if response is None else f"error: {response.error_msg}")
    print(response.answer)
    if not response.evidence_pose_valid:
        sys.exit("no pose: set pose.source of scene_memory, and leave evidence.enabled on")
    goal = ground_pose(response.evidence_pose, optical=arguments.optical)
    if not goals.get_subscription_count():  # by now, all subscribers are known
        sys.exit(f"nobody subscribes to {goals.topic_name}: is nav2 active?")
    goals.publish(goal)
    if not goals.wait_for_all_acked(Duration(seconds=WAIT_SEC)):
        sys.exit(f"no subscriber of {goals.topic_name} acknowledged the goal within {WAIT_SEC:g} s")
    print(f"goal: x {goal.pose.position.x:.2f}, y {goal.pose.position.y:.2f} m in {goal.header.frame_id}")


if __name__ == "__main__":
    main()
