"""A subscription to a camera's images whose reliability follows the cameras there are.

A best-effort subscription hears every publisher, but DDS may lose most images that are larger than its shared-memory
segment (half a megabyte in Fast DDS, rmw_fastrtps #739). A reliable one loses none, but hears nothing from a
best-effort publisher. So this one is reliable while all publishers of its topic are, else best effort: what ROS calls
"best available", but looked at again and again, as cameras may start late or be replaced.

Sixty images a second are too many for the node's executor, so a thread takes them: see ``subscription_wait.py``. It
also does the looking, so that it never waits for a subscription that has been replaced.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterable

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.ros.input.subscription_wait import SubscriptionWait, UnexecutedGroup
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory

_DEPTH = 15  # half a second at 30 Hz, for a busy machine that lets us wait
_LOOK_EVERY_SEC = 0.5
_LOG_EVERY_SEC = 5.0
_JOIN_TIMEOUT_SEC = 0.5  # a large image may be at work; the end of the process has little time
_FOLLOWING = "best_available"
_FIXED = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}


class ImageSubscription:
    """Hands a camera's serialised messages to its memory, in a thread, from construction until ``destroy``.

    The parameters ``qos_overrides.<topic>.subscription.{reliability, history, depth}`` change its quality of service.

    Args:
        node: The node to subscribe from; it need not be spun.
        camera: Where the messages go.

    Raises:
        ConfigurationError: The parameters do not make sense.
    """

    def __init__(self, node: Node, camera: CameraMemory) -> None:
        self._node = node
        self._camera = camera
        self._group = UnexecutedGroup()
        self._wanted = _reliability_parameter(node, camera.topic)
        self._reliability = self._best_reliability(ReliabilityPolicy.BEST_EFFORT)
        self._ending = threading.Event()
        self._waking = GuardCondition(None, None, node.context)
        self._subscription = self._subscribe(self._reliability)
        self._wait = SubscriptionWait(self._subscription, self._waking, node.context)
        self._thread = threading.Thread(target=self._run, name=f"images of {camera.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take no more messages."""
        self._ending.set()
        self._waking.trigger()
        # The thread destroys the subscription itself, however long it may still take.
        self._thread.join(_JOIN_TIMEOUT_SEC)
        self._waking.destroy()

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._look()
                self._take_until(time.monotonic() + _LOOK_EVERY_SEC)
            except InvalidHandle:
                break  # the node has been destroyed
            except Exception:  # noqa: BLE001  a defect must not end the subscription
                if self._goes_on():
                    self._node.get_logger().error(traceback.format_exc(), throttle_duration_sec=_LOG_EVERY_SEC)
                    self._ending.wait(_LOOK_EVERY_SEC)
        self._node.destroy_subscription(self._subscription)

    def _goes_on(self) -> bool:
        return not self._ending.is_set() and self._node.context.ok()

    def _take_until(self, end: float) -> None:
        while self._goes_on() and (remaining_sec := end - time.monotonic()) > 0:
            self._wait.spin_once(remaining_sec)

    def _look(self) -> None:
        reliability = self._best_reliability(self._reliability)
        if reliability == self._reliability:
            return
        try:
            subscription = self._subscribe(reliability)
        except ConfigurationError as error:  # the one there is remains, and the next look tries again
            self._node.get_logger().error(str(error), throttle_duration_sec=_LOG_EVERY_SEC)
            return
        replaced, self._subscription = self._subscription, subscription
        self._wait = SubscriptionWait(subscription, self._waking, self._node.context)
        self._reliability = reliability
        self._node.destroy_subscription(replaced)

    def _best_reliability(self, present: ReliabilityPolicy) -> ReliabilityPolicy:
        if self._wanted != _FOLLOWING:
            return _FIXED[self._wanted]
        publishers = self._node.get_publishers_info_by_topic(self._camera.topic)
        return best_reliability((publisher.qos_profile.reliability for publisher in publishers), present)

    def _subscribe(self, reliability: ReliabilityPolicy) -> Subscription:
        try:
            return self._node.create_subscription(
                self._camera.message_type,
                self._camera.topic,
                self._camera.receive,
                QoSProfile(reliability=reliability, history=HistoryPolicy.KEEP_LAST, depth=_DEPTH),
                callback_group=self._group,
                qos_overriding_options=QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]),
                raw=True,
            )
        except Exception as error:  # rclpy has no common class for what overrides can cause
            raise ConfigurationError(
                f"cannot subscribe to {self._camera.topic} ({error}): check the qos_overrides parameters"
            ) from error


def best_reliability(offers: Iterable[ReliabilityPolicy], present: ReliabilityPolicy) -> ReliabilityPolicy:
    """The most reliable policy that hears all publishers; the ``present`` one while there are none."""
    offered = set(offers)
    if not offered:
        return present
    return ReliabilityPolicy.RELIABLE if offered == {ReliabilityPolicy.RELIABLE} else ReliabilityPolicy.BEST_EFFORT


def _reliability_parameter(node: Node, topic: str) -> str:
    name = f"qos_overrides.{topic}.subscription.reliability"
    if not node.has_parameter(name):
        description = f"reliability of the subscription to {topic}; {_FOLLOWING}: as its publishers"
        choices = (_FOLLOWING, *_FIXED)
        descriptor = ParameterDescriptor(
            description=description, additional_constraints=f"one of: {', '.join(choices)}", read_only=True
        )
        node.declare_parameter(name, _FOLLOWING, descriptor)
    wanted = str(node.get_parameter(name).value)
    if wanted != _FOLLOWING and wanted not in _FIXED:
        raise ConfigurationError(f"parameter {name} is '{wanted}'; it must be one of {_FOLLOWING}, {', '.join(_FIXED)}")
    return wanted
