"""Close of the node during transitions, and questions to an inactive node."""

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from rclpy.logging import get_logger

from delayed_vlm_ros.errors import ModelNotReadyError
from delayed_vlm_ros.ros.scene_memory import node as scene_memory
from delayed_vlm_ros.ros.scene_memory.node import SceneMemory


class Session:
    """Records the timeouts of close; calls ``meanwhile`` during the first close."""

    def __init__(self, meanwhile=lambda: None):
        self.timeouts = []
        self.meanwhile = meanwhile

    def start(self):
        pass

    def close(self, timeout_sec):
        self.timeouts.append(timeout_sec)
        if len(self.timeouts) == 1:
            self.meanwhile()
        return True


@pytest.fixture
def node():
    """Return the parts of the node that transitions use, without a ROS graph."""
    return SimpleNamespace(
        get_clock=lambda: None,
        get_logger=lambda: get_logger("test_scene_memory_end"),
        get_parameter=lambda _: SimpleNamespace(value=False),
        resolve_topic_name=lambda name: name,
        _ask_services=SimpleNamespace(close=lambda: None),
        _unsubscribe=lambda: None,
        _pair_ids=None,
        _device_lock=None,
        _session_lock=threading.Lock(),
        _closed=False,
        _session=None,
        _closing_session=None,
    )


def test_close_does_not_wait_for_configure_and_the_new_session_is_closed(node, monkeypatch):
    # given a process that ends while configure reads files
    session = Session()

    def build_session(*_):
        closing = threading.Thread(target=SceneMemory.close, args=(node,), daemon=True)
        closing.start()
        closing.join(10.0)
        assert not closing.is_alive()
        return session

    monkeypatch.setattr(scene_memory, "read", lambda *_: None)
    monkeypatch.setattr(scene_memory, "validate_parameters", lambda _: None)
    monkeypatch.setattr(scene_memory, "build_session", build_session)
    # when
    SceneMemory._configure(node)
    # then
    assert node._session is None
    assert session.timeouts == [0.0]


def test_close_closes_a_session_that_is_being_cleaned_up(node):
    session = node._session = Session(meanwhile=lambda: SceneMemory.close(node))
    SceneMemory._close_session(node)
    assert session.timeouts == [2.0, 0.5]
    assert node._closing_session is None


def test_question_to_an_inactive_node_is_counted_as_failed(node):
    counted = []
    node._session = SimpleNamespace(ask_handler=SimpleNamespace(count_error=counted.append))
    node._state, node._error = "inactive", None
    node._not_active = lambda: SceneMemory._not_active(node)
    with pytest.raises(ModelNotReadyError, match="inactive"):
        SceneMemory._active_session(node)
    assert len(counted) == 1
