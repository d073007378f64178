"""The examples of standing questions: the program that drives to alerts, as a user runs it, and the behaviour tree."""

import math
import os
import signal
import subprocess
import sys
import threading
from xml.etree import ElementTree as ET

import pytest
from delayed_vlm_ros.action import WatchFor
from delayed_vlm_ros.msg import Alert, WatchSettings
from harness import ROOT
from rclpy.action import ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from waiting import wait_until

LATCHED = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)

# nav2 is not installed here. The stub's goals travel as those of another action, with the pose as text.
STUB = """
from delayed_vlm_ros.action import WatchFor
from delayed_vlm_ros.msg import WatchSettings

class IsGoal(type):
    def __instancecheck__(cls, instance):
        return isinstance(instance, WatchFor.Goal)

class Goal(metaclass=IsGoal):
    def __new__(cls, pose):
        point, turn = pose.pose.position, pose.pose.orientation
        text = f"{pose.header.frame_id} {point.x:.2f} {point.y:.2f} {point.z:.2f} {turn.z:.3f} {turn.w:.3f}"
        return WatchFor.Goal(settings=WatchSettings(question=text))

class NavigateToPose(WatchFor):
    Goal = Goal
"""


class Navigation:
    """An action server instead of nav2. It drives until the test lets it arrive."""

    def __init__(self, node):
        self.goals = []
        self.cancelled = []
        self.arrive = threading.Event()
        self._server = ActionServer(
            node,
            WatchFor,
            "navigate_to_pose",
            self._drive,
            callback_group=ReentrantCallbackGroup(),
            cancel_callback=self._cancel,
        )

    def _cancel(self, goal):
        self.cancelled.append(goal.request.settings.question)
        return CancelResponse.ACCEPT

    async def _drive(self, goal):
        self.goals.append(goal.request.settings.question)
        while not (self.arrive.is_set() or goal.is_cancel_requested):
            await _soon(goal)
        if goal.is_cancel_requested:
            goal.canceled()
        else:
            goal.succeed()
        return WatchFor.Result()

    def destroy(self):
        self._server.destroy()


class _soon:  # noqa: N801  reads as a function
    """An awaitable that resumes with the next turn of the executor."""

    def __init__(self, _goal):
        pass

    def __await__(self):
        yield


@pytest.fixture
def driven(start, tmp_path):
    """Start the program with a stub of nav2; return it, a publisher of alerts, the navigation, and a client."""
    (tmp_path / "nav2_msgs").mkdir()
    (tmp_path / "nav2_msgs" / "__init__.py").touch()
    (tmp_path / "nav2_msgs" / "action.py").write_text(STUB, encoding="utf-8")
    navigations = []

    def run(*arguments, before=()):
        process, client = start(
            command=["examples/drive_to_alert.py", "door", *arguments], environment={"PYTHONPATH": str(tmp_path)}
        )
        publisher = client.node.create_publisher(Alert, "scene_memory/alerts", LATCHED)
        for alert in before:
            publisher.publish(alert)
        navigations.append(Navigation(client.node))
        wait_until(lambda: publisher.get_subscription_count() >= 2, lambda: process.log)  # the client has one, too
        return process, publisher, navigations[-1], client

    yield run
    for navigation in navigations:
        navigation.arrive.set()
        navigation.destroy()


def make_alert(client, number, x=0.0, *, age_sec=0.0, edge=Alert.RISING, watch="door", pose=True):
    alert = Alert(id=number, watch=watch, question="Is the door open?", edge=edge, p_yes=0.9, pose_valid=pose)
    stamp = client.node.get_clock().now().nanoseconds - round(age_sec * 1e9)
    alert.header.stamp.sec, alert.header.stamp.nanosec = divmod(stamp, 10**9)
    alert.pose.header.frame_id = "map"
    alert.pose.pose.position.x, alert.pose.pose.position.y, alert.pose.pose.position.z = x, -2.0, 1.2
    alert.pose.pose.orientation.z, alert.pose.pose.orientation.w = math.sin(math.pi / 4), math.cos(math.pi / 4)
    return alert


def test_robot_drives_to_new_alerts_one_after_another_and_stops_with_the_program(driven):
    process, publisher, navigation, client = driven()
    # Alerts that must not move the robot.
    publisher.publish(make_alert(client, 1, 9.0, age_sec=60.0))
    publisher.publish(make_alert(client, 2, 9.0, edge=Alert.FALLING))
    publisher.publish(make_alert(client, 3, 9.0, watch="window"))
    publisher.publish(make_alert(client, 4, 9.0, pose=False))
    wait_until(lambda: "alert 4 has no pose" in process.log, lambda: process.log)
    assert "alert 1 ignored: it is 6" in process.log  # 60 s old, or a little more on a busy machine
    # One that does, on the ground, and a second one on the way.
    publisher.publish(make_alert(client, 5, 1.5))
    wait_until(lambda: navigation.goals, lambda: process.log)
    publisher.publish(make_alert(client, 6, 9.0))
    wait_until(lambda: "alert 6 ignored: driving" in process.log, lambda: process.log)
    assert navigation.goals == ["map 1.50 -2.00 0.00 0.707 0.707"]
    # After the arrival, the next one counts.
    navigation.arrive.set()
    wait_until(lambda: "ended with status 4" in process.log, lambda: process.log)
    navigation.arrive.clear()
    publisher.publish(make_alert(client, 7, 2.5))
    wait_until(lambda: len(navigation.goals) == 2, lambda: process.log)
    # Ctrl-C stops the robot.
    code, _ = process.end(signal.SIGINT)
    assert code == 0, process.log
    assert navigation.cancelled == ["map 2.50 -2.00 0.00 0.707 0.707"]
    assert "Traceback" not in process.log


def test_service_manager_stops_the_robot_as_well(driven):
    process, publisher, navigation, client = driven()
    publisher.publish(make_alert(client, 1, 1.5))
    wait_until(lambda: navigation.goals, lambda: process.log)
    code, _ = process.end(signal.SIGTERM)
    assert code == 0, process.log
    assert navigation.cancelled == ["map 1.50 -2.00 0.00 0.707 0.707"]


@pytest.mark.parametrize("optical", [False, True])
def test_goal_looks_where_the_camera_looks(optical, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from drive_to_alert import ground_pose  # noqa: PLC0415
    from geometry_msgs.msg import PoseStamped  # noqa: PLC0415

    camera, yaw = PoseStamped(), 2.0
    body = (0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
    x, y, z, w = _product(body, (-0.5, 0.5, -0.5, 0.5)) if optical else body  # optical: z ahead, x to the right
    turn = camera.pose.orientation
    turn.x, turn.y, turn.z, turn.w = x, y, z, w
    found = ground_pose(camera, optical=optical).pose.orientation
    assert 2 * math.atan2(found.z, found.w) == pytest.approx(yaw)


def _product(a, b):
    (ax, ay, az, aw), (bx, by, bz, bw) = a, b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def test_without_nav2_the_program_names_the_missing_package():
    done = subprocess.run(
        [sys.executable, "examples/drive_to_alert.py", "door"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("nav2_msgs is not installed: ")
    assert "Traceback" not in done.stderr


def test_ports_of_the_behaviour_tree_are_settings_of_a_watch():
    root = ET.parse(ROOT / "examples" / "watch_for.xml").getroot()
    (node,) = root.iter("WatchFor")
    (model,) = [action for action in root.iter("Action") if action.get("ID") == "WatchFor"]
    ports = {port.get("name") for port in model}
    assert set(node.attrib) == ports
    assert ports - {"server_name", "pose"} <= set(WatchSettings.get_fields_and_field_types())
