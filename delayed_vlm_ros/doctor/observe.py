"""Look at the ROS graph: nodes, image topics, clocks, and the node's parameters, state and reports. Runs in a child."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import asdict, replace
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

import delayed_vlm_ros.msg
from delayed_vlm_ros.doctor.observation import (
    IMAGE_TYPES,
    Camera,
    ClockTopic,
    DiagnosticLine,
    Observation,
    Topic,
)
from delayed_vlm_ros.doctor.ros_node import NODE_NAME, doctor_node
from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE
from delayed_vlm_ros.ros.scene_memory.parameters import COMPRESSED
from delayed_vlm_ros.time import nanoseconds_of, read_stamp

_DISCOVERY_SEC = 1.5
_MORE_DISCOVERY_SEC = 2.5  # for what is still missing: the node, or its diagnostics (one a second)
_CAMERA_DISCOVERY_SEC = 4.0  # Fast DDS repeats a lost announcement of a publisher after 3 s
_SERVICE_SHARE = 6  # of the time limit: a node that imports torch answers late
_MEASURE_SEC = 2.0
_MAX_MEASURED = 4  # topics other than the node's: a robot's network carries no needless images
_MAX_MESSAGES = 2000
_MESSAGES = {RAW_TYPE: Image, COMPRESSED_TYPE: CompressedImage}
_STATISTICS = ("delayed_vlm_ros/msg/MemoryStats", "delayed_vlm_ros/msg/NodeStats")
_RELIABLE = "reliable"
_FAST_DDS = bytes((0x01, 0x0F))  # vendor in the identifier of an endpoint
_BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)  # receives from every publisher


def observe(namespace: str, timeout_sec: float) -> dict[str, Any]:
    """Observe the graph for some seconds; return an ``Observation`` as plain values.

    Args:
        namespace: Namespace of the node.
        timeout_sec: Time limit of this process in seconds, longer on a busy machine; a service gets a sixth of it.
    """
    with doctor_node(namespace) as (node, executor):
        return asdict(_Observer(node, executor, timeout_sec / _SERVICE_SHARE).observe())


class _Observer:
    def __init__(self, node: Node, executor: SingleThreadedExecutor, service_timeout_sec: float) -> None:
        self._node = node
        self._executor = executor
        self._service_timeout_sec = service_timeout_sec
        self._node_name: str = node.resolve_topic_name("scene_memory")
        self._page_name: str = node.resolve_topic_name("web_dashboard")
        self._diagnostics: dict[str, DiagnosticLine] = {}
        self._clock_times: list[int] = []
        self._reports: dict[str, list[Any]] = defaultdict(list)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        node.create_subscription(Clock, "/clock", self._on_clock, _BEST_EFFORT)

    def observe(self) -> Observation:
        """Discover, query the node, then receive images and reports."""
        self._spin(_DISCOVERY_SEC)
        self._spin(_MORE_DISCOVERY_SEC, lambda: bool(self._diagnostics) and self._node_name in self._node_names())
        nodes = self._node_names()
        runs = self._node_name in nodes
        parameters = self._parameters(self._node_name) if runs else None
        seen = Observation(
            middleware=rclpy.get_rmw_implementation_identifier(),
            node_name=self._node_name,
            nodes=nodes,
            state=self._state() if parameters is not None else "",
            parameters=parameters,
            page_parameters=self._parameters(self._page_name) if self._page_name in nodes else None,
            cameras=self._cameras(parameters) if parameters is not None else (),
        )
        wanted = {camera.topic for camera in seen.cameras}
        self._spin(_CAMERA_DISCOVERY_SEC, lambda: all(self._publishers(topic) for topic in wanted))
        topics = self._measured(self._topics(wanted), wanted)
        clock = ClockTopic(self._publishers("/clock"), tuple(self._clock_times))
        diagnostics = tuple(self._diagnostics.values())
        return replace(seen, topics=topics, clock=clock, diagnostics=diagnostics, reports=dict(self._reports))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        prefix = f"{self._node_name.lstrip('/')}: "
        mine = [status for status in message.status if status.name.startswith(prefix)]
        for status in mine:
            values = {pair.key: pair.value for pair in status.values}
            line = DiagnosticLine(status.name.removeprefix(prefix), _level(status.level), status.message, values)
            self._diagnostics[line.name] = line
        if mine:
            self._note("/diagnostics", {"stamp_ns": nanoseconds_of(message.header.stamp), "status": _plain(mine)})

    def _on_clock(self, message: Clock) -> None:
        self._clock_times[1:] = [
            nanoseconds_of(message.clock)
        ]  # first and newest: a simulation publishes 1000 a second

    def _note(self, topic: str, report: Any) -> None:
        if len(self._reports[topic]) < _MAX_MESSAGES:
            self._reports[topic].append(report)

    def _spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0 and not until():
            self._executor.spin_once(timeout_sec=min(remaining, 0.1))

    # The graph ------------------------------------------------------------------------------------------------------

    def _node_names(self) -> tuple[str, ...]:
        found = self._node.get_node_names_and_namespaces()
        names = [f"{namespace.rstrip('/')}/{name}" for name, namespace in found if not name.startswith(NODE_NAME)]
        return tuple(sorted(names))

    def _publishers(self, topic: str) -> tuple[str, ...]:
        return tuple(_full_name(one) for one in self._node.get_publishers_info_by_topic(topic))

    def _topics(self, wanted: Set[str]) -> list[Topic]:
        found = dict(self._node.get_topic_names_and_types())
        own = f"{self._node_name}/"  # mosaics of the memory
        images = {name for name, types in found.items() if set(types) & set(IMAGE_TYPES) and not name.startswith(own)}
        return [self._topic(name, tuple(found[name])) for name in sorted(images | (wanted & set(found)))]

    def _topic(self, name: str, types: tuple[str, ...]) -> Topic:
        offers = self._node.get_publishers_info_by_topic(name)
        # The node's own subscription has a type, too: only what is published counts.
        published = tuple(dict.fromkeys(offer.topic_type for offer in offers)) or types
        reliabilities = {offer.qos_profile.reliability for offer in offers}
        return Topic(
            name,
            published,
            tuple(_full_name(offer) for offer in offers),
            " and ".join(sorted(one.name.lower().replace("_", " ") for one in reliabilities)),
            self._incompatible(name, offers),
            is_remote=any(_is_remote(bytes(offer.endpoint_gid), self._own_gid()) for offer in offers),
        )

    def _own_gid(self) -> bytes:
        """Return the identifier of this node's subscription to ``/clock``; empty if it is not known."""
        subscriptions = self._node.get_subscriptions_info_by_topic("/clock")
        gids = (bytes(one.endpoint_gid) for one in subscriptions if one.node_name == self._node.get_name())
        return next(gids, b"")

    def _incompatible(self, topic: str, offers: Iterable[Any]) -> str:
        requests = self._node.get_subscriptions_info_by_topic(topic)
        for request in (one for one in requests if _full_name(one) == self._node_name):
            for offer in offers:
                compatibility, reason = qos_check_compatible(offer.qos_profile, request.qos_profile)
                if compatibility == QoSCompatibility.ERROR:
                    return str(reason)
        return ""

    # The node -------------------------------------------------------------------------------------------------------

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        """Return the response; None if there is none in time."""
        client: Client[Any, Any] = self._node.create_client(kind, name)
        pending = client.call_async(request) if client.wait_for_service(self._service_timeout_sec) else None
        if pending is not None:
            self._spin(self._service_timeout_sec, pending.done)
        answer = pending.result() if pending is not None and pending.done() else None
        self._node.destroy_client(client)
        return answer

    def _parameters(self, node_name: str) -> dict[str, Any] | None:
        listed = self._call(ListParameters, f"{node_name}/list_parameters", ListParameters.Request())
        if listed is None:
            return None
        names = list(listed.result.names)
        values = self._call(GetParameters, f"{node_name}/get_parameters", GetParameters.Request(names=names))
        if values is None:
            return None
        return {
            name: _plain(parameter_value_to_python(value)) for name, value in zip(names, values.values, strict=False)
        }

    def _state(self) -> str:
        answer = self._call(GetState, f"{self._node_name}/get_state", GetState.Request())
        return str(answer.current_state.label) if answer is not None else ""

    def _cameras(self, parameters: Mapping[str, Any]) -> tuple[Camera, ...]:
        names = tuple(parameters.get("cameras") or ())
        is_compressed = parameters.get("image_transport") == COMPRESSED
        kind = COMPRESSED_TYPE if is_compressed else RAW_TYPE
        return tuple(Camera(name, self._camera_topic(name, len(names), is_compressed), kind) for name in names)

    def _camera_topic(self, name: str, count: int, is_compressed: bool) -> str:  # noqa: FBT001
        """Return the topic as the node reports it, with remappings; while it is not configured, the default."""
        line = self._diagnostics.get(f"camera {name}")
        if line is not None and line.values.get("topic"):
            return line.values["topic"]
        topic = self._node.resolve_topic_name("image" if count == 1 else f"{name}/image")
        return f"{topic}/compressed" if is_compressed else topic

    # Images and reports ---------------------------------------------------------------------------------------------

    def _measured(self, topics: list[Topic], wanted: Set[str]) -> tuple[Topic, ...]:
        """Receive images of the node's topics, and of some others; receive the node's statistics meanwhile."""
        received: dict[str, list[tuple[int, int, int]]] = {topic.name: [] for topic in _to_measure(topics, wanted)}
        subscriptions = [
            self._node.create_subscription(
                _MESSAGES[topic.types[0]],
                topic.name,
                self._image_callback(received[topic.name]),
                QoSProfile(depth=10) if topic.reliability == _RELIABLE else _BEST_EFFORT,
                raw=True,
            )
            for topic in topics
            if topic.name in received
        ]
        subscriptions += self._statistics_subscriptions()
        started = time.monotonic()
        self._spin(_MEASURE_SEC)
        seconds = time.monotonic() - started
        return tuple(_with_images(one, received.get(one.name), seconds) for one in topics)

    def _image_callback(self, received: list[tuple[int, int, int]]) -> Callable[[bytes], None]:
        def note(serialised: bytes) -> None:
            try:
                stamp_ns = read_stamp(serialised)
            except ImageError:
                return
            if len(received) < _MAX_MESSAGES:
                received.append((stamp_ns, time.time_ns(), len(serialised)))

        return note

    def _statistics_subscriptions(self) -> list[Any]:
        return [
            self._node.create_subscription(
                getattr(delayed_vlm_ros.msg, types[0].rpartition("/")[2]), name, self._report_callback(name), 10
            )
            for name, types in self._node.get_topic_names_and_types()
            if types[0] in _STATISTICS and name.startswith(f"{self._node_name}/")
        ]

    def _report_callback(self, topic: str) -> Callable[[Any], None]:
        return lambda message: self._note(topic, _plain(message))


