"""Run a node in a process: start, spin and orderly shutdown on SIGINT or SIGTERM.

Under ``ros2 launch`` a Ctrl-C reaches a node twice, from the terminal and from launch. The second signal would
interrupt a clean-up in ``except KeyboardInterrupt`` or ``finally``, and launch would report the process as died. So
signals only set an event, which the spin loop checks, and nothing interrupts the clean-up.
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
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.node import Node

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.ros.executor import HandlerExecutor, make_executor
from delayed_vlm_ros.ros.initialisation import initialise
from delayed_vlm_ros.ros.parameter_files import unused_key_warnings
from delayed_vlm_ros.ros.parameters import unknown_name_warnings
from delayed_vlm_ros.text import escape_output

EXIT_RESTART = os.EX_TEMPFAIL
"""Exit code of a process that cannot do its work any more, while a new one can."""

_SPIN_PERIOD_SEC = 0.1  # longest time until a signal is handled
_JOIN_TIMEOUT_SEC = 0.5  # longest time to wait for a thread that is inside the model


class _Closable(Protocol):
    def close(self) -> None: ...


def run_node(
    make_node: Callable[[], Node], *, threads: int = 1, arguments: list[str] | None = None, exit_process: bool = False
) -> int:
    """Run a node until SIGINT, SIGTERM or the shutdown of its context, then shut it down.

    A node's ``close()`` method, if it has one, is called before the node is destroyed. It must end every callback that
    waits, and return quickly. A node that sets its attribute ``needs_restart`` is shut down in the same way.

    Args:
        make_node: Builds the node; called after rclpy is initialised.
        threads: Threads of the executor; 1 selects a single-threaded executor.
        arguments: Command line with ROS arguments; None for ``sys.argv``.
        exit_process: Exit the process here instead of returning. With torch loaded, the interpreter takes seconds to
            finalise, and launch does not wait that long.

    Returns:
        Exit code of the process: 0 after an orderly shutdown, ``EXIT_RESTART`` if the node needs a new process, 1 if
        the node could not be built.
    """
    # Libraries' bars are noise in a log, and launch emulates a terminal. Read when huggingface_hub is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    escape_output()
    stopping = threading.Event()

    def request_stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, request_stop)
    signal.signal(signal.SIGTERM, request_stop)
    try:
        initialise(arguments)
        node = make_node()
    except DelayedVlmError as error:
        sys.stderr.write(f"cannot start: {error}\n")
        rclpy.try_shutdown()
        return 1
    _warn_of_unused_parameters(node, sys.argv if arguments is None else arguments)
    failures = _FailureLog(node)
    threading.excepthook = failures.on_thread
    executor = make_executor(threads)
    executor.add_node(node)
    _spin(executor, node, failures, stopping)
    exit_code = EXIT_RESTART if _needs_restart(node) and not stopping.is_set() else 0
    _shut_down(executor, node)
    # A lifecycle node's state machine keeps parts of it alive after destroy_node. They must be freed before a quick
    # exit: DDS would leave its shared memory, which disturbs the next node.
    threading.excepthook = threading.__excepthook__
    del executor, failures, node
    gc.collect()
    if exit_process or _threads_left():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    return exit_code


def _needs_restart(node: Node) -> bool:
    return bool(getattr(node, "needs_restart", False))


def _warn_of_unused_parameters(node: Node, arguments: list[str]) -> None:
    for warning in (*unused_key_warnings(arguments, node.get_fully_qualified_name()), *unknown_name_warnings(node)):
        node.get_logger().warning(warning)


class _FailureLog:
    """Logs exceptions of callbacks and threads: the first time with a traceback, then one line each time."""

    def __init__(self, node: Node) -> None:
        self._logger = node.get_logger()
        self._known: set[tuple[type[BaseException], str]] = set()

    def add(self, failure: str, error: BaseException) -> None:
        """Log an exception. Never raises."""
        frames = traceback.extract_tb(error.__traceback__)
        location = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if (type(error), location) in self._known:
            self._logger.error(f"{failure} again: {type(error).__name__}: {error}")
            return
        self._known.add((type(error), location))
        self._logger.error(f"{failure}: {''.join(traceback.format_exception(error))}")

    def on_thread(self, ended: threading.ExceptHookArgs) -> None:
        """Log the exception that ended a thread; for ``threading.excepthook``."""
        name = ended.thread.name if ended.thread is not None else "unknown"
        self.add(f"thread '{name}' ended with an exception", ended.exc_value or ended.exc_type())


def _spin(executor: Executor, node: Node, failures: _FailureLog, stopping: threading.Event) -> None:
    while not stopping.is_set() and not _needs_restart(node) and rclpy.ok():
        try:
            executor.spin_once(timeout_sec=_SPIN_PERIOD_SEC)
        except ExternalShutdownException:
            return
        except BaseException as error:  # noqa: BLE001  nor may a panic of a library end the node; signals are events
            failures.add("a callback failed", error)


def _shut_down(executor: Executor, node: Node) -> None:
    # At exit the interpreter restores default signal actions, and a late second SIGINT would kill the process (exit
    # code -2). Ignored signals stay ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if hasattr(node, "close"):
        closable: _Closable = node
        closable.close()
    if isinstance(executor, HandlerExecutor):  # clients receive the errors of their cancelled questions
        _finish_handlers(executor)
    # Some executors wait for their threads without a limit. A daemon thread does it, which may be left running.
    closing = threading.Thread(target=executor.shutdown, name="executor-shutdown", daemon=True)
    closing.start()
    closing.join(_JOIN_TIMEOUT_SEC)
    node.destroy_node()
    rclpy.try_shutdown()


def _finish_handlers(executor: HandlerExecutor) -> None:
    with suppress(Exception):  # the node is closed: nothing is left to log a defect of a callback for
        executor.finish_handlers(_JOIN_TIMEOUT_SEC)


def _threads_left() -> bool:
    """Return whether a thread is still inside the model, where nothing can interrupt it.

    The node is closed by then, but the interpreter must not finalise while that thread runs.
    """
    deadline = time.monotonic() + _JOIN_TIMEOUT_SEC
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in others)
