"""An action client may come and go while another thread spins its node."""

import time

import pytest
import rclpy
from delayed_vlm_ros.action import AskScene
from harness import CONTEXT, Spinning
from rclpy.action import ActionServer
from rclpy.executors import SingleThreadedExecutor
from waiting import PATIENCE_SEC, wait_until

from delayed_vlm_ros.ros.action_client import SpunActionClient


@pytest.fixture
def node(ros):
    node = rclpy.create_node("spun", context=CONTEXT)
    yield node
    node.destroy_node()


def test_client_is_complete_when_the_executor_sees_it(node, monkeypatch):
    add_waitable = node.add_waitable
    sizes = []

    def seen_at_once(waitable):
        add_waitable(waitable)
        sizes.append(waitable.get_num_entities().num_clients)

    monkeypatch.setattr(node, "add_waitable", seen_at_once)
    SpunActionClient(node, AskScene, "ask_scene_stream").destroy()
    assert sizes == [3]


class LeavingClient(SpunActionClient):
    """Is destroyed when the executor has listed it and is about to use it."""

    def __enter__(self):
        self.destroy()
        return super().__enter__()


def test_executor_survives_a_client_that_was_destroyed_after_it_was_listed(node):
    client = LeavingClient(node, AskScene, "ask_scene_stream")
    executor = SingleThreadedExecutor(context=CONTEXT)
    executor.add_node(node)
    executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    assert client not in node.waitables


class SlowDict(dict):
    """Takes long to keep an item: rclpy keeps the callback between sending the goal and keeping its future."""

    def __setitem__(self, key, value):
        time.sleep(0.5)
        super().__setitem__(key, value)


def test_response_that_arrives_while_the_goal_is_being_sent_reaches_the_caller(node, monkeypatch):
    server = ActionServer(node, AskScene, "ask_scene_stream", lambda _: AskScene.Result())
    other = rclpy.create_node("sender", context=CONTEXT)
    client = SpunActionClient(other, AskScene, "ask_scene_stream")
    serving, receiving = Spinning(node), Spinning(other)
    assert client.wait_for_server(timeout_sec=PATIENCE_SEC)
    monkeypatch.setattr(client, "_feedback_callbacks", SlowDict())
    sent = client.send_goal_async(AskScene.Goal(), lambda _: None)
    wait_until(sent.done, "the goal to be accepted")
    for spinning in (serving, receiving):
        spinning.close()
    client.destroy()
    server.destroy()
    other.destroy_node()


def test_thread_that_spins_survives_clients_that_come_and_go(node):
    spinning = Spinning(node)
    for _ in range(50):
        SpunActionClient(node, AskScene, "ask_scene_stream").destroy()
    assert spinning.is_alive
    spinning.close()