def _to_measure(topics: list[Topic], wanted: Set[str]) -> list[Topic]:
    published = [one for one in topics if one.publishers and len(one.types) == 1 and one.types[0] in IMAGE_TYPES]
    others = [one for one in published if one.name not in wanted and RAW_TYPE in one.types]
    return [*(one for one in published if one.name in wanted), *others[:_MAX_MEASURED]]


def _with_images(topic: Topic, received: list[tuple[int, int, int]] | None, seconds: float) -> Topic:
    if received is None:
        return topic
    return replace(
        topic,
        measured_sec=seconds,
        stamps_ns=tuple(stamp for stamp, _, _ in received),
        arrivals_ns=tuple(arrival for _, arrival, _ in received),
        image_bytes=max((size for _, _, size in received), default=0),
    )


def _is_remote(gid: bytes, own: bytes) -> bool:
    """Return whether Fast DDS has an endpoint on another machine; bytes 0 and 1 are the vendor, 2 and 3 the machine."""
    return gid[:2] == own[:2] == _FAST_DDS and gid[2:4] != own[2:4]


def _full_name(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"


def _level(level: Any) -> int:
    return level[0] if isinstance(level, bytes) else int(level)  # rclpy represents a byte field as bytes


def _plain(value: Any) -> Any:
    """Return a message, or what is in it, as values that JSON can represent."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: _plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, bytes):
        return list(value) if len(value) > 1 else _level(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return [_plain(item) for item in value]
