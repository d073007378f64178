"""The services that show and change what is kept: ``~/mark`` and ``~/get_frames``. They need no model."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from delayed_vlm_ros.errors import DelayedVlmError, PairNotKeptError
from delayed_vlm_ros.ros.output.messages import error_text, key_frame
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.ros.services.get_frames import handle_get_frames
from delayed_vlm_ros.ros.services.marks import mark
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, select_camera_of_pair, select_cameras
from delayed_vlm_ros.srv import GetFrames, Mark


class MemoryServices:
    """Offers the services, in every state of the node.

    Their callback group is their own, one for both: however many callers there are, they hold one thread, and neither
    images nor asks wait for them.

    Args:
        node: The node to offer them from.
        cameras: Gives the cameras by name; none while the node is not configured.
    """

    def __init__(self, node: Node, cameras: Callable[[], Mapping[str, CameraMemory]]) -> None:
        self._cameras = cameras
        self._node = node
        group = MutuallyExclusiveCallbackGroup()
        self._services = [
            node.create_service(Mark, "~/mark", self._on_mark, callback_group=group),
            node.create_service(GetFrames, "~/get_frames", self._on_get_frames, callback_group=group),
        ]

    def _on_mark(self, request: Mark.Request, response: Mark.Response) -> Mark.Response:
        return self._respond("mark", self._mark, request, response)

    def _on_get_frames(self, request: GetFrames.Request, response: GetFrames.Response) -> GetFrames.Response:
        return self._respond("get_frames", self._get_frames, request, response)

    def _mark(self, request: Mark.Request, response: Mark.Response) -> None:
        camera = select_camera_of_pair(self._configured(), request.camera, request.id)
        response.key_frame = key_frame(mark(request, camera), camera)

    def _get_frames(self, request: GetFrames.Request, response: GetFrames.Response) -> None:
        cameras = self._configured()
        # Ids are unique in the node: they say by themselves whose pairs they are.
        every = bool(request.ids) and not request.camera
        handle_get_frames(response, request, select_cameras(cameras, ALL_CAMERAS if every else request.camera))

    def _configured(self) -> Mapping[str, CameraMemory]:
        cameras = self._cameras()
        if not cameras:
            raise PairNotKeptError(
                "nothing is kept: the node is not configured; bring it up with the lifecycle transitions configure and "
                "activate"
            )
        return cameras

    def _respond(self, name: str, act: Callable[[Any, Any], None], request: Any, response: Any) -> Any:
        """Fill the response; never raises."""
        try:
            act(request, response)
        except DelayedVlmError as error:
            failure: Exception = error
            self._node.get_logger().info(f"{name} failed: {error_text(error)}")
        except Exception as error:  # noqa: BLE001  a defect must not take the node down; the caller hears of it
            failure = error
            self._node.get_logger().error(f"{name} failed: {traceback.format_exc()}")
        else:
            response.success = True
            return response
        return type(response)(error_msg=error_text(failure))
