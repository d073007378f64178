"""The services ``~/mark`` and ``~/get_frames``, which need no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node

from delayed_vlm_ros.errors import PairNotKeptError
from delayed_vlm_ros.ros.output.messages import key_frame
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.services.get_frames import handle_get_frames
from delayed_vlm_ros.ros.services.marks import handle_mark
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, select_camera_of_pair, select_cameras
from delayed_vlm_ros.ros.services.responses import respond
from delayed_vlm_ros.srv import GetFrames, Mark


class MemoryServices:
    """Offers the services in every state of the node.

    Both share one callback group of their own: their clients together hold one thread, and neither images nor questions
    wait for them.

    Args:
        node: Node that offers the services.
        cameras: Returns the cameras by name; empty while the node is not configured.
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
        return respond(self._node, "mark", lambda: self._mark(request, response), response)

    def _on_get_frames(self, request: GetFrames.Request, response: GetFrames.Response) -> GetFrames.Response:
        return respond(self._node, "get_frames", lambda: self._get_frames(request, response), response)

    def _mark(self, request: Mark.Request, response: Mark.Response) -> None:
        camera = select_camera_of_pair(self._configured(), request.camera, request.id)
        response.key_frame = key_frame(handle_mark(request, camera), camera)

    def _get_frames(self, request: GetFrames.Request, response: GetFrames.Response) -> None:
        cameras = self._configured()
        by_id_only = bool(request.ids) and not request.camera  # ids are unique in the node
        handle_get_frames(response, request, select_cameras(cameras, ALL_CAMERAS if by_id_only else request.camera))

    def _configured(self) -> Mapping[str, CameraMemory]:
        cameras = self._cameras()
        if not cameras:
            raise PairNotKeptError(
                "no frames are kept: the node is not configured; run the lifecycle transitions configure and activate"
            )
        return cameras
