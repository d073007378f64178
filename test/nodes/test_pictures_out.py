"""What is published of the memories and when, to a node that only notes it; test/ros has the same over DDS."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.nodes import pictures_out
from delayed_vlm_ros.nodes.camera_memory import FrameHeader
from delayed_vlm_ros.nodes.pictures_out import PicturesOut, topic_names

NOW_NS = 100 * 10**9


class NotedPublisher:
    def __init__(self, name):
        self.name = name
        self.messages = []
        self.listeners = 0
        self.destroyed = False

    def publish(self, message):
        assert not self.destroyed
        self.messages.append(message)

    def get_subscription_count(self):
        return self.listeners


class NotingNode:
    def __init__(self):
        self.publishers = {}
        self.callbacks = []

    def create_publisher(self, _message_type, name, _quality):
        self.publishers[name] = NotedPublisher(name)
        return self.publishers[name]

    def destroy_publisher(self, publisher):
        publisher.destroyed = True
        del self.publishers[publisher.name]

    def create_timer(self, _period, callback, **_details):
        self.callbacks.append(callback)

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=NOW_NS))


def camera_that_saw(count, name="camera"):
    memory = SmartFrameManager()
    for number in range(count):
        memory.add(np.full((28, 28, 3), number * 40 % 256, np.uint8), 90.0 + number)
    return SimpleNamespace(
        name=name, frame_manager=memory, header_of=lambda stamp: FrameHeader(round(stamp * 10**9), "lens")
    )


@pytest.fixture
def office():
    """A node with cameras that the test may set; ``look`` and ``draw`` are what its timers call."""
    node, cameras = NotingNode(), {"camera": camera_that_saw(5)}
    office = SimpleNamespace(node=node, cameras=cameras)
    office.parts = PicturesOut(node, lambda: office.cameras)
    office.look, office.draw = node.callbacks
    return office


@pytest.mark.parametrize(
    ("camera", "cameras", "names"),
    [
        ("camera", ["camera"], ["~/star_mosaic"]),
        ("front", ["front", "rear"], ["~/star_mosaic", "~/front/star_mosaic"]),
        ("rear", ["front", "rear"], ["~/rear/star_mosaic"]),
    ],
)
def test_the_first_camera_has_the_plain_names_and_of_several_each_its_own(camera, cameras, names):
    assert topic_names("star_mosaic", camera, cameras) == names


def test_key_frames_are_published_when_something_has_changed_and_else_not(office):
    # given
    office.look()
    published = office.node.publishers["~/key_frames"].messages
    assert [frame.id for frame in published[0].key_frames] == [1, 2, 3]
    assert (published[0].camera, published[0].header.stamp.sec, published[0].header.frame_id) == ("camera", 94, "lens")

    # when
    office.look()
    assert len(published) == 1
    memory = office.cameras["camera"].frame_manager
    for change in (lambda: memory.mark(2, "door"), lambda: memory.unmark(2), memory.clear):
        change()
        office.look()
        office.look()

    # then
    assert [len(message.key_frames) for message in published] == [3, 3, 3, 0]
    assert [message.key_frames[1].label for message in published[:3]] == ["", "door", ""]
    assert published[3].header.stamp.sec == 0


def test_nothing_is_drawn_unless_somebody_listens(office, monkeypatch):
    # given
    drawn = []
    monkeypatch.setattr(
        pictures_out, "draw_mosaic", lambda title, *_: drawn.append(title) or np.zeros((10, 20, 3), np.uint8)
    )
    office.look()
    office.draw()
    assert drawn == []

    # when
    office.node.publishers["~/stream_mosaic"].listeners = 1
    office.draw()

    # then
    assert drawn == ["Stream memory"]
    (message,) = office.node.publishers["~/stream_mosaic"].messages
    assert (message.height, message.width, message.encoding, message.step, len(message.data)) == (
        10,
        20,
        "rgb8",
        60,
        600,
    )
    assert message.header.stamp.sec == 100
    assert office.node.publishers["~/star_mosaic"].messages == []


def test_a_mosaic_tells_of_its_moments(office, monkeypatch):
    # given
    sheets = []
    monkeypatch.setattr(
        pictures_out, "draw_mosaic", lambda *arguments: sheets.append(arguments) or np.zeros((1, 1, 3), np.uint8)
    )
    office.cameras["camera"].frame_manager.mark(3, "door")
    office.look()
    office.node.publishers["~/star_mosaic"].listeners = 2

    # when
    office.draw()

    # then
    ((title, detail, tiles, places),) = sheets
    assert (title, places) == ("Star memory", 10)
    assert detail == f"camera, {len(tiles)} of 10 moments"
    last = tiles[-1]
    assert (last.id, last.age_sec, last.marked, last.label) == (3, 6.0, True, "door")
    assert (tiles[0].reason, tiles[0].importance, tiles[0].age_sec) == ("first frame", 1.0, 10.0)


def test_each_of_several_cameras_has_its_topics(office):
    # given
    office.cameras = {name: camera_that_saw(count, name) for name, count in (("front", 1), ("rear", 3))}

    # when
    office.look()

    # then
    kinds = ("key_frames", "star_mosaic", "stream_mosaic")
    assert set(office.node.publishers) == {f"~/{place}{kind}" for place in ("", "front/", "rear/") for kind in kinds}
    counts = {
        name: [len(message.key_frames) for message in publisher.messages]
        for name, publisher in office.node.publishers.items()
        if name.endswith("key_frames")
    }
    assert counts == {"~/key_frames": [1], "~/front/key_frames": [1], "~/rear/key_frames": [2]}


def test_topics_come_and_go_with_the_cameras(office):
    # given
    office.look()
    before = office.node.publishers["~/key_frames"]

    # when it is cleaned up and configured again
    office.cameras = {}
    office.look()
    office.draw()
    assert office.node.publishers == {}
    office.cameras = {"camera": camera_that_saw(1)}
    office.look()

    # then
    assert before.destroyed
    assert len(office.node.publishers["~/key_frames"].messages) == 1
