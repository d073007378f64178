#!/usr/bin/env python3
"""A node that asks again and again, and keeps running its other callbacks while it waits.

python3 examples/ask_async.py "What is the person doing?" --ros-args -p period_sec:=10.0
"""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

import rclpy
from delayed_vlm_ros.srv import AskScene
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.utilities import remove_ros_args

TIMEOUT_SEC = 30.0
LATE_SEC = 5.0  # after which a response no longer comes: the node has ended


class Asker(Node):
    """Asks one question per period, and never two at the same time."""

    def __init__(self, question: str) -> None:
        super().__init__("ask_async")
        self._request = AskScene.Request(
            question=question, timeout_sec=TIMEOUT_SEC, client_id=self.get_fully_qualified_name()
        )
        self._client = self.create_client(AskScene, "ask_scene")
        self._pending: Any = None
        self._asked_at = self.get_clock().now()
        dynamic = ParameterDescriptor(dynamic_typing=True)  # accepts 10 as well as 10.0
        period_sec = self.declare_parameter("period_sec", 10.0, dynamic).value
        if isinstance(period_sec, bool) or not isinstance(period_sec, (int, float)) or not 0 < period_sec < math.inf:
            raise ValueError(f"'period_sec' must be a number above 0, got {period_sec!r}")
        self.create_timer(float(period_sec), self._ask)

    def _ask(self) -> None:
        age_sec = (self.get_clock().now() - self._asked_at).nanoseconds / 1e9
        if self._pending is not None and age_sec > TIMEOUT_SEC + LATE_SEC:
            self._client.remove_pending_request(self._pending)
            self._pending = None
        if self._pending is not None or not self._client.service_is_ready():
            return
        self._asked_at = self.get_clock().now()
        self._pending = self._client.call_async(self._request)
        self._pending.add_done_callback(self._on_response)  # returns at once: no callback may wait for a response

    def _on_response(self, future: Any) -> None:
        self._pending = None
        response = future.result()
        text = response.answer if response.success else f"error {response.error_code}: {response.error_msg}"
        self.get_logger().info(text)


if __name__ == "__main__":
    rclpy.init(args=sys.argv)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        try:
            node = Asker(*remove_ros_args(sys.argv)[1:])
        except ValueError as error:
            sys.exit(f"error: {error}")
        rclpy.spin(node)
