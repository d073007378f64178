"""The services, topics and the action of standing questions."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import Any, Protocol

from rclpy.action import CancelResponse
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.timer import Timer

from delayed_vlm_ros import msg
from delayed_vlm_ros.action import WatchFor
from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BadRequestError, DelayedVlmError
from delayed_vlm_ros.ros.output.messages import error_code, error_text
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.scene_memory.watches import Watches
from delayed_vlm_ros.ros.services.channel import Channel, resume_running_handler
from delayed_vlm_ros.ros.services.goal_replies import PacedActionServer, is_cancelling
from delayed_vlm_ros.ros.services.responses import respond
from delayed_vlm_ros.ros.services.watch_requests import parse_watch
from delayed_vlm_ros.ros.time import steady_clock
from delayed_vlm_ros.srv import ListWatches, Unwatch, Watch
from delayed_vlm_ros.watches.runner import LIFETIME_OVER
from delayed_vlm_ros.watches.watch import ALERTS_KEPT

_PERIOD_SEC = 0.5  # between two messages on ~/watches
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_ALERTS = QoSProfile(
    depth=ALERTS_KEPT, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class WatchHost(Protocol):
    """The node, as the services of watches see it."""

    @property
    def watches(self) -> Watches | None:
        """The standing questions; None while the node is not configured."""

    @property
    def unavailable(self) -> str:
        """Why no watch can be checked, such as a model that is loading; empty if they can."""

    def require_watches(self) -> Watches:
        """Return the standing questions.

        Raises:
            ModelNotReadyError: The node is not configured.
        """

    def watch_parameters(self) -> SceneMemoryParameters:
        """Return the present parameters."""


class WatchServices:
    """Offers ``~/watch``, ``~/unwatch``, ``~/list_watches`` and the action ``~/watch_for``, in every state of the node.

    Publishes alerts on ``~/alerts`` and the states of all watches on ``~/watches``.

    Args:
        node: Node that offers them.
        host: The node's standing questions.
    """

    def __init__(self, node: Node, host: WatchHost) -> None:
        self._node = node
        self._host = host
        self._closed = False
        self._timer: Timer | None = None
        self._published: list[tuple[Any, ...]] | None = None
        self._goals: dict[str, Channel[msg.Alert | msg.WatchState | None]] = {}
        self._cancelled: set[bytes] = set()
        self._alerts = node.create_publisher(msg.Alert, "~/alerts", _ALERTS)
        self._states = node.create_publisher(msg.WatchStateArray, "~/watches", _LATCHED)
        group = MutuallyExclusiveCallbackGroup()
        self._services = [
            node.create_service(Watch, "~/watch", self._on_watch, callback_group=group),
            node.create_service(Unwatch, "~/unwatch", self._on_unwatch, callback_group=group),
            node.create_service(ListWatches, "~/list_watches", self._on_list, callback_group=group),
        ]
        self._action = PacedActionServer(
            node,
            WatchFor,
            "~/watch_for",
            self._on_goal,
            callback_group=ReentrantCallbackGroup(),
            cancel_callback=self._on_cancel,
        )

    def start(self) -> None:
        """Start publishing states."""
        self._timer = self._node.create_timer(
            _PERIOD_SEC, self._publish_states, callback_group=MutuallyExclusiveCallbackGroup(), clock=steady_clock()
        )

    def close(self) -> None:
        """End all goals and stop publishing; called before the node is destroyed."""
        self._closed = True
        self._action.stop_pacing()
        for channel in tuple(self._goals.values()):
            channel.close()

    def destroy(self) -> None:
        """Destroy the action server, which the node does not do."""
        self._action.destroy()

    def publish_alert(self, alert: msg.Alert) -> bool:
        """Publish an alert; return whether it was published. Thread-safe."""
        if self._closed:
            return False
        try:
            self._alerts.publish(alert)
        except Exception:  # noqa: BLE001  such as a full queue of the middleware; it is due again after a restart
            self._node.get_logger().error(f"cannot publish an alert of watch {alert.watch}: {traceback.format_exc()}")
            return False
        edge = "yes" if alert.edge == msg.Alert.RISING else "no"
        self._node.get_logger().info(f"watch {alert.watch}: {edge} ({alert.question})")
        return True

    # Services -------------------------------------------------------------------------------------------------------

    def _on_watch(self, request: Watch.Request, response: Watch.Response) -> Watch.Response:
        def add() -> None:
            watches = self._host.require_watches()
            watch = parse_watch(request.settings, self._host.watch_parameters())
            response.state = watches.message_of(watches.add(watch), self._host.unavailable)

        return respond(self._node, "watch", add, response)

    def _on_unwatch(self, request: Unwatch.Request, response: Unwatch.Response) -> Unwatch.Response:
        return respond(self._node, "unwatch", lambda: self._host.require_watches().remove(request.name), response)

    def _on_list(self, _request: ListWatches.Request, response: ListWatches.Response) -> ListWatches.Response:
        response.watches = self._present_states()
        return response

    # States ---------------------------------------------------------------------------------------------------------

    def _present_states(self) -> list[msg.WatchState]:
        watches = self._host.watches
        if watches is None:
            return []
        return [watches.message_of(status, self._host.unavailable) for status in watches.runner.statuses()]

    def _publish_states(self) -> None:
        """Publish the states if one has changed, and pass those of goals to the goals."""
        if self._closed:
            return
        goals = tuple(self._goals.items())  # before the states: a goal's watch is added before the goal
        states = self._present_states()
        for state in states:
            channel = self._goals.get(state.settings.name)
            if channel is not None:
                channel.put(state)
        present = {state.settings.name for state in states}
        for name, channel in goals:
            if name not in present:  # removed by a client, or by cleanup
                channel.close()
        changes = [_changes(state) for state in states]
        if changes != self._published:
            array = msg.WatchStateArray(watches=states)
            array.header.stamp = self._node.get_clock().now().to_msg()
            self._states.publish(array)
            self._published = changes

    # Action ---------------------------------------------------------------------------------------------------------

    async def _on_goal(self, goal: Any) -> WatchFor.Result:
        goal_id = bytes(goal.goal_id.uuid)
        name = f"{goal.request.settings.name[:32] or 'watch_for'} {goal_id.hex()[:8]}"
        result = WatchFor.Result()
        try:
            result.alert = await self._first_alert(goal, name)
            result.success = True
        except DelayedVlmError as error:
            result.error_code, result.error_msg = error_code(error), error_text(error)
        except Exception as error:  # noqa: BLE001  a defect must not end the node; the client receives the error
            result.error_code, result.error_msg = error_code(error), error_text(error)
            self._node.get_logger().error(f"watch_for failed: {traceback.format_exc()}")
        if self._closed:
            return result
        if result.success:
            goal.succeed()
        elif goal_id in self._cancelled and is_cancelling(goal):
            goal.canceled()
        else:
            goal.abort()
        self._cancelled.discard(goal_id)
        return result

    async def _first_alert(self, goal: Any, name: str) -> msg.Alert:
        """Return the first alert of a goal's watch.

        Raises:
            AskTimeoutError: The watch's lifetime ended.
            AskCancelledError: The goal was cancelled, or the node was cleaned up.
            DelayedVlmError: The settings are invalid, or the node is not configured.
        """
        watches = self._host.require_watches()
        watch = parse_watch(goal.request.settings, self._host.watch_parameters(), name)
        channel: Channel[msg.Alert | msg.WatchState | None] = Channel(resume_running_handler(self._node))
        watches.add_for_goal(watch, channel.put)
        self._goals[name] = channel
        if bytes(goal.goal_id.uuid) in self._cancelled:  # before the channel was there
            channel.put(None)
        try:
            shown: tuple[Any, ...] = ()
            while reports := await channel.take():
                for report in reports:
                    if report is None:
                        raise AskCancelledError("the goal was cancelled before the first yes")
                    if isinstance(report, msg.Alert):
                        return report
                    if _changes(report) != shown:
                        shown = _changes(report)
                        goal.publish_feedback(WatchFor.Feedback(state=report))
                status = watches.runner.status(name)
                if status is not None and status.state.reason == LIFETIME_OVER:
                    raise AskTimeoutError(f"no yes within {watch.lifetime_sec:g} s: allow a longer lifetime_sec")
            raise AskCancelledError(
                "the goal ended: its watch was removed, or the node was cleaned up or is shutting down"
            )
        finally:
            del self._goals[name]
            with suppress(BadRequestError):  # removed by a client
                watches.remove(name)

    def _on_cancel(self, goal: Any) -> CancelResponse:
        goal_id = bytes(goal.goal_id.uuid)
        self._cancelled.add(goal_id)
        for name, channel in tuple(self._goals.items()):
            if name.endswith(goal_id.hex()[:8]):
                channel.put(None)
        if not goal.is_active:  # it ended before its channel was found
            self._cancelled.discard(goal_id)
        return CancelResponse.ACCEPT


def _changes(state: msg.WatchState) -> tuple[Any, ...]:
    """Return the parts of a state whose change is published."""
    return (state.settings, state.level, state.reason, state.warning, state.checks)
