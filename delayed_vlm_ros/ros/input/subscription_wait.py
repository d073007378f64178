"""Waiting for one subscription's messages in a thread of its own, and not in the node's executor.

rclpy's executor gathers all of a node's connections anew for each message, thirty and more here: many times the work
that it takes to count an image. So a subscription for many messages belongs to the node for everybody else, but its
executor leaves it alone, and somebody waits for it with a wait set that holds nothing else, as
``rclpy.wait_for_message`` does.

The subscription's events (a publisher of an incompatible quality of service) are waited for in the same wait set. In
the middleware they share one condition with the messages: with two wait sets each would be woken for the other's (Fast
DDS), or only one of them at all (Fast DDS in Humble).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.context import Context
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND


class UnexecutedGroup(CallbackGroup):
    """Callback group of what an executor must leave alone."""

    def can_execute(self, entity: Any) -> bool:
        """No executor may wait for it, nor take from it."""
        del entity
        return False

    def beginning_execution(self, entity: Any) -> bool:
        """Nor call it."""
        del entity
        return False

    def ending_execution(self, entity: Any) -> None:
        """Never called."""


class SubscriptionWait:
    """Does an executor's work for one subscription. For one thread.

    Args:
        subscription: It, in an ``UnexecutedGroup``.
        waking: Ends the waiting when it is triggered.
        context: Theirs.
    """

    def __init__(self, subscription: Subscription, waking: GuardCondition, context: Context) -> None:
        self._subscription = subscription
        self._waking = waking
        self._events = tuple(subscription.event_handlers)
        self._in_use = (subscription.handle, waking.handle, *self._events)
        self._wait_set = rclpy_implementation.WaitSet(1, 1, 0, 0, 0, len(self._events), context.handle)

    def spin_once(self, timeout_sec: float) -> None:
        """Wait until something comes, is triggered, or time is up; call the callbacks of one message and of events.

        Args:
            timeout_sec: How long to wait; not at all if it is not positive.

        Raises:
            InvalidHandle: The subscription is destroyed.
        """
        message = self._take(timeout_sec)
        if message is not None:
            self._subscription.callback(message)

    def _take(self, timeout_sec: float) -> Any:
        # What somebody else destroys meanwhile lives on until it is let go here.
        with ExitStack() as using:
            for entity in self._in_use:
                using.enter_context(entity)
            self._wait_set.clear_entities()
            self._wait_set.add_subscription(self._subscription.handle)
            self._wait_set.add_guard_condition(self._waking.handle)
            for event in self._events:
                event.add_to_wait_set(self._wait_set)
            self._wait_set.wait(max(0, round(timeout_sec * NANOSECONDS_PER_SECOND)))
            for event in self._events:
                if event.is_ready(self._wait_set) and (found := event.take_data()):
                    event.callback(found)
            if not self._wait_set.is_ready("subscription", 0):
                return None
            taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
        return None if taken is None else taken[0]
