"""What a child process has seen of the ROS graph. Needs no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from delayed_vlm_ros.images.messages import COMPRESSED_TYPE, RAW_TYPE

IMAGE_TYPES = (RAW_TYPE, COMPRESSED_TYPE)


@dataclass(frozen=True)
class Topic:
    """A topic with images, or one that the node wants.

    Attributes:
        name: Full name.
        types: Its message types.
        publishers: Full names of the publishing nodes.
        reliability: Reliability that they offer, ``reliable`` or ``best effort``; both if they differ.
        incompatible: Why the node's subscription receives nothing from a publisher; empty if it does.
        measured_sec: Seconds for which images were received; 0 if they were not.
        stamps_ns: Stamps of the images received then.
        arrivals_ns: Their times of arrival by the clock of the node, in nanoseconds.
        image_bytes: Size of the largest one.
        is_remote: Whether a publisher is known to be on another machine or in another container.
    """

    name: str
    types: tuple[str, ...]
    publishers: tuple[str, ...] = ()
    reliability: str = ""
    incompatible: str = ""
    measured_sec: float = 0.0
    stamps_ns: tuple[int, ...] = ()
    arrivals_ns: tuple[int, ...] = ()
    image_bytes: int = 0
    is_remote: bool = False

    @property
    def rate_hz(self) -> float:
        """Images received per second."""
        return len(self.stamps_ns) / self.measured_sec if self.measured_sec else 0.0


@dataclass(frozen=True)
class ClockTopic:
    """The simulated clock.

    Attributes:
        publishers: Full names of the nodes that publish ``/clock``.
        times_ns: First and newest time received, in nanoseconds; only one if one was received, empty if none was.
    """

    publishers: tuple[str, ...] = ()
    times_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class DiagnosticLine:
    """One diagnostic status of the node.

    Attributes:
        name: Name without the node's name.
        level: 0 OK, 1 WARN, 2 ERROR, 3 STALE.
        message: Its sentence.
        values: Its keys and values.
    """

    name: str
    level: int
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Camera:
    """A camera of the node.

    Attributes:
        name: Its name.
        topic: Resolved image topic.
        type: Message type that the node takes.
    """

    name: str
    topic: str
    type: str


@dataclass(frozen=True)
class Observation:
    """What was seen.

    Attributes:
        middleware: Name of the RMW implementation.
        node_name: Full name of the node that was looked for.
        nodes: Full names of all nodes.
        topics: Topics with images, and those that the node wants.
        clock: The simulated clock.
        state: Lifecycle state of the node; empty if it does not answer.
        parameters: Parameters of the node by name; None if it does not answer or does not run.
        page_parameters: The same of the web page's node.
        diagnostics: Newest status of each name.
        cameras: The node's cameras; empty if it does not run.
        reports: Diagnostics and statistics received, oldest first, as plain values by topic.
    """

    middleware: str
    node_name: str
    nodes: tuple[str, ...] = ()
    topics: tuple[Topic, ...] = ()
    clock: ClockTopic = field(default_factory=ClockTopic)
    state: str = ""
    parameters: Mapping[str, Any] | None = None
    page_parameters: Mapping[str, Any] | None = None
    diagnostics: tuple[DiagnosticLine, ...] = ()
    cameras: tuple[Camera, ...] = ()
    reports: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether the node is in the graph."""
        return self.node_name in self.nodes

    @property
    def uses_simulated_time(self) -> bool:
        """Whether the node takes its time from ``/clock``."""
        return bool((self.parameters or {}).get("use_sim_time"))

    def topic(self, name: str) -> Topic | None:
        """Return the topic of a name; None if nobody uses it."""
        return next((one for one in self.topics if one.name == name), None)


def from_json(value: Mapping[str, Any]) -> Observation:
    """Return the observation whose ``dataclasses.asdict`` has been sent as JSON."""
    parts: dict[str, Any] = {
        "topics": tuple(Topic(**{key: _tuples(one) for key, one in topic.items()}) for topic in value["topics"]),
        "clock": ClockTopic(**{key: _tuples(one) for key, one in value["clock"].items()}),
        "diagnostics": tuple(DiagnosticLine(**one) for one in value["diagnostics"]),
        "cameras": tuple(Camera(**one) for one in value["cameras"]),
        "nodes": tuple(value["nodes"]),
    }
    return Observation(**{**value, **parts})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
