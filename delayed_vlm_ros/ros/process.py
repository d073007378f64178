"""The life of a node's process: start, spin, and an orderly end on SIGINT or SIGTERM.

Under ``ros2 launch`` one Ctrl-C reaches a node twice, once from the terminal and once from launch. A clean-up that
lives in ``except KeyboardInterrupt`` or ``finally`` is then interrupted by the second one and the process is reported
as dead. So the signals only set an event here; the spin loop sees it, and nothing interrupts the clean-up.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Protocol

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.ros.executor import HandlerExecutor

_SPIN_PERIOD_SEC = 0.1  # how long a signal may wait to be noticed
_JOIN_TIMEOUT_SEC = 0.5  # how long the end may wait for a thread that is inside the model


class _Closable(Protocol):
    def close(self) -> None: ...


def run_node(
    make_node: Callable[[], Node], *, threads: int = 1, arguments: list[str] | None = None, exit_process: bool = False
) -> int:
    """Run one node until SIGINT, SIGTERM or the shutdown of its context, then end it in order.

    A node with a ``close()`` method has it called before it is destroyed: it must release every callback that waits
    for something, and return quickly.

    Args:
        make_node: Builds the node; called once rclpy is initialised.
        threads: Threads of the executor; 1 gives a single-threaded one.
        arguments: Command line with ROS arguments; None takes ``sys.argv``.
        exit_process: End the process here after an orderly end. With torch loaded, the interpreter's own finalisation
            takes seconds, more than a launch file's patience.

    Returns:
        The process's exit code: 0 after an orderly end, 1 when the node could not be built.
    """
    stopping = threading.Event()

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make_node()
    except DelayedVlmError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        rclpy.try_shutdown()
        return 1
    failures = _FailureLog(node)
    threading.excepthook = failures.on_thread
    executor = HandlerExecutor(threads) if threads > 1 else SingleThreadedExecutor()
    executor.add_node(node)
    _spin(executor, failures, stopping)
    _end(executor, node)
    # A lifecycle node's state machine keeps parts of it alive beyond destroy_node. They must be gone before a quick
    # exit: DDS would leave its shared memory behind, and the next node to start would stumble over it.
    threading.excepthook = threading.__excepthook__
    del executor, failures, node
    gc.collect()
    if exit_process or _threads_left():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


class _FailureLog:
    """Logs the defects of callbacks and threads: each with its traceback once, and then in a line."""

    def __init__(self, node: Node) -> None:
        self._node_log = node.get_logger()
        self._known: set[tuple[type[BaseException], str]] = set()

    def add(self, failure: str, error: BaseException) -> None:
        """Log a defect; never raises."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if (type(error), place) in self._known:
            self._node_log.error(f"{failure} again: {type(error).__name__}: {error}")
            return
        self._known.add((type(error), place))
        self._node_log.error(f"{failure}: {''.join(traceback.format_exception(error))}")

    def on_thread(self, ended: threading.ExceptHookArgs) -> None:
        """Log the defect that has ended a thread; ``threading.excepthook``."""
        name = ended.thread.name if ended.thread is not None else "unknown"
        self.add(f"the thread '{name}' has ended by a defect", ended.exc_value or ended.exc_type())


def _spin(executor: Executor, failures: _FailureLog, stopping: threading.Event) -> None:
    while not stopping.is_set() and rclpy.ok():
        try:
            executor.spin_once(timeout_sec=_SPIN_PERIOD_SEC)
        except ExternalShutdownException:
            return
        except Exception as error:  # noqa: BLE001  a defect in one callback must not end the node
            failures.add("a callback failed", error)


def _end(executor: Executor, node: Node) -> None:
    # The interpreter, on its way out, puts handlers back to the default action, and a late second SIGINT would then
    # kill the process (exit code -2). Signals that are ignored it leaves ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(node, "close"):
        closable: _Closable = node
        closable.close()
    if isinstance(executor, HandlerExecutor):  # clients receive the errors of their cancelled questions
        _finish_handlers(executor)
    # Some executors wait for their threads without a limit, so the waiting is done by a thread that can be left behind.
    closing = threading.Thread(target=executor.shutdown, name="executor-shutdown", daemon=True)
    closing.start()
    closing.join(_JOIN_TIMEOUT_SEC)
    node.destroy_node()
    rclpy.try_shutdown()


def _finish_handlers(executor: HandlerExecutor) -> None:
    with suppress(Exception):  # the node is closed: nothing is left to log a defect of a callback for
        executor.finish_handlers(_JOIN_TIMEOUT_SEC)


def _threads_left() -> bool:
    """Whether some thread is deep inside the model and cannot be interrupted.

    Everything of ours is closed then, and the interpreter's own finalisation must not run into that thread.
    """
    deadline = time.monotonic() + _JOIN_TIMEOUT_SEC
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in others)
