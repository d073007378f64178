"""Client for the standing questions of a running ``scene_memory`` node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.client import Client
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from delayed_vlm_ros.action import WatchFor
from delayed_vlm_ros.errors import NodeNotFoundError
from delayed_vlm_ros.msg import Alert, NodeStats, WatchSettings, WatchState, WatchStateArray
from delayed_vlm_ros.ros.action_call import ActionCall
from delayed_vlm_ros.ros.action_client import SpunActionClient
from delayed_vlm_ros.ros.client import REPLIES, SceneMemoryClient
from delayed_vlm_ros.srv import ListWatches, Unwatch, Watch
from delayed_vlm_ros.watches.watch import ALERTS_KEPT

_CALL_TIMEOUT_SEC = 10.0
_CANCEL_SEC = 2.0  # for the result of a cancelled goal
_SILENT_SEC = 10.0  # without a report of the node, which reports once per second
_LOST_SEC = 3.0  # for which a node reports without the goal's watch, before it is asked for the goal
_LOST = "scene_memory was restarted and has lost the watch: wait once more"


def _latched(depth: int) -> QoSProfile:
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class WatchClient:
    """Adds, lists and removes the standing questions of one ``scene_memory`` node, and follows their changes.

    Like those of the client, all calls block.

    Args:
        client: Client of the node.
        on_alert: Called in the executor's thread with each alert, also with up to 20 earlier ones; a restarted node may
            repeat alerts. None: not called.
        on_states: Called in the executor's thread with the states of all watches when one has changed, and with the
            present ones at first. None: not called.
    """

    def __init__(
        self,
        client: SceneMemoryClient,
        *,
        on_alert: Callable[[Alert], None] | None = None,
        on_states: Callable[[Sequence[WatchState]], None] | None = None,
    ) -> None:
        self._client = client
        self._on_alert = on_alert
        self._on_states = on_states
        self._states: tuple[WatchState, ...] | None = None
        node = client.node
        self._watch: Client[Any, Any] = node.create_client(Watch, "scene_memory/watch", qos_profile=REPLIES)
        self._unwatch: Client[Any, Any] = node.create_client(Unwatch, "scene_memory/unwatch", qos_profile=REPLIES)
        self._list: Client[Any, Any] = node.create_client(ListWatches, "scene_memory/list_watches", qos_profile=REPLIES)
        self._watch_for = SpunActionClient(
            node,
            WatchFor,
            "scene_memory/watch_for",
            goal_service_qos_profile=REPLIES,
            result_service_qos_profile=REPLIES,
            cancel_service_qos_profile=REPLIES,
        )
        self._subscriptions = [
            node.create_subscription(WatchStateArray, "scene_memory/watches", self._receive_states, _latched(1))
        ]
        if on_alert is not None:
            self._subscriptions.append(
                node.create_subscription(Alert, "scene_memory/alerts", on_alert, _latched(ALERTS_KEPT))
            )

    def close(self) -> None:
        """Destroy the action client, which the node does not do."""
        self._watch_for.destroy()

    @property
    def states(self) -> tuple[WatchState, ...] | None:
        """The newest states of all watches, as received from the topic; None before the first."""
        return self._states

    def _receive_states(self, message: WatchStateArray) -> None:
        self._states = tuple(message.watches)
        if self._on_states is not None:
            self._on_states(self._states)

    def is_ready(self) -> bool:
        """Return whether the services are available."""
        return all(client.service_is_ready() for client in (self._watch, self._unwatch, self._list))

    def watch(self, settings: WatchSettings, *, timeout_sec: float = _CALL_TIMEOUT_SEC) -> Watch.Response:
        """Add a watch; return the response, which may hold an error. Adding the same watch again changes nothing.

        Args:
            settings: Settings of the watch; zeros are defaults.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        return self._client.call(self._watch, Watch.Request(settings=settings), timeout_sec)

    def unwatch(self, name: str, *, timeout_sec: float = _CALL_TIMEOUT_SEC) -> Unwatch.Response:
        """Remove a watch; return the response, which may hold an error.

        Args:
            name: Name of the watch.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        return self._client.call(self._unwatch, Unwatch.Request(name=name), timeout_sec)

    def list_watches(self, *, timeout_sec: float = _CALL_TIMEOUT_SEC) -> ListWatches.Response:
        """Return the response with all watches.

        Args:
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        return self._client.call(self._list, ListWatches.Request(), timeout_sec)

    def watch_for(
        self,
        settings: WatchSettings,
        on_state: Callable[[WatchState], None] = lambda _: None,
        *,
        cancelled: Callable[[], bool] = lambda: False,
        timeout_sec: float = _CALL_TIMEOUT_SEC,
    ) -> WatchFor.Result:
        """Wait for the first yes; return the result, which may hold an error. The watch exists only meanwhile.

        Args:
            settings: Settings of the watch; ``lifetime_sec`` limits the wait.
            on_state: Called in the executor's thread with the state after each check.
            cancelled: Returns whether to end the wait; checked every 50 ms.
            timeout_sec: Longest time to find the node in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, was restarted, or has not reported for 10 s.
        """
        client = self._client
        client.wait_for_server(self._watch_for.server_is_ready, timeout_sec)
        call: ActionCall[WatchFor.Result] = ActionCall(
            WatchFor.Goal(settings=settings), lambda feedback: on_state(feedback.state), client.in_executor, _LOST
        )
        if not client.in_executor(lambda: call.send(self._watch_for)):
            raise NodeNotFoundError("the client's node has no executor: add it to one that spins, then retry")
        presence = _Presence(call)

        def is_over() -> bool:
            presence.update(client.node_statistics, self._states or ())
            return call.future.done() or cancelled()

        client.wait_until(is_over, float("inf"))
        if not call.future.done():
            call.cancel()
            client.wait_until(call.future.done, _CANCEL_SEC)
            call.fail(NodeNotFoundError(f"no response to a cancellation within {_CANCEL_SEC:g} s: see the node's log"))
        return call.future.result()


class _Presence:
    """Ends the call of a goal whose node is silent, and checks one whose node does not report the goal's watch.

    The node reports once per second, and its states twice per second if they have changed.
    """

    def __init__(self, call: ActionCall[WatchFor.Result]) -> None:
        self._call = call
        self._report: NodeStats | None = None
        self._reported_at = self._present_at = time.monotonic()

    def update(self, report: NodeStats | None, states: Sequence[WatchState]) -> None:
        """Check the newest report and states of the node."""
        now = time.monotonic()
        if not self._call.is_accepted or any(self._is_own(state) for state in states):
            self._present_at = now
        if report is not self._report:
            self._report, self._reported_at = report, now
            if now - self._present_at > _LOST_SEC:
                self._present_at = now
                self._call.check()
        elif now - self._reported_at > _SILENT_SEC:
            self._call.fail(
                NodeNotFoundError(
                    f"no report of scene_memory for {_SILENT_SEC:g} s: it hangs or is unreachable, see its log"
                )
            )

    def _is_own(self, state: WatchState) -> bool:
        """Return whether a watch belongs to the goal: its name ends with the first digits of the goal's id."""
        return str(state.settings.name).endswith(f" {self._call.goal_id.hex()[:8]}")
