"""Every encoding over DDS: published, sampled, converted, resized and added to the memory."""

import itertools

import cv2
import pytest
from harness import Client
from image_encodings import ENCODINGS, error, image
from sensor_msgs.msg import CompressedImage, Image
from waiting import wait_until

from delayed_vlm_ros.images.conversion import make_converter
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory

RGB = image(96, 128)
GRID_HEIGHT, GRID_WIDTH = 48, 64
GEOMETRY = FrameGeometry(factor=4, min_pixels=16, max_pixels=GRID_HEIGHT * GRID_WIDTH)

stamps = itertools.count(1)


@pytest.fixture(scope="module")
def publisher(ros):
    client = Client("/encodings")
    yield client
    client.close()


@pytest.fixture(scope="module")
def cameras(ros):
    """Return cameras by message type, subscribed from another node than the publisher's."""
    client = Client("/encodings")
    made = {}
    subscriptions = []
    for message_type, topic in ((Image, "image"), (CompressedImage, "image/compressed")):
        manager = SmartFrameManager(0, 10)
        camera = made[message_type] = CameraMemory(
            "camera",
            client.node.resolve_topic_name(topic),
            client.node.resolve_topic_name("pose"),
            message_type,
            ingestor=SamplingIngestor(GEOMETRY, manager, 1000.0, topic=topic, restart_on_jump=False),
            frame_manager=manager,
            converter=make_converter(),
            poses=PoseBuffer(0.5),
            now_ns=client.now_ns,
            logger=client.node.get_logger(),
        )
        subscriptions.append(ImageSubscription(client.node, camera))
        subscriptions[-1].start()
    yield made
    for subscription in subscriptions:
        subscription.close()
    client.close()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_published_image_is_in_the_memory(publisher, cameras, encoding):
    # given a padding that is not a whole number of pixels
    message = encoding.message(RGB, padding=7)
    camera = cameras[type(message)]
    first = next(stamps)

    # when it is published until one arrives: discovery takes time
    def sampled():
        message.header.stamp.sec = next(stamps)
        publisher.publish(message, topic="image/compressed" if encoding.compressed else "image")
        frames = [frame for kept in camera.frame_manager.snapshot() for frame in kept.pair.present_frames]
        return next((frame for frame in frames if frame.stamp > first), None)

    frame = wait_until(sampled, lambda: f"an image in {encoding}; last drop reason: {camera.last_drop_reason}")

    # then
    expected = cv2.resize(encoding.seen(RGB), (GRID_WIDTH, GRID_HEIGHT), interpolation=cv2.INTER_AREA)
    assert frame.image.shape == expected.shape
    assert error(frame.image, expected) <= encoding.largest_error
