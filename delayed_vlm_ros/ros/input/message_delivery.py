"""Delivery of one subscription's messages to its callback, with or without the node's executor.

rclpy's executor rebuilds its whole wait set for every message: all entities of the node, thirty and more here. For a
fast camera this costs many times the work of counting an image. ``WaitSetDelivery`` therefore waits for one
subscription only, in the caller's thread, as ``rclpy.wait_for_message`` does. It needs private API of rclpy.
``ExecutorDelivery`` needs public API only and is used where the private API is missing or different.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.subscription import Subscription

from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND


class UnsupportedDeliveryError(Exception):
    """The installed rclpy lacks the private API that a delivery needs."""


class MessageDelivery(Protocol):
    """Calls the callbacks of one subscription.

    One thread calls ``attach`` and ``spin_once``; ``wake`` is thread-safe.
    """

    @property
    def callback_group(self) -> CallbackGroup:
        """Callback group that every attached subscription must be created with."""

    def attach(self, subscription: Subscription[Any]) -> None:
        """Deliver the messages of ``subscription`` instead of those of the one attached before.

        Raises:
            UnsupportedDeliveryError: The installed rclpy lacks the private API.
        """

    def spin_once(self, timeout_sec: float) -> None:
        """Return after one message or event, after ``wake``, or after the timeout.

        Args:
            timeout_sec: Longest time to wait in seconds; 0 or less does not wait.

        Raises:
            InvalidHandle: The subscription has been destroyed.
        """

    def wake(self) -> None:
        """Make a ``spin_once`` in another thread return."""

    def close(self) -> None:
        """Free the resources of the delivery; the subscription is the caller's."""


class ExecutorDelivery:
    """Leaves delivery to the node's executor: an ordinary subscription with a callback group of its own."""

    def __init__(self) -> None:
        self._group = MutuallyExclusiveCallbackGroup()
        self._woken = threading.Event()

    @property
    def callback_group(self) -> CallbackGroup:
        """Callback group that the executor runs, one message at a time."""
        return self._group

    def attach(self, subscription: Subscription[Any]) -> None:
        """Do nothing: the executor finds the subscription through its node."""

    def spin_once(self, timeout_sec: float) -> None:
        """Wait until ``wake`` is called or the time is up; the executor calls the callbacks meanwhile."""
        self._woken.wait(max(0.0, timeout_sec))
        self._woken.clear()

    def wake(self) -> None:
        """Make a ``spin_once`` in another thread return."""
        self._woken.set()

    def close(self) -> None:
        """Do nothing."""


class WaitSetDelivery:
    """Waits for one subscription with a wait set of its own, in the thread that calls ``spin_once``.

    The wait set also holds the subscription's events, such as a publisher with an incompatible quality of service.
    Messages and events share one condition in the middleware: with two wait sets each would wake for the other's (Fast
    DDS), or only one of them would wake (Fast DDS in Humble).

    Args:
        context: Context of the subscriptions.

    Raises:
        UnsupportedDeliveryError: The installed rclpy lacks the private API.
    """

    def __init__(self, context: Context) -> None:
        self._group = _UnexecutedGroup()
        self._context: Any = context  # its handle is None until it is initialised
        with _private_api():
            # Private: GuardCondition without a node, and the bindings to rcl.
            from rclpy.guard_condition import GuardCondition  # noqa: PLC0415  may be missing in other releases
            from rclpy.impl.implementation_singleton import rclpy_implementation  # noqa: PLC0415

            self._make_wait_set = rclpy_implementation.WaitSet
            self._guard = GuardCondition(None, None, context)
        self._subscription: Any = None
        self._events: tuple[Any, ...] = ()
        self._in_use: tuple[Any, ...] = ()
        self._wait_set: Any = None

    @property
    def callback_group(self) -> CallbackGroup:
        """Callback group that no executor runs."""
        return self._group

    def attach(self, subscription: Subscription[Any]) -> None:
        """Deliver the messages of ``subscription`` from now on.

        Raises:
            UnsupportedDeliveryError: The installed rclpy lacks the private API.
        """
        with _private_api():
            events = tuple(subscription.event_handlers)
            in_use = (subscription.handle, self._guard.handle, *events)
            wait_set = self._make_wait_set(1, 1, 0, 0, 0, len(events), self._context.handle)
            required: list[tuple[Any, str]] = [(subscription.handle, "take_message")]
            required += [(event, name) for event in events for name in ("is_ready", "take_data", "callback")]
            for owner, name in required:
                getattr(owner, name)
        self._subscription, self._events, self._in_use, self._wait_set = subscription, events, in_use, wait_set
        with _private_api(), self._entities_in_use():
            self._wait(0.0)

    def spin_once(self, timeout_sec: float) -> None:
        """Call the callbacks of one message and of all events, or return after ``wake`` or the timeout.

        Args:
            timeout_sec: Longest time to wait in seconds; 0 or less does not wait.

        Raises:
            InvalidHandle: The subscription has been destroyed.
        """
        message = self._take(timeout_sec)
        if message is not None:
            self._subscription.callback(message)

    def wake(self) -> None:
        """Make a ``spin_once`` in another thread return."""
        self._guard.trigger()

    def close(self) -> None:
        """Free the guard condition."""
        self._guard.destroy()

    def _take(self, timeout_sec: float) -> Any:
        with self._entities_in_use():
            self._wait(timeout_sec)
            for event in self._events:
                if event.is_ready(self._wait_set) and (data := event.take_data()):
                    event.callback(data)
            if not self._wait_set.is_ready("subscription", 0):
                return None
            taken = self._subscription.handle.take_message(self._subscription.msg_type, self._subscription.raw)
        return None if taken is None else taken[0]

    @contextmanager
    def _entities_in_use(self) -> Iterator[None]:
        """Keep entities alive that another thread destroys meanwhile."""
        with ExitStack() as stack:
            for entity in self._in_use:
                stack.enter_context(entity)
            yield

    def _wait(self, timeout_sec: float) -> None:
        self._wait_set.clear_entities()
        self._wait_set.add_subscription(self._subscription.handle)
        self._wait_set.add_guard_condition(self._guard.handle)
        for event in self._events:
            event.add_to_wait_set(self._wait_set)
        self._wait_set.wait(max(0, round(timeout_sec * NANOSECONDS_PER_SECOND)))


class _UnexecutedGroup(CallbackGroup):
    """Callback group whose entities every executor ignores."""

    def can_execute(self, entity: Any) -> bool:
        del entity
        return False

    def beginning_execution(self, entity: Any) -> bool:
        del entity
        return False

    def ending_execution(self, entity: Any) -> None:
        """Do nothing: no execution begins."""


@contextmanager
def _private_api() -> Iterator[None]:
    try:
        yield
    except (ImportError, AttributeError, TypeError) as error:
        raise UnsupportedDeliveryError(f"{type(error).__name__}: {error}") from error
