"""Publishes the node's state once a second: ``/diagnostics`` and ``~/memory_stats``."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from delayed_vlm_ros.msg import MemoryStats
from delayed_vlm_ros.ros.output.diagnostics import diagnostic_array, statuses
from delayed_vlm_ros.ros.output.messages import memory_stats
from delayed_vlm_ros.ros.output.reports import NodeReport

_PERIOD_SEC = 1.0
_DEPTH = 10


class Reporter:
    """Collects a report every second and publishes it, in every state of the node.

    Its timer has a callback group of its own and a steady clock: neither a long transition nor a simulation at rest
    keeps it from telling.

    Args:
        node: The node to publish from.
        collect: Gives the node's present state.
    """

    def __init__(self, node: Node, collect: Callable[[], NodeReport]) -> None:
        self._clock = node.get_clock()
        # With its namespace, so that two nodes of one name can be told apart.
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._collect = collect
        self._previous: NodeReport | None = None
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", _DEPTH)
        self._stats = node.create_publisher(MemoryStats, "~/memory_stats", _DEPTH)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(
            _PERIOD_SEC, self.publish, callback_group=MutuallyExclusiveCallbackGroup(), clock=self._steady
        )

    def publish(self) -> None:
        """Publish the present state."""
        report = self._collect()
        now = self._clock.now()
        self._diagnostics.publish(diagnostic_array(statuses(report, self._previous), self._name, now.nanoseconds))
        for camera, memory in zip(report.cameras, report.memories, strict=True):
            self._stats.publish(memory_stats(camera, memory, report.model, report.asks, now.to_msg()))
        self._previous = report
