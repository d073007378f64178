"""The examples that ask a node, as a user runs them."""

import os
import re
import signal
import subprocess
import sys

import pytest
from delayed_vlm_ros.srv import AskScene
from geometry_msgs.msg import PoseStamped
from harness import ROOT
from waiting import wait_until


def run_example(name, namespace, *arguments):
    command = [sys.executable, f"examples/{name}", *arguments, "--ros-args", "-r", f"__ns:={namespace}"]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False)


def test_example_prints_the_answer_and_its_frames(start):
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    done = run_example("ask.py", client.namespace, "What is on the table?", "--last-sec", "60")
    assert done.returncode == 0, done.stderr
    assert "What is on the table?" in done.stdout
    assert " pairs of frames" in done.stdout


def test_example_prints_an_error_in_one_line(start):
    _, client = start()
    client.wait_until_active()
    done = run_example("ask.py", client.namespace, "What is on the table?")
    assert done.returncode == 1, done.stdout
    assert done.stderr.startswith("error 1: no frames")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("period_sec", [0.2, 1])
def test_asynchronous_node_asks_again_and_again(start, period_sec):
    # given
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    # when
    command = ["examples/ask_async.py", "What is it?"]
    process, _ = start(command=command, namespace=client.namespace, period_sec=period_sec)
    # then
    wait_until(lambda: process.log.count("about What is it?") >= 3, lambda: process.log)
    code, _ = process.end(signal.SIGINT)
    assert code == 0, process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize("period", ["0", "0.0", "-1", ".nan", "often", "true"])
def test_asynchronous_node_refuses_a_period_in_one_line(period):
    done = run_example("ask_async.py", "/nobody", "What is it?", "--ros-args", "-p", f"period_sec:={period}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: 'period_sec' must be a number above 0")
    assert done.stderr.count("\n") == 1


def test_every_camera_has_a_line(start):
    # given two cameras, one of which shows images
    _, client = start(cameras="[front, rear]", memory__sample_fps=50.0)
    client.wait_until_ready()

    def has_frames(stats):
        client.publish(client.image(), "front/image")  # the first ones may precede the connection
        return stats.camera == "front" and stats.total_frames_added > 0

    client.wait_for_stats(has_frames)
    # when
    done = run_example("ask_cameras.py", client.namespace, "What is it?")
    # then
    assert done.returncode == 0, done.stderr
    answered, failed = done.stdout.splitlines()
    assert answered.startswith("front: about What is it? (")
    assert failed.startswith("rear: error 1: no frames")


def ask_for_a_goal(start, *, pose_valid=True, listens=True):
    """Run go_to_answer.py with this answer of a node; return its process and the goals."""
    goals = []
    process, client = start(command=["examples/go_to_answer.py", "Where is the red box?"])
    if listens:
        client.node.create_subscription(PoseStamped, "goal_pose", goals.append, 1)
    pose = PoseStamped()
    pose.header.frame_id = "map"
    pose.pose.position.x, pose.pose.position.z = 2.5, 1.2
    pose.pose.orientation.w = 1.0
    answer = AskScene.Response(success=True, answer="on the left", evidence_pose_valid=pose_valid, evidence_pose=pose)
    client.node.create_service(AskScene, "ask_scene", lambda _request, _response: answer)
    wait_until(lambda: not process.alive, lambda: process.log)
    return process, goals


def test_goal_is_where_the_camera_saw_the_answer(start):
    process, goals = ask_for_a_goal(start)
    assert process.process.returncode == 0, process.log
    assert process.log.splitlines() == ["on the left", "goal: x 2.50, y 0.00 m in map"]
    wait_until(lambda: goals, "the goal")
    assert [(goal.pose.position.x, goal.pose.position.z, goal.header.frame_id) for goal in goals] == [(2.5, 0.0, "map")]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"pose_valid": False}, "no pose: set pose.source"), ({"listens": False}, "nobody subscribes to ")],
)
def test_missing_pose_or_navigation_is_said(start, options, reason):
    process, goals = ask_for_a_goal(start, **options)
    assert process.process.returncode == 1
    assert process.log.splitlines()[1].startswith(reason)
    assert not goals


def test_agent_lists_tools_asks_and_lists_frames(start):
    # given
    _, client = start(memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    # when
    command = [sys.executable, "examples/agent.py", "What is it?", "--namespace", client.namespace]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    # then
    assert done.returncode == 0, done.stderr
    assert "ask_scene" in done.stdout
    assert "\nanswer: about What is it?\n" in done.stdout
    assert re.search(r"^key frame \d+ of \d{4}-", done.stdout, re.MULTILINE)
