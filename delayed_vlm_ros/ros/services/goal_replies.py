"""An action server that replies to goals as fast as its clients read.

By ROS's default a client keeps the 10 newest replies of a service that it has not read; each further one removes the
oldest, whose goal then waits for ever. A client that has read the reply to a goal fetches the goal's result. So the
server knows which replies were read, and holds the next ones back until then.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer
from rclpy.node import Node
from rclpy.task import Future as RosFuture

from delayed_vlm_ros.ros.time import steady_clock

_MAX_UNREAD = 8  # of the 10 that a client keeps: two may be on their way
_READ_AFTER_SEC = 5.0  # longer than a client pauses on a busy machine; one that fetches no results is not waited for
_CHECK_PERIOD_SEC = 0.25


class ReplyWindow:
    """Limits the replies that clients have not read. Thread-safe.

    Args:
        max_unread: Number of replies that may be unread.
        read_after_sec: Time after which a reply counts as read, in seconds.
        resume_function: Returns a function that resumes the running handler.
    """

    def __init__(
        self, max_unread: int, read_after_sec: float, resume_function: Callable[[], Callable[[], None]]
    ) -> None:
        self._max_unread = max_unread
        self._read_after_sec = read_after_sec
        self._resume_function = resume_function
        self._changing = threading.Lock()
        self._unread: dict[bytes, float] = {}  # time of each reply, oldest first
        self._waiting: deque[tuple[bytes, RosFuture[None], Callable[[], None]]] = deque()
        self._is_open = False

    async def wait(self, goal_id: bytes) -> None:
        """Wait until a goal may be replied to."""
        with self._changing:
            if self._is_open or (not self._waiting and len(self._unread) < self._max_unread):
                self._unread[goal_id] = time.monotonic()
                return
            turn: RosFuture[None] = RosFuture()
            self._waiting.append((goal_id, turn, self._resume_function()))
        await turn

    def confirm(self, goal_id: bytes) -> None:
        """Note that the reply to a goal was read."""
        with self._changing:
            self._unread.pop(goal_id, None)
        self._admit()

    def expire(self) -> None:
        """Count old replies as read."""
        with self._changing:
            before = time.monotonic() - self._read_after_sec
            self._unread = {goal_id: sent for goal_id, sent in self._unread.items() if sent > before}
        self._admit()

    def open(self) -> None:
        """Let all replies pass from now on."""
        with self._changing:
            self._is_open = True
        self._admit()

    def _admit(self) -> None:
        while True:
            with self._changing:
                if not self._waiting or not (self._is_open or len(self._unread) < self._max_unread):
                    return
                goal_id, turn, resume = self._waiting.popleft()
                self._unread[goal_id] = time.monotonic()
            turn.set_result(None)
            resume()


class PacedActionServer(ActionServer):  # type: ignore[type-arg]  # not generic on Humble
    """An ``ActionServer`` that loses no reply to a client with the default quality of service.

    Args:
        node: As for ``ActionServer``, as are all other arguments.
        resume_function: Returns a function that resumes the running handler.
    """

    def __init__(
        self, node: Node, *arguments: Any, resume_function: Callable[[], Callable[[], None]], **keywords: Any
    ) -> None:
        self._window = ReplyWindow(_MAX_UNREAD, _READ_AFTER_SEC, resume_function)
        super().__init__(node, *arguments, **keywords)
        self._timer = node.create_timer(
            _CHECK_PERIOD_SEC, self._window.expire, callback_group=self.callback_group, clock=steady_clock()
        )

    def stop_pacing(self) -> None:
        """Reply to all goals immediately, before the node ends."""
        self._window.open()

    async def execute(self, taken_data: Any) -> None:
        """Handle what has arrived: requests of accepted goals first, then a new goal when its turn comes."""
        goal = taken_data.pop("goal", None)
        if "result" in taken_data:
            self._window.confirm(bytes(taken_data["result"][1].goal_id.uuid))
        await super().execute(taken_data)
        if goal is not None:
            await self._window.wait(bytes(goal[1].goal_id.uuid))
            await super().execute({"goal": goal})
