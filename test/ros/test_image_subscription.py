"""The thread that takes a camera's images: it needs nobody, follows the cameras, and ends whatever happens."""

import itertools
import threading

import pytest
import rclpy
from harness import CONTEXT
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from waiting import wait_until

from delayed_vlm_ros.ros.input import image_subscription
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.ros.input.message_delivery import ExecutorDelivery, WaitSetDelivery

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT

numbers = itertools.count(1)


class Camera:
    """Stands for a camera's memory: keeps the messages' frames."""

    message_type = Image

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic = f"/{name}/image"
        self.received = []
        self.hook = lambda: None

    def receive(self, serialised: bytes) -> None:
        self.hook()
        self.received.append(deserialize_message(serialised, Image).header.frame_id)


@pytest.fixture
def nodes(ros):
    """Makes nodes that nobody spins."""
    made = []

    def make(context=CONTEXT):
        made.append(rclpy.create_node(f"node_{next(numbers)}", context=context))
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()


@pytest.fixture
def camera():
    return Camera(f"camera_{next(numbers)}")


def threads_of(*cameras):
    names = {f"images of {camera.name}" for camera in cameras}
    return [thread for thread in threading.enumerate() if thread.name in names]


def publisher_for(node, camera, reliability=RELIABLE):
    return node.create_publisher(Image, camera.topic, QoSProfile(depth=10, reliability=reliability))


def wait_for_image(camera, publisher, frame_id):
    def arrived():
        message = Image()
        message.header.frame_id = frame_id
        publisher.publish(message)
        return frame_id in camera.received

    wait_until(arrived, f"{frame_id}; there are {set(camera.received)}")


def readers(node, camera):
    return [reader.qos_profile.reliability for reader in node.get_subscriptions_info_by_topic(camera.topic)]


def test_two_cameras_are_heard_by_a_node_that_nobody_spins_until_they_are_destroyed(nodes):
    node, sender = nodes(), nodes()
    cameras = [Camera(f"camera_{next(numbers)}") for _ in range(2)]
    publishers = [publisher_for(sender, camera) for camera in cameras]
    for _ in range(3):
        subscriptions = [ImageSubscription(node, camera) for camera in cameras]
        for subscription in subscriptions:
            subscription.start()
        for camera, publisher in zip(cameras, publishers, strict=True):
            camera.received.clear()
            wait_for_image(camera, publisher, camera.name)
        assert len(threads_of(*cameras)) == 2
        for subscription in subscriptions:
            subscription.close()
        assert threads_of(*cameras) == []
        assert list(node.subscriptions) == []
        assert [set(camera.received) for camera in cameras] == [{camera.name} for camera in cameras]


def test_an_executor_of_the_node_takes_nothing_from_it(nodes, camera):
    node, sender = nodes(), nodes()
    takers = set()
    camera.hook = lambda: takers.add(threading.current_thread().name)
    subscription = ImageSubscription(node, camera)
    subscription.start()
    executor = SingleThreadedExecutor(context=CONTEXT)
    executor.add_node(node)
    publisher = publisher_for(sender, camera)

    def arrived():
        publisher.publish(Image())
        executor.spin_once(timeout_sec=0.01)
        return len(camera.received) > 20

    wait_until(arrived, "twenty images")
    subscription.close()
    executor.shutdown()
    assert takers == {f"images of {camera.name}"}


def test_it_follows_the_reliability_of_cameras_that_come_and_go(nodes, camera):
    node, sender = nodes(), nodes()
    subscription = ImageSubscription(node, camera)
    subscription.start()
    for turn, reliability in enumerate((BEST_EFFORT, RELIABLE, BEST_EFFORT)):
        publisher = publisher_for(sender, camera, reliability)
        wait_until(lambda: readers(sender, camera) == [reliability], f"a subscription that is {reliability}")  # noqa: B023
        wait_for_image(camera, publisher, f"turn {turn}")
        sender.destroy_publisher(publisher)
    assert len(threads_of(camera)) == 1
    subscription.close()
    assert list(node.subscriptions) == []


