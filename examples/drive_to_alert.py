#!/usr/bin/env python3
"""Drive to where the camera was when a standing question was answered with yes. Requires nav2 and poses of the camera.

python3 examples/drive_to_alert.py door
python3 examples/drive_to_alert.py door --optical --ros-args -r __ns:=/robot1

Add the watch first: delayed-vlm watch "Is the door open?" --name door, or parameters watches.* of scene_memory.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from delayed_vlm_ros.msg import Alert
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionClient
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rclpy.utilities import remove_ros_args

SERVER = "navigate_to_pose"
SERVER_WAIT_SEC = 10.0
STOP_SEC = 5.0  # for a response of the navigation
# The publisher keeps the last alerts for nodes that start later; a robot must not drive to those of yesterday.
MAX_AGE_SEC = 10.0
_ALERTS = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class AlertDriver(Node):
    """Sends one goal for each new rising alert of a watch, and none while the robot drives to an earlier one.

    Args:
        watch: Name of the watch.
        action_type: Type of the navigation action.
        goal_for: Returns the goal for a pose.
        optical: Whether poses are those of an optical frame, which looks along its z axis.
    """

    def __init__(
        self, watch: str, action_type: Any, goal_for: Callable[[PoseStamped], Any], *, optical: bool = False
    ) -> None:
        super().__init__("drive_to_alert")
        self._watch = watch
        self._goal_for = goal_for
        self._optical = optical
        self._is_driving = False
        self._sent: Any = None
        self._goal: Any = None
        self._navigation = ActionClient(self, action_type, SERVER)
        self.create_subscription(Alert, "scene_memory/alerts", self._on_alert, _ALERTS)

    def wait_for_navigation(self) -> bool:
        """Return whether the navigation's action server is there, after at most ``SERVER_WAIT_SEC``."""
        return bool(self._navigation.wait_for_server(SERVER_WAIT_SEC))

    def _on_alert(self, alert: Alert) -> None:
        if alert.watch != self._watch or alert.edge != Alert.RISING:
            return
        say = self.get_logger().info
        age_sec = (self.get_clock().now() - Time.from_msg(alert.header.stamp)).nanoseconds / 1e9
        if age_sec > MAX_AGE_SEC:
            say(f"alert {alert.id} ignored: it is {age_sec:.0f} s old")
        elif self._is_driving:
            say(f"alert {alert.id} ignored: driving to an earlier one")
        elif not alert.pose_valid:
            self.get_logger().warning(f"alert {alert.id} has no pose: set the parameter pose.source of scene_memory")
        else:
            pose = ground_pose(alert.pose, optical=self._optical)
            say(
                f"{alert.question} yes ({alert.p_yes:.2f}): driving to {pose.pose.position.x:.2f}, "
                f"{pose.pose.position.y:.2f} in {pose.header.frame_id}"
            )
            self._is_driving = True
            self._sent = self._navigation.send_goal_async(self._goal_for(pose))
            self._sent.add_done_callback(self._on_response)

    def _on_response(self, response: Any) -> None:
        self._goal = response.result()
        if not self._goal.accepted:
            self.get_logger().error("the navigation has rejected the goal")
            self._goal, self._is_driving = None, False
            return
        self._goal.get_result_async().add_done_callback(self._on_result)

    def _on_result(self, result: Any) -> None:
        self.get_logger().info(f"the navigation has ended with status {result.result().status}")
        self._goal, self._is_driving = None, False

    def stop(self) -> None:
        """Cancel the goal, so that the robot does not drive on without this node."""
        if self._is_driving and self._goal is None:  # the navigation has not responded yet
            rclpy.spin_until_future_complete(self, self._sent, timeout_sec=STOP_SEC)
        if self._goal is not None:
            rclpy.spin_until_future_complete(self, self._goal.cancel_goal_async(), timeout_sec=STOP_SEC)


def ground_pose(camera: PoseStamped, *, optical: bool) -> PoseStamped:
    """Return the pose on the ground below a camera, looking where the camera looks.

    Args:
        camera: Pose of the camera, or of the robot that carries it.
        optical: Whether it looks along its z axis, as optical frames do, instead of its x axis.
    """
    q = camera.pose.orientation
    if optical:
        ahead = (2 * (q.x * q.z + q.w * q.y), 2 * (q.y * q.z - q.w * q.x))
    else:
        ahead = (1 - 2 * (q.y * q.y + q.z * q.z), 2 * (q.x * q.y + q.w * q.z))
    yaw = math.atan2(ahead[1], ahead[0])
    pose = PoseStamped()
    pose.header.frame_id = camera.header.frame_id  # and stamp 0: the newest transform
    pose.pose.position.x, pose.pose.position.y = camera.pose.position.x, camera.pose.position.y
    pose.pose.orientation.z, pose.pose.orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return pose


def main() -> None:
    """Drive to alerts until the node is stopped."""
    parser = argparse.ArgumentParser(description="Drive to the pose of each rising alert of a watch.")
    parser.add_argument("watch", help="name of the watch")
    parser.add_argument("--optical", action="store_true", help="poses are those of an optical frame (z ahead)")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    try:
        from nav2_msgs.action import NavigateToPose  # noqa: PLC0415
    except ImportError:
        sys.exit("nav2_msgs is not installed: sudo apt install ros-$ROS_DISTRO-nav2-msgs")

    # Without rclpy's own handlers, Ctrl-C leaves the context valid, so that the goal can be cancelled.
    rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    driver = AlertDriver(
        arguments.watch, NavigateToPose, lambda pose: NavigateToPose.Goal(pose=pose), optical=arguments.optical
    )
    for number in (signal.SIGINT, signal.SIGTERM):  # systemd and docker stop end it as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    if not driver.wait_for_navigation():
        sys.exit(f"action {SERVER} not found: is nav2 active in this ROS domain and namespace?")
    try:
        while True:
            rclpy.spin_once(driver, timeout_sec=0.5)  # without a limit, Ctrl-C would wait for the next message
    except KeyboardInterrupt:
        driver.stop()


if __name__ == "__main__":
    main()
