"""One goal of an action, from sending to its result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

from action_msgs.msg import GoalStatus
from rclpy.action import ActionClient

from delayed_vlm_ros.errors import DelayedVlmError, NodeNotFoundError

Result = TypeVar("Result")


class ActionCall(Generic[Result]):
    """One goal of an action of the ``scene_memory`` node.

    Args:
        goal: The goal.
        on_feedback: Called in the executor's thread with each feedback before the end.
        in_executor: Runs a function in the executor's thread; returns False if the node is in no executor.
        lost: Error message for a goal that the node no longer knows.

    Attributes:
        future: Result of the action, which may hold an error; or the error of ``fail``.
    """

    def __init__(
        self,
        goal: Any,
        on_feedback: Callable[[Any], None],
        in_executor: Callable[[Callable[[], Any]], bool],
        lost: str,
    ) -> None:
        self.future: Future[Result] = Future()
        self._goal = goal
        self._on_feedback = on_feedback
        self._in_executor = in_executor
        self._lost = lost
        self._handle: Any = None
        self._is_cancelled = False

    @property
    def goal_id(self) -> bytes:
        """Identifier of the goal; empty until the node has accepted it."""
        return bytes(self._handle.goal_id.uuid) if self._handle is not None else b""

    @property
    def is_accepted(self) -> bool:
        """Whether the node has accepted the goal."""
        return self._handle is not None

    @property
    def is_cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Cancel the goal; the result arrives as usual. Thread-safe."""
        self._is_cancelled = True
        self._in_executor(self._cancel_goal)

    def send(self, action: ActionClient[Any, Any, Any]) -> None:
        """Send the goal; called in the executor's thread."""
        sending = action.send_goal_async(self._goal, feedback_callback=self._receive_feedback)
        sending.add_done_callback(self._on_accepted)

    def check(self) -> None:
        """End the call if the node no longer knows the accepted goal, as after a restart. Thread-safe."""
        self._in_executor(self._request_result)

    def fail(self, error: DelayedVlmError) -> None:
        """End the call with an error, unless it has ended."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _cancel_goal(self) -> None:
        if self._handle is not None and not self.future.done():
            self._handle.cancel_goal_async()

    def _on_accepted(self, sending: Any) -> None:
        handle = sending.result()
        if handle is None or not handle.accepted:
            self.fail(NodeNotFoundError("scene_memory has rejected the goal: see its log"))
            return
        self._handle = handle
        self._request_result()
        if self._is_cancelled:
            self._cancel_goal()

    def _request_result(self) -> None:
        self._handle.get_result_async().add_done_callback(self._on_result)

    def _receive_feedback(self, message: Any) -> None:
        if not self.future.done():
            self._on_feedback(message.feedback)

    def _on_result(self, fetching: Any) -> None:
        response = fetching.result()
        if response.status == GoalStatus.STATUS_UNKNOWN:  # with an empty result
            self.fail(NodeNotFoundError(self._lost))
            return
        with suppress(InvalidStateError):  # the call has ended meanwhile
            self.future.set_result(response.result)
