"""The layout for Foxglove names topics, services and fields that the node has, with types that its panels show."""

import json
from pathlib import Path

import pytest
from waiting import wait_until

from delayed_vlm_ros import msg

LAYOUT = json.loads((Path(__file__).parents[2] / "config" / "foxglove_layout.json").read_text(encoding="utf-8"))
PANELS = LAYOUT["configById"]


def panels(kind):
    return [settings for name, settings in PANELS.items() if name.startswith(f"{kind}!")]


def names_in(tree):
    return [tree] if isinstance(tree, str) else names_in(tree["first"]) + names_in(tree["second"])


def test_every_panel_has_a_place():
    assert sorted(names_in(LAYOUT["layout"])) == sorted(PANELS)
    assert {name.partition("!")[0] for name in PANELS} == {
        *("Image", "Plot", "CallService", "RawMessages", "DiagnosticSummary"),
    }


@pytest.fixture
def type_of(with_images):
    """Return a function that returns the type of a topic of the node, as the layout names it."""

    def find(topic):
        name = topic if topic == "/diagnostics" else with_images.namespace + topic
        types = wait_until(lambda: dict(with_images.node.get_topic_names_and_types()).get(name), f"topic {name}")
        assert len(types) == 1
        return types[0]

    return find


def test_images_are_topics_of_images(type_of):
    topics = [panel["imageMode"]["imageTopic"] for panel in panels("Image")]
    assert {type_of(topic) for topic in topics} == {"sensor_msgs/msg/Image"}


def test_plots_show_numbers_of_existing_messages(type_of):
    paths = [path["value"] for panel in panels("Plot") for path in panel["paths"]]
    assert len(paths) == 8
    for path in paths:
        topic, _, field = path.partition(".")
        message = getattr(msg, type_of(topic).removeprefix("delayed_vlm_ros/msg/"))()
        assert isinstance(getattr(message, field), (int, float)), path


def test_messages_and_diagnostics_are_topics_of_the_node(type_of):
    shown = [panel["topicPath"] for panel in panels("RawMessages")]
    shown += [panel["topicToRender"] for panel in panels("DiagnosticSummary")]
    assert [type_of(topic).rpartition("/")[2] for topic in shown] == ["SceneAnswer", "Alert", "DiagnosticArray"]


def test_request_of_the_service_panel_is_answered(with_images):
    (panel,) = panels("CallService")
    services = dict(with_images.node.get_service_names_and_types())
    assert services[with_images.namespace + panel["serviceName"]] == ["delayed_vlm_ros/srv/AskScene"]
    response = with_images.ask(**json.loads(panel["requestPayload"]))
    assert response.success, response.error_msg
