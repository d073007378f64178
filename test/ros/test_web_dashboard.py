"""The page's node as other users of the ROS graph see it."""

import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")
pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from harness import Client, NodeProcess
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.qos import DurabilityPolicy, QoSProfile
from waiting import wait_until

from delayed_vlm_ros.ros.process_group import NODE_MODULES
from delayed_vlm_ros.web.access import TOKEN_VARIABLE
from delayed_vlm_ros.web.dashboard_node import URL_PREFIX

NAMESPACE = "/dashboard"
TOKEN = "a-token-of-the-tests"
UNKNOWN = "unknown_parameter"  # a warning at the start


@pytest.fixture(scope="module")
def graph(ros):
    """Return a client, and the texts in the ROS log since before the page's node started."""
    client = Client(NAMESPACE)
    texts = []
    lasting = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    client.node.create_subscription(Log, "/rosout", lambda message: texts.append(message.msg), lasting)
    settings = {"address": "0.0.0.0", "port": 0, UNKNOWN: 1}
    process = NodeProcess(NAMESPACE, ["-m", NODE_MODULES["web_dashboard"]], settings, {}, {TOKEN_VARIABLE: TOKEN})
    wait_until(lambda: URL_PREFIX in process.log, lambda: f"the page to start: {process.log}")
    assert TOKEN in process.log
    yield client, texts
    process.close()
    client.close()


def test_token_is_not_in_the_ros_log(graph):
    _, texts = graph
    wait_until(lambda: any(UNKNOWN in text for text in texts), "the log of the node")
    assert TOKEN not in "\n".join(texts)


def test_token_is_not_a_parameter(graph):
    client, _ = graph
    names = client.call(ListParameters, "web_dashboard/list_parameters", ListParameters.Request()).result.names
    values = client.call(GetParameters, "web_dashboard/get_parameters", GetParameters.Request(names=names)).values
    assert {value.string_value for value in values} >= {"0.0.0.0"}
    assert TOKEN not in str(values)


def test_page_has_no_client_that_resets_the_memory_or_sets_parameters(graph):
    client, _ = graph

    def clients():
        return {name for name, _ in client.node.get_client_names_and_types_by_node("web_dashboard", NAMESPACE)}

    wait_until(lambda: f"{NAMESPACE}/scene_memory/mark" in clients(), "the clients of the page")
    assert clients() == {
        *(f"{NAMESPACE}/{name}" for name in ("ask_scene", "scene_memory/mark", "scene_memory/get_frames")),
        *(f"{NAMESPACE}/scene_memory/{name}" for name in ("find_moments", "get_journal")),
        *(f"{NAMESPACE}/scene_memory/{name}" for name in ("watch", "unwatch", "list_watches")),
        *(
            f"{NAMESPACE}/{action}/_action/{name}"
            for action in ("ask_scene_stream", "scene_memory/watch_for")
            for name in ("send_goal", "cancel_goal", "get_result")
        ),
    }
