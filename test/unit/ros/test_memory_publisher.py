"""What is published of the memories and when, to a node that only notes it; test/ros has the same over DDS."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import ImageFont

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output import mosaic
from delayed_vlm_ros.ros.output.memory_publisher import MemoryPublisher, topic_names

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
        self.refused = ""
        self.warnings = []

    def get_logger(self):
        return SimpleNamespace(warning=self.warnings.append)

    def create_publisher(self, _message_type, name, _quality):
        if name == self.refused:
            raise RuntimeError(f"{name} cannot be published")
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
        name=name,
        frame_manager=memory,
        header_of=lambda frame: FrameHeader(round(frame.stamp * 10**9), "lens"),
        age_sec=lambda frame: NOW_NS / 10**9 - frame.stamp,
    )


@pytest.fixture
def office():
    """A node with cameras that the test may set; ``look`` and ``draw`` are what its timers call."""
    node, cameras = NotingNode(), {"camera": camera_that_saw(5)}
    office = SimpleNamespace(node=node, cameras=cameras)
    office.parts = MemoryPublisher(node, lambda: office.cameras)
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
    office.node.publishers["~/key_frames"].listeners = 1
    published = office.node.publishers["~/key_frames"].messages
    assert [frame.id for frame in published[0].key_frames] == [1, 2, 3]
    assert (published[0].camera, published[0].header.stamp.sec, published[0].header.frame_id) == ("camera", 94, "lens")

    # when
    office.look()
    assert len(published) == 1
    memory = office.cameras["camera"].frame_manager
    for change in (lambda: memory.mark(2, "door"), lambda: memory.unmark(2), memory.reset):
        change()
        office.look()
        office.look()

    # then
    assert [len(message.key_frames) for message in published] == [3, 3, 3, 0]
    assert [message.key_frames[1].label for message in published[:3]] == ["", "door", ""]
    assert published[3].header.stamp.sec == 0


def test_while_nobody_listens_to_key_frames_every_fourth_look_counts(office):
    # given
    office.look()
    publisher = office.node.publishers["~/key_frames"]
    memory = office.cameras["camera"].frame_manager
    assert len(publisher.messages) == 1, "who comes later gets it"

    # when
    memory.mark(1, "door")
    for _ in range(3):
        office.look()
    assert len(publisher.messages) == 1
    office.look()
    assert len(publisher.messages) == 2

    # then who comes gets what has changed with the next look
    memory.mark(2, "door")
    publisher.listeners = 1
    office.look()
    assert len(publisher.messages) == 3


def test_a_topic_that_cannot_be_made_leaves_nothing_behind_and_is_tried_again(office):
    # given
    office.look()
    old = office.node.publishers["~/key_frames"]
    office.cameras = {name: camera_that_saw(3, name) for name in ("front", "rear")}
    office.node.refused = "~/rear/stream_mosaic"

    # when
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot be published"):
            office.look()
        # then
        assert old.destroyed
        assert office.node.publishers == {}
        office.draw()

    # and when it can be made
    office.node.refused = ""
    office.look()
    assert len(office.node.publishers["~/rear/key_frames"].messages) == 1


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (lambda: "a font of one size", "has no font of a given size"),
        (Mock(side_effect=ImportError("no font renderer")), "no font renderer"),
    ],
)
def test_where_nothing_can_be_drawn_it_is_told_once_and_key_frames_go_on(office, monkeypatch, failure, words):
    # given
    mosaic._font.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", failure)
    office.look()
    office.node.publishers["~/star_mosaic"].listeners = 1
    # when
    office.draw()
    office.draw()
    # then
    (warning,) = office.node.warnings
    assert words in warning
    assert "install Pillow 10.1 or newer" in warning
    assert office.node.publishers["~/star_mosaic"].messages == []
    office.cameras["camera"].frame_manager.reset()
    office.node.publishers["~/key_frames"].listeners = 1
    office.look()
    assert len(office.node.publishers["~/key_frames"].messages) == 2


def test_an_odd_number_of_frames_has_room_for_all_its_moments(office, monkeypatch):
    # given a memory of 3 frames, with a pair and half of one
    details = []
    monkeypatch.setattr(
        mosaic, "draw_mosaic", lambda _title, detail, *_: details.append(detail) or np.zeros((1, 1, 3), np.uint8)
    )
    memory = office.cameras["camera"].frame_manager = SmartFrameManager(stream_window_size=3)
    for number in range(3):
        memory.add(np.full((28, 28, 3), number * 40, np.uint8), float(number))
    office.look()
    office.node.publishers["~/stream_mosaic"].listeners = 1
    # when
    office.draw()
    # then
    assert len(details) == 1
    found, places = (int(number) for number in details[0].removesuffix(" moments").split(", ")[1].split(" of "))
    assert found <= places


def test_nothing_is_drawn_unless_somebody_listens(office, monkeypatch):
    # given
    drawn = []
    monkeypatch.setattr(mosaic, "draw_mosaic", lambda title, *_: drawn.append(title) or np.zeros((10, 20, 3), np.uint8))
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
        mosaic, "draw_mosaic", lambda *arguments: sheets.append(arguments) or np.zeros((1, 1, 3), np.uint8)
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
