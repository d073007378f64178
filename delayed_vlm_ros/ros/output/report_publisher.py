"""Publishes the node's state once a second: ``/diagnostics``, ``~/memory_stats`` and ``~/node_stats``."""

from __future__ import annotations

from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.timer import Timer

from delayed_vlm_ros.msg import MemoryStats, NodeStats
from delayed_vlm_ros.ros.output.diagnostics import diagnostic_array, node_statuses
from delayed_vlm_ros.ros.output.messages import memory_stats, node_stats
from delayed_vlm_ros.ros.output.node_report import NodeReport
from delayed_vlm_ros.ros.time import steady_clock

_PERIOD_SEC = 1.0
_DEPTH = 10


class Reporter:
    """Publishes a report every second between ``start`` and ``close``, in every lifecycle state.

    The timer has its own callback group and a steady clock, so it runs during a long transition and while a simulation
    is paused.

    Args:
        node: The node to publish from.
        collect: Returns the node's present state.
    """

    def __init__(self, node: Node, collect: Callable[[], NodeReport]) -> None:
        self._node = node
        # With the namespace: two nodes may have the same name.
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._collect = collect
        self._previous: NodeReport | None = None
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", _DEPTH)
        self._memory_stats = node.create_publisher(MemoryStats, "~/memory_stats", _DEPTH)
        self._node_stats = node.create_publisher(NodeStats, "~/node_stats", _DEPTH)
        self._steady_clock = steady_clock()
        self._timer: Timer | None = None

    def start(self) -> None:
        """Start the timer."""
        group = MutuallyExclusiveCallbackGroup()
        self._timer = self._node.create_timer(_PERIOD_SEC, self.publish, callback_group=group, clock=self._steady_clock)

    def close(self) -> None:
        """Stop the timer. The node owns the publishers."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def publish(self) -> None:
        """Publish the present state."""
        report = self._collect()
        now = self._node.get_clock().now()
        statuses = node_statuses(report, self._previous)
        self._diagnostics.publish(diagnostic_array(statuses, self._name, now.nanoseconds))
        self._node_stats.publish(node_stats(report, now.to_msg()))
        for camera, memory in zip(report.cameras, report.memories, strict=True):
            self._memory_stats.publish(memory_stats(camera, memory, now.to_msg()))
        self._previous = report
