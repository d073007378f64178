"""The service ``~/find_moments``. Its handler is a coroutine: a search that waits for its result costs no thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import Future

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from delayed_vlm_ros.errors import DelayedVlmError, ErrorCode
from delayed_vlm_ros.journal.grouping import JournalMoment
from delayed_vlm_ros.msg import Moment
from delayed_vlm_ros.ros.output.journal_messages import journal_moment
from delayed_vlm_ros.ros.output.messages import error_code, error_text
from delayed_vlm_ros.ros.output.moment_messages import moment_message
from delayed_vlm_ros.ros.services.channel import Channel, resume_running_handler
from delayed_vlm_ros.ros.services.find_handler import FoundInCameras
from delayed_vlm_ros.ros.services.goal_replies import BURST
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.srv import FindMoments
from delayed_vlm_ros.text import escaped


class FindServices:
    """Offers ``~/find_moments`` in every state of the node.

    Args:
        node: Node that offers the service.
        submit: Submits a search; see ``FindHandler.submit``.
    """

    def __init__(self, node: Node, submit: Callable[[FindMoments.Request], Future[FoundInCameras]]) -> None:
        self._node = node
        self._submit = submit
        self._service = node.create_service(
            FindMoments,
            "~/find_moments",
            self._on_request,
            qos_profile=BURST,
            callback_group=ReentrantCallbackGroup(),
        )

    async def _on_request(self, request: FindMoments.Request, response: FindMoments.Response) -> FindMoments.Response:
        """Return the filled response. Never raises."""
        log = self._node.get_logger()
        try:
            found = await self._found(request)
            _fill(response, found, include_thumbnails=request.include_thumbnails)
        except DelayedVlmError as error:
            log.info(f"find_moments rejected: {error_text(error)}")
            return _refusal(error)
        except Exception as error:  # noqa: BLE001  a defect must not end the node; the client receives the error
            log.error(f"find_moments failed: {traceback.format_exc()}")
            return _refusal(error)
        log.info(f"find_moments: {len(response.moments)} moments, {response.pairs_searched} key frames searched")
        return response

    async def _found(self, request: FindMoments.Request) -> FoundInCameras:
        channel = Channel[None](resume_running_handler(self._node))
        future = self._submit(request)
        try:
            future.add_done_callback(lambda _: channel.close())
            await channel.take()
            return future.result()
        finally:
            del future  # an error's traceback holds this frame; the future would close the cycle


def _fill(response: FindMoments.Response, found: FoundInCameras, *, include_thumbnails: bool) -> None:
    response.success, response.error_code = True, int(ErrorCode.NONE)
    kept = [moment_message(one, include_thumbnail=include_thumbnails) for one in found.moments]
    lines = [_line_message(one) for one in found.lines]
    response.moments = [*kept, *lines]
    response.journal_lines_searched = found.lines_searched
    response.question = escaped(found.question)
    response.pairs_searched = found.pairs_searched
    response.warnings = [escaped(warning) for warning in found.warnings]


def _line_message(moment: JournalMoment) -> Moment:
    message = journal_moment(moment.entry, score=moment.share)
    message.header.stamp, message.end_stamp = time_message(moment.stamp_ns), time_message(moment.end_stamp_ns)
    return message


def _refusal(error: Exception) -> FindMoments.Response:
    return FindMoments.Response(error_code=error_code(error), error_msg=error_text(error))
