"""An action server that replies to goals as fast as its clients read.

By ROS's default a client keeps the 10 newest replies of a service that it has not read; each further one removes the
oldest, whose goal then waits for ever. An action has two such services: one accepts a goal, the other returns its
result. A client that has read the reply to a goal fetches the goal's result. So the server knows which goals were
accepted in the client's view, and that a client which read a newer reply has read an older result as well: each of its
turns takes one of both. The next replies of both services are held back until then.

Every client receives the replies to all of them, and a request does not say which client sent it. So the replies are
counted together, and a client that pauses while others go on may still lose some.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.action import ActionServer
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future as RosFuture

from delayed_vlm_ros.ros.services.channel import resume_running_handler
from delayed_vlm_ros.ros.time import steady_clock

BURST = QoSProfile(depth=500)
"""QoS of requests: the middleware silently drops unread ones of a burst beyond this depth."""

_MAX_UNREAD_RESULTS = 8  # of the 10 that a client keeps: two may be on their way
_MAX_UNREAD_ACCEPTANCES = 4  # the results of these find no later acceptance, so they remain unread in the server's view
_READ_AFTER_SEC = 5.0  # longer than a client pauses on a busy machine; one that fetches no results is not waited for
_RESULT_READ_AFTER_SEC = 1.0  # its client has just requested it, so it is not paused
_CHECK_PERIOD_SEC = 0.25
_RESULT_TIMEOUT_SEC = 10  # how long a client can fetch a goal's result; as in nav2
_CANCELLING_TIMEOUT_SEC = 1.0


class ReplyWindow:
    """Limits the replies of one service that clients have not read. Thread-safe.

    Args:
        max_unread: Number of replies that may be unread.
        read_after_sec: Time after which a reply counts as read, in seconds.
    """

    def __init__(self, max_unread: int, read_after_sec: float) -> None:
        self._max_unread = max_unread
        self._read_after_sec = read_after_sec
        self._changing = threading.Lock()
        self._unread: dict[bytes, float] = {}  # time of each reply, oldest first
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._is_open = False

    def put(self, goal_id: bytes, send: Callable[[], None]) -> None:
        """Send a reply when its turn comes, maybe immediately.

        Args:
            goal_id: Goal of the reply.
            send: Sends it, in this thread or in that of a later call.
        """
        with self._changing:
            self._waiting.append((goal_id, send))
        self._admit()

    def confirm(self, goal_id: bytes) -> float | None:
        """Note that a client read the reply to a goal; return the time of the reply, None if it did not count."""
        with self._changing:
            sent = self._unread.pop(goal_id, None)
        self._admit()
        return sent

    def confirm_oldest(self, before: float) -> None:
        """Note that a client read a reply; the oldest one counts, if it was sent ``before`` this monotonic time."""
        with self._changing:
            goal_id = next(iter(self._unread), None)
            if goal_id is not None and self._unread[goal_id] < before:
                del self._unread[goal_id]
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
                goal_id, send = self._waiting.popleft()
                self._unread[goal_id] = time.monotonic()
            send()


class PacedActionServer(ActionServer):  # type: ignore[type-arg]  # not generic on Humble
    """An ``ActionServer`` that loses no reply to a single client with the default quality of service.

    Its handlers are coroutines, which wait without a thread.

    Args:
        node: As for ``ActionServer``, as are all other arguments.
    """

    def __init__(self, node: Node, *arguments: Any, **keywords: Any) -> None:
        self._acceptances = ReplyWindow(_MAX_UNREAD_ACCEPTANCES, _READ_AFTER_SEC)
        self._results = ReplyWindow(_MAX_UNREAD_RESULTS, _RESULT_READ_AFTER_SEC)
        super().__init__(
            node,
            *arguments,
            goal_service_qos_profile=BURST,
            result_service_qos_profile=BURST,
            cancel_service_qos_profile=BURST,
            result_timeout=_RESULT_TIMEOUT_SEC,
            **keywords,
        )
        self._timer = node.create_timer(
            _CHECK_PERIOD_SEC, self._expire, callback_group=self.callback_group, clock=steady_clock()
        )

    def stop_pacing(self) -> None:
        """Reply to all goals immediately, before the node ends."""
        self._acceptances.open()
        self._results.open()

    async def execute(self, taken_data: Any) -> None:
        """Handle what has arrived: requests of accepted goals first, then a new goal when its turn comes."""
        goal = taken_data.pop("goal", None)
        await super().execute(taken_data)
        if "result" in taken_data:  # after the result was sent: the next acceptance confirms that it was read
            self._confirm(bytes(taken_data["result"][1].goal_id.uuid))
        if goal is not None:
            await self._turn_of(bytes(goal[1].goal_id.uuid))
            await super().execute({"goal": goal})

    async def _execute_get_result_request(self, request_header_and_message: Any) -> None:
        """Send the result after it is known and its turn has come; rclpy would not wait for the turn."""
        header, request = request_header_and_message
        goal_id = bytes(request.goal_id.uuid)
        result = self._result_futures.get(goal_id)
        if result is None:  # unknown or expired
            await super()._execute_get_result_request(request_header_and_message)
            return

        def send(_: Any = None) -> None:
            self._results.put(goal_id, lambda: self._send_result_response(header, result))

        if result.done():
            send()  # a callback would be called later, by the executor
        else:
            result.add_done_callback(send)

    def _confirm(self, goal_id: bytes) -> None:
        accepted = self._acceptances.confirm(goal_id)
        if accepted is not None:
            self._results.confirm_oldest(before=accepted)

    def _expire(self) -> None:
        self._acceptances.expire()
        self._results.expire()

    async def _turn_of(self, goal_id: bytes) -> None:
        turn: RosFuture[None] = RosFuture()
        resume = resume_running_handler(self._node)

        def begin() -> None:
            turn.set_result(None)
            resume()

        self._acceptances.put(goal_id, begin)
        await turn


def is_cancelling(goal: Any) -> bool:
    """Return whether a goal may end as cancelled.

    rclpy changes the goal's state just after it calls the cancel callback, in that callback's thread.
    """
    deadline = time.monotonic() + _CANCELLING_TIMEOUT_SEC
    while not goal.is_cancel_requested and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(goal.is_cancel_requested)
