"""The end of the process while the node is on its way from one state to another, and asks outside of ``active``."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.logging import get_logger

from delayed_vlm_ros.errors import ModelNotReadyError
from delayed_vlm_ros.ros.scene_memory import node as scene_memory
from delayed_vlm_ros.ros.scene_memory.node import SceneMemory


class Session:
    """Remembers how it was closed; at the first time something else happens."""

    def __init__(self, meanwhile=lambda: None):
        self.timeouts = []
        self.meanwhile = meanwhile

    def close(self, timeout_sec):
        self.timeouts.append(timeout_sec)
        if len(self.timeouts) == 1:
            self.meanwhile()
        return True


@pytest.fixture
def node():
    """As much of the node as its transitions need, without a graph."""
    return SimpleNamespace(
        get_clock=lambda: None,
        get_logger=lambda: get_logger("test_scene_memory_end"),
        get_parameter=lambda _: SimpleNamespace(value=False),
        resolve_topic_name=lambda name: name,
        _ask_services=SimpleNamespace(close=lambda: None),
        _unsubscribe=lambda: None,
        _pair_ids=None,
        _device=None,
        _opening=threading.Lock(),
        _ended=False,
        _session=None,
        _closing=None,
    )


def test_the_end_does_not_wait_for_a_session_that_is_being_opened(node, monkeypatch):
    # given a process that ends while files are read
    session = Session()

    def build_session(*_):
        ending = threading.Thread(target=SceneMemory.stop, args=(node,), daemon=True)
        ending.start()
        ending.join(10.0)
        assert not ending.is_alive()
        return session

    monkeypatch.setattr(scene_memory, "read", lambda *_: None)
    monkeypatch.setattr(scene_memory, "validate_parameters", lambda _: None)
    monkeypatch.setattr(scene_memory, "build_session", build_session)
    # when
    SceneMemory._configure(node)
    # then
    assert node._session is None
    assert session.timeouts == [0.0]


def test_the_end_waits_for_a_session_that_is_being_closed(node):
    session = node._session = Session(meanwhile=lambda: SceneMemory.stop(node))
    SceneMemory._release(node)
    assert session.timeouts == [2.0, 0.5]
    assert node._closing is None


def test_an_ask_of_a_node_that_is_not_active_is_counted(node):
    counted = []
    node._session = SimpleNamespace(questions=SimpleNamespace(count_failure=counted.append))
    node._state, node._fault = "inactive", None
    node._not_active = lambda: SceneMemory._not_active(node)
    with pytest.raises(ModelNotReadyError, match="not active but inactive"):
        SceneMemory._active_session(node)
    assert len(counted) == 1
