"""Image subscriptions over DDS, with both deliveries: a wait set of their own, and the executor of the node."""

import itertools
import threading
from types import SimpleNamespace

import pytest
import rclpy
from harness import CONTEXT, Spinning
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from waiting import wait_until

from delayed_vlm_ros.ros.input import image_subscription
from delayed_vlm_ros.ros.input.image_subscription import ImageSubscription
from delayed_vlm_ros.ros.input.message_delivery import ExecutorDelivery, UnsupportedDeliveryError, WaitSetDelivery

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT

numbers = itertools.count(1)


class Camera:
    """Receiver that records the frame_ids of its messages."""

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
    """Return a function that creates nodes, which are not spun."""
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


@pytest.fixture(params=["wait set", "executor"])
def subscriber(nodes, request, monkeypatch):
    """Return a node for subscriptions with either delivery; it is spun only where the delivery needs it."""
    node = nodes()
    if request.param == "wait set":
        yield node
        return
    monkeypatch.setattr(image_subscription, "WaitSetDelivery", unsupported)
    spinning = Spinning(node)
    yield node
    spinning.close()


def unsupported(_context):
    raise UnsupportedDeliveryError("planted")


def subscribe(node, camera):
    subscription = ImageSubscription(node, camera)
    subscription.start()
    return subscription


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

    wait_until(arrived, f"{frame_id}; received: {set(camera.received)}")


def readers(node, camera):
    return [reader.qos_profile.reliability for reader in node.get_subscriptions_info_by_topic(camera.topic)]


def test_two_cameras_are_received_until_close(subscriber, nodes):
    sender = nodes()
    cameras = [Camera(f"camera_{next(numbers)}") for _ in range(2)]
    publishers = [publisher_for(sender, camera) for camera in cameras]
    for _ in range(3):
        subscriptions = [subscribe(subscriber, camera) for camera in cameras]
        for camera, publisher in zip(cameras, publishers, strict=True):
            camera.received.clear()
            wait_for_image(camera, publisher, camera.name)
        assert len(threads_of(*cameras)) == 2
        for subscription in subscriptions:
            subscription.close()
        assert threads_of(*cameras) == []
        assert list(subscriber.subscriptions) == []
        assert [set(camera.received) for camera in cameras] == [{camera.name} for camera in cameras]


def test_reliability_follows_cameras_that_come_and_go(subscriber, nodes, camera):
    sender = nodes()
    subscription = subscribe(subscriber, camera)
    for turn, reliability in enumerate((BEST_EFFORT, RELIABLE, BEST_EFFORT)):
        publisher = publisher_for(sender, camera, reliability)
        wait_until(lambda: readers(sender, camera) == [reliability], f"a subscription that is {reliability}")  # noqa: B023
        wait_for_image(camera, publisher, f"turn {turn}")
        sender.destroy_publisher(publisher)
    assert len(threads_of(camera)) == 1
    subscription.close()
    assert list(subscriber.subscriptions) == []


def test_failed_replacement_keeps_the_subscription_and_is_retried(subscriber, nodes, camera, monkeypatch):
    sender = nodes()
    subscription = subscribe(subscriber, camera)
    create, fails = subscriber.create_subscription, threading.Event()

    def fail(*_arguments, **_options):
        fails.set()
        raise RuntimeError("planted")

    monkeypatch.setattr(subscriber, "create_subscription", fail)
    publisher = publisher_for(sender, camera)
    wait_until(fails.is_set, "an attempt")
    wait_for_image(camera, publisher, "meanwhile")
    monkeypatch.setattr(subscriber, "create_subscription", create)
    wait_until(lambda: readers(sender, camera) == [RELIABLE], "a reliable subscription")
    wait_for_image(camera, publisher, "after it")
    subscription.close()


def test_subscription_can_be_closed_before_it_is_started(subscriber, camera):
    ImageSubscription(subscriber, camera).close()
    assert threads_of(camera) == []


def test_wait_set_takes_no_message_in_an_executor(nodes, camera):
    node, sender = nodes(), nodes()
    takers = set()
    camera.hook = lambda: takers.add(threading.current_thread().name)
    subscription = subscribe(node, camera)
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


def test_exception_in_the_receiver_does_not_end_the_subscription(nodes, camera, monkeypatch):
    monkeypatch.setattr(image_subscription, "_CHECK_PERIOD_SEC", 0.05)
    node, sender = nodes(), nodes()
    failures = iter(range(3))

    def fail():
        if next(failures, None) is not None:
            raise ZeroDivisionError("planted")

    camera.hook = fail
    subscription = subscribe(node, camera)
    wait_for_image(camera, publisher_for(sender, camera), "after three")
    subscription.close()
    assert next(failures, None) is None


