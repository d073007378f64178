"""Close of the node during transitions, questions to an inactive node, and topics of another type."""

import threading
from dataclasses import make_dataclass
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from geometry_msgs.msg import PoseStamped
from rclpy.logging import get_logger
from sensor_msgs.msg import Image

from delayed_vlm_ros.errors import ModelNotReadyError
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.scene_memory import node as scene_memory
from delayed_vlm_ros.ros.scene_memory.node import SceneMemory


class Session:
    """Records the timeouts of close; calls ``meanwhile`` during the first close."""

    def __init__(self, meanwhile=lambda: None):
        self.timeouts = []
        self.meanwhile = meanwhile
        self.watches = SimpleNamespace(deactivate=lambda: None)

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
        _watch_services=SimpleNamespace(close=lambda: None, publish_alert=None),
        _watches_of_file=lambda _: (),
        _unsubscribe=lambda: None,
        _deactivate=lambda: None,
        _alert_ids=None,
        _end_process=lambda _: None,
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


def test_each_topic_of_another_type_is_logged_once(node):
    # given a camera whose image and pose topics have other types
    found = {"/image": "sensor_msgs/msg/CompressedImage", "/pose": "nav_msgs/msg/Odometry"}
    node.get_publishers_info_by_topic = lambda topic: [SimpleNamespace(topic_type=found[topic])]
    logged, node._logged_faults = [], set()
    node.get_logger = lambda: SimpleNamespace(warning=logged.append)
    empty = make_dataclass("Report", ["image_topic_fault", "pose_topic_fault"])("", "")
    camera = SimpleNamespace(
        name="front", topic="/image", message_type=Image, pose_topic="/pose", poses=PoseBuffer(1.0, PoseStamped)
    )
    camera.report = lambda *, receiving: empty
    # when
    reports = [SceneMemory._camera_report(node, camera, receiving=True) for _ in range(3)]
    # then
    assert sorted(logged) == sorted(
        f"camera front: {fault}" for fault in (reports[0].image_topic_fault, reports[0].pose_topic_fault)
    )
    assert all(found[topic] in "".join(logged) for topic in found)
    assert reports[2] == reports[0]
