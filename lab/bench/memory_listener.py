"""Listener of the load benchmarks: records what a ``scene_memory`` node publishes about its memory."""

from __future__ import annotations

import time

import rclpy
from delayed_vlm_ros.msg import KeyFrameArray, MemoryStats, NodeStats
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from delayed_vlm_ros.time import nanoseconds_of

_SPIN_PERIOD_SEC = 0.1


class MemoryListener:
    """Node that subscribes to the statistics and the key frames of ``scene_memory``.

    Args:
        domain: ROS domain of the node under test.

    Attributes:
        node: This listener's node, for further clients.
        stats: Statistics of the memory received since the last ``reset``, oldest first.
        node_stats: Newest statistics of the node; None before the first.
        stamps_ns: Stamps of the frames that entered memory since the last ``reset``, in nanoseconds.
        ages_sec: Age of the newest frame at each report since the last ``reset``, in seconds.
    """

    def __init__(self, domain: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.node.create_subscription(MemoryStats, "scene_memory/memory_stats", self._on_stats, 10)
        self.node.create_subscription(NodeStats, "scene_memory/node_stats", self._on_node_stats, 10)
        self.node.create_subscription(KeyFrameArray, "scene_memory/key_frames", self._on_key_frames, 10)
        self._since_ns = 0
        self.node_stats: NodeStats | None = None
        self.reset()

    @property
    def is_ready(self) -> bool:
        """Whether the node reports a loaded model and at least one frame."""
        is_loaded = self.node_stats is not None and self.node_stats.model_state == "ready"
        return is_loaded and bool(self.stats) and self.stats[-1].unique_frames > 0

    def reset(self) -> None:
        """Drop all records; frames that are older than this call are not recorded again."""
        self._since_ns = time.time_ns()
        self.stats: list[MemoryStats] = []
        self.stamps_ns: set[int] = set()
        self.ages_sec: list[float] = []

    def spin_once(self, timeout_sec: float = _SPIN_PERIOD_SEC) -> None:
        """Receive one message, or return after a number of seconds."""
        self._executor.spin_once(timeout_sec=timeout_sec)

    def listen(self, seconds: float) -> None:
        """Receive messages for a number of seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.spin_once()

    def close(self) -> None:
        """Destroy the node and its context."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def _on_stats(self, message: MemoryStats) -> None:
        self.stats.append(message)

    def _on_node_stats(self, message: NodeStats) -> None:
        self.node_stats = message

    def _on_key_frames(self, message: KeyFrameArray) -> None:
        if not message.key_frames:
            return  # the memory is still empty
        stamps = {
            nanoseconds_of(stamp) for frame in message.key_frames for stamp in (frame.header.stamp, frame.end_stamp)
        }
        self.stamps_ns |= {stamp for stamp in stamps if stamp > self._since_ns}
        self.ages_sec.append((time.time_ns() - max(stamps)) * 1e-9)