def test_close_times_out_while_an_image_is_decoding(nodes, camera):
    node, sender = nodes(), nodes()
    decoding, proceed = threading.Event(), threading.Event()

    def block():
        decoding.set()
        proceed.wait()

    camera.hook = block
    subscription = subscribe(node, camera)
    publisher = publisher_for(sender, camera)
    wait_until(lambda: publisher.publish(Image()) or decoding.is_set(), "an image")
    subscription.close()
    assert len(threads_of(camera)) == 1
    proceed.set()
    wait_until(lambda: not threads_of(camera), "the end of the thread")
    assert list(node.subscriptions) == []


@pytest.mark.parametrize("delivery", ["wait set", "executor"])
@pytest.mark.parametrize("end", ["node", "context"])
def test_thread_ends_with_its_node_and_its_context(ros, camera, end, delivery, monkeypatch):
    if delivery == "executor":
        monkeypatch.setattr(image_subscription, "WaitSetDelivery", unsupported)
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node(f"node_{next(numbers)}", context=context)
    subscription = subscribe(node, camera)
    if end == "node":
        node.destroy_node()
    else:
        rclpy.shutdown(context=context)
    wait_until(lambda: not threads_of(camera), "the end of the thread")
    subscription.close()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


def test_incompatible_camera_is_logged_once_and_others_are_received(start):
    # given a node that must be reliable, and a best-effort camera
    topic = {"qos_overrides./unheard/image.subscription.reliability": "reliable"}
    process, client = start(namespace="/unheard", memory__sample_fps=50.0, **topic)
    client.wait_until_active()
    # when
    client.publish(client.image(), reliable=False)
    # then rclpy's own warning is in the log, and a reliable camera on the same topic is received
    wait_until(lambda: "offering incompatible QoS" in process.log, lambda: f"a warning in {process.log}")
    client.show_images(2)
    assert process.log.count("offering incompatible QoS") == 1


def test_warning_of_a_camera_that_returns_as_best_effort_is_corrected(start):
    # given a reliable camera
    process, client = start(namespace="/returned", memory__sample_fps=50.0)
    client.wait_until_active()
    client.show_images(1)
    assert "no longer applies" not in process.log
    # when a best-effort camera replaces it
    client.publish(client.image(), reliable=False)
    # then the line that calls it incompatible is corrected
    wait_until(lambda: "an earlier warning of incompatible QoS no longer applies" in process.log, lambda: process.log)


def test_handled_event_does_not_wake_the_thread_again(nodes, camera, monkeypatch):
    node, sender = nodes(), nodes()
    checks, waits = itertools.count(), itertools.count()
    check, spin_once = ImageSubscription._follow_publishers, WaitSetDelivery.spin_once
    monkeypatch.setattr(
        ImageSubscription, "_follow_publishers", lambda self, delivery: (next(checks), check(self, delivery))
    )
    monkeypatch.setattr(WaitSetDelivery, "spin_once", lambda self, sec: (next(waits), spin_once(self, sec)))
    node.declare_parameter(f"qos_overrides.{camera.topic}.subscription.reliability", "reliable")
    subscription = subscribe(node, camera)
    publisher_for(sender, camera, BEST_EFFORT)
    wait_until(lambda: sender.get_publishers_info_by_topic(camera.topic), "the publisher")
    wait_until(lambda: next(checks) > 10, "some checks")
    subscription.close()
    assert next(waits) < 40


# Choice of the delivery


def test_wait_set_is_chosen_where_rclpy_supports_it(nodes, camera):
    subscription = subscribe(nodes(), camera)
    assert type(subscription._delivery) is WaitSetDelivery
    subscription.close()


def test_executor_is_chosen_where_a_wait_set_cannot_be_built(nodes, camera, monkeypatch):
    with monkeypatch.context() as patched:
        patched.delattr(rclpy_implementation, "WaitSet")
        subscription = subscribe(nodes(), camera)
    assert type(subscription._delivery) is ExecutorDelivery
    subscription.close()


def test_executor_is_chosen_where_a_wait_set_does_not_accept_the_subscription(nodes, camera, monkeypatch):
    node = nodes()
    attached = []

    def reject(_delivery, subscription):
        attached.append(subscription)
        raise UnsupportedDeliveryError("planted")

    monkeypatch.setattr(WaitSetDelivery, "attach", reject)
    subscription = subscribe(node, camera)
    assert type(subscription._delivery) is ExecutorDelivery
    assert len(attached) == len(list(node.subscriptions)) == 1
    assert list(node.subscriptions) != attached
    subscription.close()


def test_wait_set_rejects_a_subscription_without_the_private_attributes(ros):
    delivery = WaitSetDelivery(CONTEXT)
    with pytest.raises(UnsupportedDeliveryError, match="event_handlers"):
        delivery.attach(SimpleNamespace(handle=None))
    delivery.close()
