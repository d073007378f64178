"""Two runs with the same names in two domains on one machine do not affect each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from delayed_vlm_ros.msg import MemoryStats
from delayed_vlm_ros.srv import AskScene
from harness import CONTEXT, FAKE_SCENE_MEMORY, ROOM_CAMERA, NodeProcess
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_rmw_implementation_identifier
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.ros.isolation import free_domain, isolated_environment

NAMESPACE = "/robot"


class Other:
    """A memory, a camera and a client in another domain, isolated as the demo is."""

    def __init__(self):
        environment = isolated_environment()
        self.domain = int(environment["ROS_DOMAIN_ID"])
        parameters = {"model.name": "demo", "memory.sample_fps": 20.0}
        self.processes = [
            NodeProcess(NAMESPACE, FAKE_SCENE_MEMORY, parameters, {}, environment),
            NodeProcess(NAMESPACE, ROOM_CAMERA, {"colour": "red", "shape": "box"}, {}, environment),
        ]
        self.context = Context()
        rclpy.init(context=self.context, domain_id=self.domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("listener", namespace=NAMESPACE, context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.stats = []
        self.node.create_subscription(MemoryStats, "scene_memory/memory_stats", self.stats.append, 10)
        self.client = self.node.create_client(AskScene, "ask_scene")

    def spin_until(self, condition, what):
        def met():
            self.executor.spin_once(timeout_sec=0.05)
            return condition()

        return wait_until(met, what)

    def ask(self):
        future = self.client.call_async(
            AskScene.Request(question="What is there?", include_frames=True, timeout_sec=100.0)
        )
        self.spin_until(future.done, "an answer in the other domain")
        return future.result()

    def close(self):
        for process in self.processes:
            process.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def other(ros):
    made = Other()
    yield made
    made.close()


def names_seen_by(node):
    return sorted(f"{namespace.rstrip('/')}/{name}" for name, namespace in node.get_node_names_and_namespaces())


def test_runs_with_the_same_names_in_two_domains_are_independent(start, other):
    # given one run in the tests' domain and another one isolated as the demo, both with /robot/scene_memory
    process, client = start(namespace=NAMESPACE, memory__sample_fps=50.0)
    client.wait_until_ready()
    client.show_images(4)
    other.spin_until(lambda: other.stats and other.stats[-1].images_sampled >= 4, "images in the other domain")
    assert len({0, other.domain, CONTEXT.get_domain_id()}) == 3

    # when the camera of the other run publishes many images
    before, before_other = client.wait_for_stats(), other.stats[-1]
    other.spin_until(lambda: other.stats[-1].images_received >= before_other.images_received + 30, "more of them")
    after = client.wait_for_stats()

    # then this run has received none of them
    assert after.images_received == before.images_received
    assert {frame.header.frame_id[:5] for frame in client.ask().frames_used} == {"lens_"}
    # and its reset does not reach the other run
    assert client.reset().success
    answer = other.ask()
    assert answer.success, answer.error_msg
    assert len(answer.frames_used) >= 2
    assert {frame.header.frame_id for frame in answer.frames_used} == {""}
    assert other.stats[-1].total_frames_added >= before_other.total_frames_added
    assert client.wait_for_node_stats().questions_answered == 1
    # and each run discovers its own nodes only, each name once
    assert names_seen_by(client.node) == [f"{NAMESPACE}/client", f"{NAMESPACE}/scene_memory"]
    assert names_seen_by(other.node) == [
        f"{NAMESPACE}/listener",
        f"{NAMESPACE}/room_camera",
        f"{NAMESPACE}/scene_memory",
    ]
    # and the end of one run does not affect the other
    other.processes[0].end()
    assert process.alive
    client.show_images(2)
    assert client.ask().success


def test_neither_tests_nor_demo_use_the_default_domain(ros):
    assert os.environ["ROS_DOMAIN_ID"] == str(CONTEXT.get_domain_id()) != "0"
    assert CONTEXT.get_domain_id() not in {free_domain() for _ in range(200)} | {0}
    assert 0 not in {free_domain() for _ in range(200)}


@pytest.mark.skipif(get_rmw_implementation_identifier() != "rmw_fastrtps_cpp", reason="the profile is for Fast DDS")
def test_isolated_environment_has_shared_memory_for_raw_images(monkeypatch):
    one_node = "import rclpy; rclpy.init(); node = rclpy.create_node('camera'); print(flush=True); input()"

    def segments():
        return {path.name: path.stat().st_size for path in Path("/dev/shm").glob("fast*_*") if path.exists()}

    before = segments()
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", one_node], env=isolated_environment(), text=True, **pipes) as process:
        process.stdout.readline()
        new = [size for name, size in segments().items() if name not in before]
        process.communicate("\n", timeout=PATIENCE_SEC)
    assert max(new) >= 16 * 2**20
