"""Deferred signals: a command ends its work on the node before it ends itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt(signals: tuple[signal.Signals, ...] = (signal.SIGINT,)) -> Iterator[Callable[[], bool]]:
    """Record Ctrl-C instead of raising KeyboardInterrupt; yield a function that returns whether it was pressed.

    An exception inside rclpy would leave it in an inconsistent state and the question running.

    Args:
        signals: Signals to record.
    """
    interrupted = threading.Event()
    previous = {number: signal.signal(number, lambda *_: interrupted.set()) for number in signals}
    try:
        yield interrupted.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