def test_a_replacement_that_fails_leaves_the_subscription_there_is_and_is_tried_again(nodes, camera, monkeypatch):
    node, sender = nodes(), nodes()
    subscription = ImageSubscription(node, camera)
    subscription.start()
    create, fails = node.create_subscription, threading.Event()

    def refuse(*arguments, **options):
        fails.set()
        raise RuntimeError("planted")

    monkeypatch.setattr(node, "create_subscription", refuse)
    publisher = publisher_for(sender, camera)
    wait_until(fails.is_set, "an attempt")
    wait_for_image(camera, publisher, "meanwhile")
    monkeypatch.setattr(node, "create_subscription", create)
    wait_until(lambda: readers(sender, camera) == [RELIABLE], "a reliable subscription")
    wait_for_image(camera, publisher, "after it")
    subscription.close()


def test_a_defect_in_what_takes_the_images_does_not_end_it(nodes, camera, monkeypatch):
    monkeypatch.setattr(image_subscription, "_CHECK_PERIOD_SEC", 0.05)
    node, sender = nodes(), nodes()
    faults = iter(range(3))

    def fail():
        if next(faults, None) is not None:
            raise ZeroDivisionError("planted")

    camera.hook = fail
    subscription = ImageSubscription(node, camera)
    subscription.start()
    wait_for_image(camera, publisher_for(sender, camera), "after three")
    subscription.close()
    assert next(faults, None) is None


def test_an_image_at_work_holds_the_end_up_for_a_moment_only_and_the_thread_ends_behind_it(nodes, camera):
    node, sender = nodes(), nodes()
    at_work, let_go = threading.Event(), threading.Event()

    def hold():
        at_work.set()
        let_go.wait()

    camera.hook = hold
    subscription = ImageSubscription(node, camera)
    subscription.start()
    publisher = publisher_for(sender, camera)
    wait_until(lambda: publisher.publish(Image()) or at_work.is_set(), "an image")
    subscription.close()
    assert len(threads_of(camera)) == 1
    let_go.set()
    wait_until(lambda: not threads_of(camera), "the end of the thread")
    assert list(node.subscriptions) == []


@pytest.mark.parametrize("end", ["node", "context"])
def test_the_thread_ends_with_its_node_and_its_context(ros, camera, end):
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node(f"node_{next(numbers)}", context=context)
    subscription = ImageSubscription(node, camera)
    subscription.start()
    if end == "node":
        node.destroy_node()
    else:
        rclpy.shutdown(context=context)
    wait_until(lambda: not threads_of(camera), "the end of the thread")
    subscription.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_a_camera_that_cannot_be_heard_is_told_once_and_others_are_heard(start):
    # given a node that must be reliable, and a camera that is not
    topic = {"qos_overrides./unheard/image.subscription.reliability": "reliable"}
    process, client = start(namespace="/unheard", memory__sample_fps=50.0, **topic)
    client.wait_until_active()
    # when
    client.publish(client.image(), reliable=False)
    # then rclpy's own warning is there, and a reliable camera on the same topic is heard
    wait_until(lambda: "offering incompatible QoS" in process.log, lambda: f"a warning in {process.log}")
    client.show_images(2)
    assert process.log.count("offering incompatible QoS") == 1


def test_an_event_that_has_been_told_wakes_nobody_any_more(nodes, camera, monkeypatch):
    node, sender = nodes(), nodes()
    looks, waits = itertools.count(), itertools.count()
    look, spin_once = ImageSubscription._follow_publishers, WaitSetDelivery.spin_once
    monkeypatch.setattr(ImageSubscription, "_follow_publishers", lambda self, delivery: (next(looks), look(self, delivery)))
    monkeypatch.setattr(WaitSetDelivery, "spin_once", lambda self, sec: (next(waits), spin_once(self, sec)))
    node.declare_parameter(f"qos_overrides.{camera.topic}.subscription.reliability", "reliable")
    subscription = ImageSubscription(node, camera)
    subscription.start()
    publisher_for(sender, camera, BEST_EFFORT)
    wait_until(lambda: sender.get_publishers_info_by_topic(camera.topic), "the publisher")
    wait_until(lambda: next(looks) > 10, "some looks")
    subscription.close()
    assert next(waits) < 40
