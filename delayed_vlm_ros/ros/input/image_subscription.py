"""A subscription to a camera's images whose reliability follows the cameras that publish.

A best-effort subscription receives from every publisher, but DDS may lose most images that are larger than its
shared-memory segment (half a megabyte in Fast DDS, rmw_fastrtps #739). A reliable subscription loses none, but receives
nothing from a best-effort publisher. So this one is reliable while all publishers of its topic are, and best effort
otherwise: ROS's "best available", checked again and again, because cameras start late and are replaced.

One thread per camera takes the images (see ``message_delivery.py``) and checks the reliability, so it never waits for a
subscription that has been replaced.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterable
from typing import Any, Protocol

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.input.message_delivery import (
    ExecutorDelivery,
    MessageDelivery,
    UnsupportedDeliveryError,
    WaitSetDelivery,
)

_DEPTH = 15  # half a second at 30 Hz, for a busy machine that delays this process
_CHECK_PERIOD_SEC = 0.5
_LOG_PERIOD_SEC = 5.0
_CLOSE_TIMEOUT_SEC = 0.5  # a large image may be decoding, and the process has little time to end
_BEST_AVAILABLE = "best_available"
_RELIABILITIES = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class ImageReceiver(Protocol):
    """A camera's topic and the callback for its messages."""

    @property
    def name(self) -> str:
        """The camera's name."""

    @property
    def topic(self) -> str:
        """The resolved topic of its images."""

    @property
    def message_type(self) -> type[Any]:
        """``Image`` or ``CompressedImage``."""

    def receive(self, serialised: bytes) -> None:
        """Process one serialised message. Called from one thread at a time."""


