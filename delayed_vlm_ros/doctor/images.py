"""Fetch the images of the memory from the running node. Runs in a child process."""

from __future__ import annotations

import base64

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.ros.client import SceneMemoryClient


def fetch(namespace: str) -> list[tuple[str, str]]:
    """Return names and base64 of the first image of each kept pair of all cameras.

    Raises:
        BadRequestError: The node refuses.
        NodeNotFoundError: The node does not answer.
    """
    with SceneMemoryClient.connect(namespace) as client:
        response = client.get_frames(camera="*", image_format="jpeg")
    if not response.success:
        raise BadRequestError(response.error_msg)
    pairs = zip(response.key_frames, response.first_images, strict=False)
    return [(f"{frame.id}.jpg", base64.b64encode(image.data).decode()) for frame, image in pairs]
