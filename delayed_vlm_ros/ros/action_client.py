"""An action client for nodes that another thread spins."""

from __future__ import annotations

import threading
from typing import Any

from rclpy.action import ActionClient


class SpunActionClient(ActionClient):  # type: ignore[type-arg]  # not generic on Humble
    """An ``ActionClient`` that may be created and destroyed while another thread spins its node.

    rclpy registers a client at the node before the client is complete, and may use it once more after it was destroyed:
    either would end the thread that spins. It also loses the response to a goal that arrives before the call that sends
    the goal has returned.

    Args:
        node: As for ``ActionClient``, as are all other arguments.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._is_destroyed = False
        self._lock = threading.Lock()  # rclpy sets it after the registration
        self._sending = threading.Lock()
        super().__init__(*arguments, **keywords)

    def send_goal_async(self, *arguments: Any, **keywords: Any) -> Any:
        """Send a goal; return the future of its handle."""
        with self._sending:
            return super().send_goal_async(*arguments, **keywords)

    def take_data(self) -> Any:
        """Take the responses and feedback that have arrived, after a goal that is being sent."""
        with self._sending:
            return super().take_data()

    def add_to_wait_set(self, wait_set: Any) -> None:
        """Add the client to a wait set; does nothing after ``destroy``."""
        try:
            super().add_to_wait_set(wait_set)
        except RuntimeError:
            if not self._is_destroyed:
                raise

    def is_ready(self, wait_set: Any) -> bool:
        """Return whether a response or feedback has arrived; False after ``destroy``."""
        try:
            return bool(super().is_ready(wait_set))
        except RuntimeError:
            if not self._is_destroyed:
                raise
            return False

    def destroy(self) -> None:
        """Remove the client from its node."""
        self._is_destroyed = True
        super().destroy()
