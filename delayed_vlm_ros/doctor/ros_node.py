"""A short-lived node of ``delayed-vlm doctor``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from delayed_vlm_ros.ros.initialisation import check_namespace, initialise
from delayed_vlm_ros.ros.log import LoggingNode

NODE_NAME = "_delayed_vlm_doctor"
"""Beginning of the node's name; ROS tools hide names that start with an underscore."""


@contextmanager
def doctor_node(namespace: str = "/") -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Make a node with a context and an executor of its own, without services and without the topic of the log.

    Raises:
        BadRequestError: The namespace is invalid.
    """
    check_namespace(namespace)
    context = Context()
    initialise([], context=context, log_file=False)
    node = LoggingNode(
        f"{NODE_NAME}_{os.getpid()}",
        context=context,
        namespace=namespace,
        use_global_arguments=False,
        enable_rosout=False,
        start_parameter_services=False,
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
