"""Initialisation of rclpy: readable errors for arguments and parameter files, and no need of a writable home folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidNamespaceException
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_namespace import validate_namespace

from delayed_vlm_ros.errors import BadRequestError, ConfigurationError
from delayed_vlm_ros.resources import log_folder
from delayed_vlm_ros.text import escaped

# Messages of ROS's parser of arguments and parameter files, and what to do.
_REMEDIES = {
    "No value at line": 'give the parameter a value, "" for an empty text',
    "Sequence should be of same type": 'give all items of the list one type: put texts in quotes, as in ["a", "7"]',
    "before ros__parameters": "begin the file with the lines '/**:' and '  ros__parameters:', and indent what follows",
    "Error parsing a event": "the file is not YAML near that line: check indentation (no tabs) and quotes",
    "Error opening YAML file": "check the path",
}
_NO_LOG_FILE = ("--ros-args", "--disable-external-lib-logs")


def check_namespace(namespace: str) -> None:
    """Check the namespace of a node.

    Raises:
        BadRequestError: The namespace is invalid.
    """
    try:
        validate_namespace(namespace)
    except InvalidNamespaceException as error:
        raise BadRequestError(
            f"'namespace' must be a ROS namespace such as /robot1, got '{namespace}': {error}"
        ) from None


def ros_domain(environment: Mapping[str, str] = os.environ) -> int:
    """Return the ROS domain that the environment selects.

    Raises:
        BadRequestError: ``ROS_DOMAIN_ID`` is no number.
    """
    domain = environment.get("ROS_DOMAIN_ID") or "0"
    if not domain.isdecimal():
        raise BadRequestError(f"'ROS_DOMAIN_ID' must be a number such as 0 to 101, got '{domain}'")
    return int(domain)


def initialise(
    arguments: Sequence[str] | None = None,
    *,
    context: Context | None = None,
    domain: int | None = None,
    log_file: bool = True,
) -> None:
    """Initialise rclpy without signal handlers.

    rclpy refuses to start where it cannot write log files, as in a service without ``HOME`` or on a read-only disk.
    Then the log goes to the terminal and ``/rosout`` only, and a line on standard error says so.

    Args:
        arguments: Command line with ROS arguments; None for ``sys.argv``.
        context: Context to initialise; None for the default one.
        domain: ROS domain; None for that of the environment.
        log_file: Whether to write a log file where that is possible.

    Raises:
        ConfigurationError: The ROS arguments or a parameter file are invalid.
    """
    given = list(sys.argv if arguments is None else arguments)
    reason = log_folder_error() if log_file else ""
    if reason:
        sys.stderr.write(f"no log file: {escaped(reason)}: set ROS_LOG_DIR to a writable folder\n")
    if reason or not log_file:
        given += _NO_LOG_FILE
    try:
        rclpy.init(args=given, context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    except UnicodeEncodeError as error:
        raise ConfigurationError("invalid command line: not valid UTF-8: correct its encoding") from error
    except RuntimeError as error:  # rclpy exports neither of its classes for this
        reason = str(error).partition(", at /")[0].removeprefix("failed to initialize rcl: ")
        raise ConfigurationError(f"invalid ROS arguments: {reason}: {_remedy(reason)}") from error


def log_folder_error(environment: Mapping[str, str] = os.environ) -> str:
    """Return why ROS cannot write log files; empty if it can. Creates the folder, as ROS does."""
    try:
        folder = log_folder(environment)
    except RuntimeError as error:  # ~ without a home folder
        return str(error)
    if folder is None:
        return "HOME is not set"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"cannot create {folder} ({error.strerror})"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not writable"


def _remedy(reason: str) -> str:
    return next((remedy for text, remedy in _REMEDIES.items() if text in reason), "correct the command line")
