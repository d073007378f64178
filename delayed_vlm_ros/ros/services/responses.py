"""Responses of services that an action fills, or its error."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from delayed_vlm_ros.errors import DelayedVlmError
from delayed_vlm_ros.ros.output.messages import error_code, error_text


def respond(node: Node, name: str, fill: Callable[[], None], response: Any) -> Any:
    """Return the response of a service after it was filled, or one with the error. Never raises.

    Args:
        node: Node that logs the error.
        name: Name of the service for the log.
        fill: Does the work and fills the response.
        response: An empty response with ``success``, ``error_msg`` and maybe ``error_code``.
    """
    try:
        fill()
    except DelayedVlmError as error:
        failure: Exception = error
        node.get_logger().info(f"{name} rejected: {error_text(error)}")
    except Exception as error:  # noqa: BLE001  a defect must not end the node; the client receives the error
        failure = error
        node.get_logger().error(f"{name} failed: {traceback.format_exc()}")
    else:
        response.success = True
        return response
    refused = type(response)(error_msg=error_text(failure))
    if hasattr(refused, "error_code"):
        refused.error_code = error_code(failure)
    return refused
