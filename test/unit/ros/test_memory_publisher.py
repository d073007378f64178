"""What `MemoryPublisher` publishes and when, with a recording node; ``test/ros`` repeats it over DDS."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import ImageFont

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from delayed_vlm_ros.memory import MemoryConfig, SmartFrameManager
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output import mosaic
from delayed_vlm_ros.ros.output.memory_publisher import MemoryPublisher, topic_names

NOW_NS = 100 * 10**9


class RecordingPublisher:
    def __init__(self, name):
        self.name = name
        self.messages = []
        self.subscribers = 0
        self.destroyed = False

    def publish(self, message):
        assert not self.destroyed
        self.messages.append(message)

    def get_subscription_count(self):
        return self.subscribers


class RecordingNode:
    def __init__(self):
        self.publishers = {}
        self.callbacks = []
        self.rejected = ""
        self.warnings = []

    def get_logger(self):
        return SimpleNamespace(warning=self.warnings.append)

    def create_publisher(self, _message_type, name, _qos):
        if name == self.rejected:
            raise RuntimeError(f"{name} cannot be published")
        self.publishers[name] = RecordingPublisher(name)
        return self.publishers[name]

    def destroy_publisher(self, publisher):
        publisher.destroyed = True
        del self.publishers[publisher.name]

    def create_timer(self, _period, callback, **_details):
        self.callbacks.append(callback)
        return callback

    def destroy_timer(self, callback):
        self.callbacks.remove(callback)

    def get_clock(self):
        return SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=NOW_NS))


def camera_with(count, name="camera"):
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
def setup():
    """Return a node with cameras that the test may set; ``check`` and ``draw`` are the callbacks of its timers."""
    node, cameras = RecordingNode(), {"camera": camera_with(5)}
    setup = SimpleNamespace(node=node, cameras=cameras)
    setup.publisher = MemoryPublisher(node, lambda: setup.cameras)
    setup.publisher.start()
    setup.check, setup.draw = node.callbacks
    return setup


@pytest.mark.parametrize(
    ("camera", "cameras", "names"),
    [
        ("camera", ["camera"], ["~/star_mosaic"]),
        ("front", ["front", "rear"], ["~/star_mosaic", "~/front/star_mosaic"]),
        ("rear", ["front", "rear"], ["~/rear/star_mosaic"]),
    ],
)
def test_first_camera_has_plain_names_and_each_of_several_its_own(camera, cameras, names):
    assert topic_names("star_mosaic", camera, cameras) == names


def test_key_frames_are_published_on_change_only(setup):
    # given
    setup.check()
    setup.node.publishers["~/key_frames"].subscribers = 1
    published = setup.node.publishers["~/key_frames"].messages
    assert [frame.id for frame in published[0].key_frames] == [1, 2, 3]
    assert (published[0].camera, published[0].header.stamp.sec, published[0].header.frame_id) == ("camera", 94, "lens")

    # when
    setup.check()
    assert len(published) == 1
    memory = setup.cameras["camera"].frame_manager
    for change in (lambda: memory.mark(2, "door"), lambda: memory.unmark(2), memory.reset):
        change()
        setup.check()
        setup.check()

    # then
    assert [len(message.key_frames) for message in published] == [3, 3, 3, 0]
    assert [message.key_frames[1].label for message in published[:3]] == ["", "door", ""]
    assert published[3].header.stamp.sec == 0


def test_key_frames_without_subscribers_are_published_at_every_fourth_check(setup):
    # given
    setup.check()
    publisher = setup.node.publishers["~/key_frames"]
    memory = setup.cameras["camera"].frame_manager
    assert len(publisher.messages) == 1, "for late subscribers"

    # when
    memory.mark(1, "door")
    for _ in range(3):
        setup.check()
    assert len(publisher.messages) == 1
    setup.check()
    assert len(publisher.messages) == 2

    # then a new subscriber receives the next change at the next check
    memory.mark(2, "door")
    publisher.subscribers = 1
    setup.check()
    assert len(publisher.messages) == 3


def test_failed_topic_removes_all_topics_and_is_retried(setup):
    # given
    setup.check()
    old = setup.node.publishers["~/key_frames"]
    setup.cameras = {name: camera_with(3, name) for name in ("front", "rear")}
    setup.node.rejected = "~/rear/stream_mosaic"

    # when
    for _ in range(2):
        with pytest.raises(RuntimeError, match="stream_mosaic"):
            setup.check()
        # then
        assert old.destroyed
        assert setup.node.publishers == {}
        setup.draw()

    # and when the topic can be created
    setup.node.rejected = ""
    setup.check()
    assert len(setup.node.publishers["~/rear/key_frames"].messages) == 1


@pytest.mark.parametrize(
    ("failure", "named"),
    [
        (lambda: "a font of one size", "Pillow"),
        (Mock(side_effect=ImportError("no font renderer")), "no font renderer"),
    ],
)
def test_unusable_pillow_is_logged_once_and_key_frames_are_published(setup, monkeypatch, failure, named):
    # given
    mosaic._font.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", failure)
    setup.check()
    setup.node.publishers["~/star_mosaic"].subscribers = 1
    # when
    setup.draw()
    setup.draw()
    # then
    (warning,) = setup.node.warnings
    assert named in warning
    assert "Pillow 10.1" in warning
    assert setup.node.publishers["~/star_mosaic"].messages == []
    setup.cameras["camera"].frame_manager.reset()
    setup.node.publishers["~/key_frames"].subscribers = 1
    setup.check()
    assert len(setup.node.publishers["~/key_frames"].messages) == 2


def test_mosaic_of_an_odd_memory_size_has_a_slot_for_every_pair(setup, monkeypatch):
    # given a memory of 3 frames, with one pair and half a pair
    details = []
    monkeypatch.setattr(
        mosaic, "draw_mosaic", lambda _title, detail, *_: details.append(detail) or np.zeros((1, 1, 3), np.uint8)
    )
    memory = setup.cameras["camera"].frame_manager = SmartFrameManager(stream_window_size=3)
    for number in range(3):
        memory.add(np.full((28, 28, 3), number * 40, np.uint8), float(number))
    setup.check()
    setup.node.publishers["~/stream_mosaic"].subscribers = 1
    # when
    setup.draw()
    # then
    assert len(details) == 1
    shown, slots = (int(number) for number in details[0].removesuffix(" pairs").split(", ")[1].split(" of "))
    assert shown <= slots


def test_mosaics_are_drawn_for_subscribers_only(setup, monkeypatch):
    # given
    drawn = []
    monkeypatch.setattr(mosaic, "draw_mosaic", lambda title, *_: drawn.append(title) or np.zeros((10, 20, 3), np.uint8))
    setup.check()
    setup.draw()
    assert drawn == []

    # when
    setup.node.publishers["~/stream_mosaic"].subscribers = 1
    setup.draw()

    # then
    assert drawn == ["Stream memory"]
    (message,) = setup.node.publishers["~/stream_mosaic"].messages
    assert (message.height, message.width, message.encoding, message.step, len(message.data)) == (
        10,
        20,
        "rgb8",
        60,
        600,
    )
    assert message.header.stamp.sec == 100
    assert setup.node.publishers["~/star_mosaic"].messages == []


def test_mosaic_has_the_pairs_of_the_memory(setup, monkeypatch):
    # given
    mosaics = []
    monkeypatch.setattr(
        mosaic, "draw_mosaic", lambda *arguments: mosaics.append(arguments) or np.zeros((1, 1, 3), np.uint8)
    )
    setup.cameras["camera"].frame_manager.mark(3, "door")
    setup.check()
    setup.node.publishers["~/star_mosaic"].subscribers = 2

    # when
    setup.draw()

    # then
    ((title, detail, tiles, slots),) = mosaics
    assert (title, slots) == ("Star memory", MemoryConfig.star_memory_size // 2)
    assert detail == f"camera, {len(tiles)} of {slots} pairs"
    last = tiles[-1]
    assert (last.id, last.age_sec, last.marked, last.label) == (3, 6.0, True, "door")
    assert (tiles[0].reason, tiles[0].importance, tiles[0].age_sec) == ("first frame", 1.0, 10.0)


def test_each_of_several_cameras_has_its_topics(setup):
    # given
    setup.cameras = {name: camera_with(count, name) for name, count in (("front", 1), ("rear", 3))}

    # when
    setup.check()

    # then
    kinds = ("key_frames", "star_mosaic", "stream_mosaic")
    assert set(setup.node.publishers) == {f"~/{prefix}{kind}" for prefix in ("", "front/", "rear/") for kind in kinds}
    counts = {
        name: [len(message.key_frames) for message in publisher.messages]
        for name, publisher in setup.node.publishers.items()
        if name.endswith("key_frames")
    }
    assert counts == {"~/key_frames": [1], "~/front/key_frames": [1], "~/rear/key_frames": [2]}


def test_topics_exist_while_the_node_is_configured(setup):
    # given
    setup.check()
    before = setup.node.publishers["~/key_frames"]

    # when the node is cleaned up and configured again
    setup.cameras = {}
    setup.check()
    setup.draw()
    assert setup.node.publishers == {}
    setup.cameras = {"camera": camera_with(1)}
    setup.check()

    # then
    assert before.destroyed
    assert len(setup.node.publishers["~/key_frames"].messages) == 1


def test_close_removes_timers_and_topics(setup):
    setup.check()
    setup.publisher.close()
    assert setup.node.callbacks == []
    assert setup.node.publishers == {}