class ImageSubscription:
    """Passes a camera's serialised messages to its receiver between ``start`` and ``close``, in a thread.

    The parameters ``qos_overrides.<topic>.subscription.{reliability, history, depth}`` change its quality of service.

    Args:
        node: The node to subscribe from. It need not be spun, except where rclpy lacks the private API of
            ``WaitSetDelivery``.
        camera: The receiver of the messages.

    Raises:
        ConfigurationError: The reliability parameter is invalid.
    """

    def __init__(self, node: Node, camera: ImageReceiver) -> None:
        self._node = node
        self._camera = camera
        self._policy = _reliability_parameter(node, camera.topic)
        self._reliability = self._best_reliability(ReliabilityPolicy.BEST_EFFORT)
        self._closing = threading.Event()
        self._delivery: MessageDelivery | None = None
        self._thread = threading.Thread(target=self._run, name=f"images of {camera.name}", daemon=True)

    def start(self) -> None:
        """Subscribe and start the thread.

        Raises:
            ConfigurationError: The history or depth parameter is invalid.
        """
        try:
            self._subscribe_with(WaitSetDelivery(self._node.context))
        except UnsupportedDeliveryError as error:
            self._node.get_logger().warning(
                f"camera {self._camera.name}: this release of rclpy has no usable wait sets ({error}): the executor "
                "delivers the images, which needs more processor time"
            )
            self._subscribe_with(ExecutorDelivery())
        self._thread.start()

    def close(self, timeout_sec: float = _CLOSE_TIMEOUT_SEC) -> None:
        """Unsubscribe. The thread does so itself when it has finished its image, even after the timeout.

        Args:
            timeout_sec: Longest time to wait for the thread, in seconds.
        """
        self._closing.set()
        if self._delivery is None:
            return
        self._delivery.wake()
        self._thread.join(timeout_sec)
        self._delivery.close()

    def _subscribe_with(self, delivery: MessageDelivery) -> None:
        subscription = self._subscribe(self._reliability, delivery.callback_group)
        try:
            delivery.attach(subscription)
        except UnsupportedDeliveryError:
            self._node.destroy_subscription(subscription)
            delivery.close()
            raise
        self._subscription, self._delivery = subscription, delivery

    def _run(self) -> None:
        delivery = self._delivery
        assert delivery is not None  # noqa: S101  start() sets it before it starts this thread
        while self._is_open():
            try:
                self._follow_publishers(delivery)
                self._deliver_until(delivery, time.monotonic() + _CHECK_PERIOD_SEC)
            except InvalidHandle:
                break  # the node has been destroyed
            except Exception:  # noqa: BLE001  a defect must not end the subscription
                if self._is_open():
                    self._node.get_logger().error(
                        f"camera {self._camera.name}: receiving images failed: {traceback.format_exc()}",
                        throttle_duration_sec=_LOG_PERIOD_SEC,
                    )
                    self._closing.wait(_CHECK_PERIOD_SEC)
        self._node.destroy_subscription(self._subscription)

    def _is_open(self) -> bool:
        return not self._closing.is_set() and self._node.context.ok()

    def _deliver_until(self, delivery: MessageDelivery, deadline: float) -> None:
        while self._is_open() and (remaining_sec := deadline - time.monotonic()) > 0:
            delivery.spin_once(remaining_sec)

    def _follow_publishers(self, delivery: MessageDelivery) -> None:
        """Replace the subscription if another reliability suits the present publishers."""
        reliability = self._best_reliability(self._reliability)
        if reliability == self._reliability:
            return
        try:
            subscription = self._subscribe(reliability, delivery.callback_group)
        except ConfigurationError as error:  # the present subscription stays, and the next check tries again
            self._node.get_logger().error(str(error), throttle_duration_sec=_LOG_PERIOD_SEC)
            return
        replaced, self._subscription = self._subscription, subscription
        delivery.attach(subscription)
        self._reliability = reliability
        self._node.destroy_subscription(replaced)
        if reliability == ReliabilityPolicy.BEST_EFFORT:
            # rclpy has warned of the new publisher, with the words "No messages will be received from it".
            self._node.get_logger().info(
                f"camera {self._camera.name}: now subscribed as best effort, so the best-effort publisher of "
                f"{self._camera.topic} is received: an earlier warning of incompatible QoS no longer applies"
            )

    def _best_reliability(self, present: ReliabilityPolicy) -> ReliabilityPolicy:
        if self._policy != _BEST_AVAILABLE:
            return _RELIABILITIES[self._policy]
        publishers = self._node.get_publishers_info_by_topic(self._camera.topic)
        return best_reliability((publisher.qos_profile.reliability for publisher in publishers), present)

    def _subscribe(self, reliability: ReliabilityPolicy, group: CallbackGroup) -> Subscription[Any]:
        try:
            return self._node.create_subscription(
                self._camera.message_type,
                self._camera.topic,
                self._camera.receive,
                QoSProfile(reliability=reliability, history=HistoryPolicy.KEEP_LAST, depth=_DEPTH),
                callback_group=group,
                qos_overriding_options=QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]),
                raw=True,
            )
        except Exception as error:  # rclpy has no common class for the errors of invalid overrides
            raise ConfigurationError(
                f"cannot subscribe to {self._camera.topic} ({error}): check the qos_overrides parameters"
            ) from error


def best_reliability(offers: Iterable[ReliabilityPolicy], present: ReliabilityPolicy) -> ReliabilityPolicy:
    """Return the most reliable policy that receives from all publishers.

    Args:
        offers: Policies of the publishers.
        present: The policy to return while there are no publishers.
    """
    offered = set(offers)
    if not offered:
        return present
    return ReliabilityPolicy.RELIABLE if offered == {ReliabilityPolicy.RELIABLE} else ReliabilityPolicy.BEST_EFFORT


def _reliability_parameter(node: Node, topic: str) -> str:
    name = f"qos_overrides.{topic}.subscription.reliability"
    choices = (_BEST_AVAILABLE, *_RELIABILITIES)
    if not node.has_parameter(name):
        descriptor = ParameterDescriptor(
            description=f"Reliability of the subscription to {topic}; {_BEST_AVAILABLE} follows the publishers",
            additional_constraints=f"one of: {', '.join(choices)}",
            read_only=True,
        )
        node.declare_parameter(name, _BEST_AVAILABLE, descriptor)
    policy = str(node.get_parameter(name).value)
    if policy not in choices:
        raise ConfigurationError(f"parameter {name} must be one of {', '.join(choices)}, got '{policy}'")
    return policy
