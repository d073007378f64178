"""The logger of all nodes: text from outside can neither control a terminal nor forge a line of the log."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

from delayed_vlm_ros.text import escaped_lines

_INDENT = "    "  # of all lines of a message but the first


def _log_places_of_callers() -> None:
    """Let rclpy, which throttles by the file and line of a call, look for it outside of this file.

    Otherwise all calls would share one throttle. The list is private to rclpy: without it, messages are still logged.
    """
    files = getattr(rcutils_logger, "_internal_callers", None)
    if isinstance(files, list):
        files.append(os.path.realpath(__file__))


_log_places_of_callers()


class EscapingLogger(RcutilsLogger):
    """A logger that escapes control characters, in the terminal, the log file and ``/rosout``."""

    def log(self, message: str, severity: Any, *name: Any, **filters: Any) -> bool:
        """Log a message; the arguments are those of ``RcutilsLogger``, which takes no ``name`` before Kilted."""
        return super().log(escaped_lines(message, _INDENT), severity, *name, **filters)


class LoggingNode(Node):
    """A node whose logger escapes control characters."""

    def get_logger(self) -> RcutilsLogger:
        """Return the node's logger."""
        return self._escaping_logger

    @cached_property
    def _escaping_logger(self) -> EscapingLogger:
        return EscapingLogger(super().get_logger().name)
