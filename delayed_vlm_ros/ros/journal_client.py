"""Client for the journal of a running ``scene_memory`` node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.client import Client
from std_srvs.srv import Trigger

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.msg import Moment
from delayed_vlm_ros.ros.client import REPLIES, SceneMemoryClient
from delayed_vlm_ros.ros.time import time_message
from delayed_vlm_ros.srv import GetJournal
from delayed_vlm_ros.time import nanoseconds_of

_CALL_TIMEOUT_SEC = 10.0
_LINES_PER_CALL = 1000


class JournalClient:
    """Reads and clears the journal of one ``scene_memory`` node.

    Like those of the client, all calls block.

    Args:
        client: Client of the node.
    """

    def __init__(self, client: SceneMemoryClient) -> None:
        self._client = client
        node = client.node
        self._get: Client[Any, Any] = node.create_client(GetJournal, "scene_memory/get_journal", qos_profile=REPLIES)
        self._clear: Client[Any, Any] | None = None  # made when it is used: the page must not be able to clear

    def is_ready(self) -> bool:
        """Return whether the node has the services of a journal."""
        return bool(self._get.service_is_ready())

    def get_journal(
        self,
        *,
        camera: str = "",
        since_ns: int = 0,
        until_ns: int = 0,
        before_id: int = 0,
        max_lines: int = 0,
        include_thumbnails: bool = False,
        timeout_sec: float = _CALL_TIMEOUT_SEC,
    ) -> GetJournal.Response:
        """Return the response with the newest lines, or with an error.

        Args:
            camera: Camera of the lines; empty or ``*``: all cameras.
            since_ns: Stamp of the oldest frames, in nanoseconds; 0: unbounded.
            until_ns: Stamp of the newest frames, in nanoseconds; 0: unbounded.
            before_id: Only lines with a smaller ``journal_id``; 0: all.
            max_lines: Number of lines, at most 2000; 0: 500.
            include_thumbnails: Whether the lines have their images.
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        request = GetJournal.Request(
            camera=camera,
            since=time_message(since_ns),
            until=time_message(until_ns),
            before_id=before_id,
            max_lines=max_lines,
            include_thumbnails=include_thumbnails,
        )
        return self._client.call(self._get, request, timeout_sec)

    def pages(self, max_lines: int, **limits: Any) -> Iterator[GetJournal.Response]:
        """Return the responses with the newest lines, one call after another; the last one may hold an error.

        Args:
            max_lines: Number of lines of all responses together.
            **limits: Further arguments of ``get_journal``.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        before_id = 0
        while max_lines > 0:
            response = self.get_journal(**limits, before_id=before_id, max_lines=min(max_lines, _LINES_PER_CALL))
            yield response
            lines: list[Moment] = response.lines
            if not response.lines_left or not lines:
                return
            before_id = lines[-1].journal_id
            max_lines -= len(lines)

    def clear_journal(self, *, timeout_sec: float = _CALL_TIMEOUT_SEC) -> Trigger.Response:
        """Remove all lines from the disk; return the response, which may hold an error.

        Args:
            timeout_sec: Longest wait in seconds.

        Raises:
            NodeNotFoundError: The node is unreachable, or does not respond.
        """
        if self._clear is None:
            self._clear = self._client.node.create_client(Trigger, "scene_memory/clear_journal", qos_profile=REPLIES)
        return self._client.call(self._clear, Trigger.Request(), timeout_sec)


def to_journal_line(moment: Moment) -> JournalLine:
    """Return the line of a message."""
    return JournalLine(
        id=int(moment.journal_id),
        camera=moment.camera,
        stamp_ns=nanoseconds_of(moment.header.stamp),
        end_stamp_ns=nanoseconds_of(moment.end_stamp),
        caption=moment.caption,
        reason=moment.reason,
        label=moment.label,
    )
