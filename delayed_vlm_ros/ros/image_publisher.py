"""Image messages from RGB arrays, and their publisher for the camera nodes."""

from __future__ import annotations

import array

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image

_DEPTH = 2  # images queued for a slow reliable subscriber; more would only be late


def image_message(image: NDArray[np.uint8]) -> Image:
    """Return an image as a message without a header.

    Args:
        image: ``(height, width, 3)`` uint8, RGB.
    """
    message = Image(encoding="rgb8")
    message.height, message.width = image.shape[:2]
    message.step = message.width * 3
    data = array.array("B")  # the field copies bytes and lists value by value, but not this
    data.frombytes(np.ascontiguousarray(image).data)
    message.data = data
    return message


class ImagePublisher:
    """Publishes images on the relative topic ``image``, reliably, stamped with the node's clock.

    A reliable publisher serves reliable and best-effort subscribers alike.

    Args:
        node: The node to publish from.
        frame_id: frame_id of the messages.
    """

    def __init__(self, node: Node, frame_id: str) -> None:
        self._clock = node.get_clock()
        self._frame_id = frame_id
        self._publisher = node.create_publisher(
            Image,
            "image",
            QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    @property
    def has_subscribers(self) -> bool:
        """Whether the topic has subscribers."""
        return bool(self._publisher.get_subscription_count() > 0)

    def publish(self, image: NDArray[np.uint8]) -> None:
        """Publish an image with the present time as its stamp.

        Args:
            image: ``(height, width, 3)`` uint8, RGB.
        """
        message = image_message(image)
        message.header.stamp = self._clock.now().to_msg()
        message.header.frame_id = self._frame_id
        self._publisher.publish(message)
