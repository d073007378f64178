"""Key frames and mosaics of a memory, over DDS."""

import array

import cv2
import numpy as np
import pytest
import yaml
from delayed_vlm_ros.msg import KeyFrameArray
from delayed_vlm_ros.srv import Mark
from harness import ROOT
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from waiting import wait_until

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def subscribe(client, message_type, topic, qos):
    """Return a list of the messages received from now on."""
    received = []
    client.node.create_subscription(message_type, f"scene_memory/{topic}", received.append, qos)
    return received


def test_late_subscriber_receives_the_key_frames_and_every_change(with_images):
    # given
    used = with_images.ask().frames_used
    # when
    received = subscribe(with_images, KeyFrameArray, "key_frames", LATCHED)
    # then
    wait_until(lambda: received and received[-1].key_frames == used, "the key frames")
    assert received[-1].header.stamp == used[-1].end_stamp
    # and nothing is published without a change
    count = len(received)
    with_images.wait_for_stats()
    # and a mark, images and a reset are changes
    with_images.call(Mark, "scene_memory/mark", Mark.Request(id=used[0].id, label="door"))
    wait_until(lambda: received[-1].key_frames[0].label == "door", "the mark")
    assert len(received) == count + 1
    with_images.show_images(2)
    newest = with_images.ask().frames_used[-1]
    wait_until(lambda: received[-1].key_frames[-1] == newest, "the newest pair")
    with_images.reset()
    wait_until(lambda: not received[-1].key_frames, "the empty memory")


def test_brief_event_is_published_once_later_frames_are_known(with_images):
    # given a room with an object in two images
    with_images.reset()
    received = subscribe(with_images, KeyFrameArray, "key_frames", LATCHED)
    random = np.random.default_rng(0)
    room = cv2.resize(random.uniform(50, 160, (5, 6, 3)), (128, 96), interpolation=cv2.INTER_CUBIC)

    # when
    stamps = []
    for number in range(90):
        pixels = room + random.normal(0, 3, room.shape)
        if number in (50, 51):
            pixels[40:54, 60:74] = (210, 30, 30)
        image = np.clip(pixels, 0, 255).astype(np.uint8)
        message = with_images.image(height=96, width=128, data=array.array("B", image.tobytes()))
        with_images.publish(message)
        stamps.append(message.header.stamp)

    # then
    def events():
        return [frame for frame in received[-1].key_frames if frame.reason == "brief event"]

    wait_until(lambda: received and events(), "the event among the key frames")
    (event,) = events()
    assert event.in_star
    assert event.importance > 0.4
    assert {stamps.index(event.header.stamp), stamps.index(event.end_stamp)} & {50, 51}


@pytest.mark.parametrize("topic", ["star_mosaic", "stream_mosaic"])
def test_mosaic_is_published_to_subscribers_and_shows_the_images(with_images, topic):
    # given
    with_images.reset()
    received = subscribe(with_images, Image, topic, 1)
    empty = wait_until(lambda: received and received[-1], "an empty mosaic")
    # when
    with_images.show_images(4)
    # then
    before = bytes(empty.data)
    message = wait_until(lambda: bytes(received[-1].data) != before and received[-1], "another mosaic")
    assert message.encoding == "rgb8"
    mosaic = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    assert message.width == empty.width
    assert mosaic.std() > np.frombuffer(before, np.uint8).std()


def test_rviz_file_has_existing_topics_with_compatible_qos(with_images):
    # given
    file = ROOT / "rviz" / "scene_memory.rviz"
    displays = yaml.safe_load(file.read_text(encoding="utf-8"))["Visualization Manager"]["Displays"]
    for display in displays:
        topic = with_images.namespace + display["Topic"]["Value"]
        ends = with_images.node.get_publishers_info_by_topic(topic) + with_images.node.get_subscriptions_info_by_topic(
            topic
        )
        # then
        assert {end.topic_type for end in ends} == {"sensor_msgs/msg/Image"}, topic
        reliable = all(end.qos_profile.reliability == ReliabilityPolicy.RELIABLE for end in ends)
        assert reliable or display["Topic"]["Reliability Policy"] == "Best Effort", topic
