"""The services ``~/get_journal`` and ``~/clear_journal``, which need no model."""

from __future__ import annotations

from typing import Protocol

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from std_srvs.srv import Trigger

from delayed_vlm_ros.errors import BadRequestError, DelayedVlmError, MemoryFileError, UnknownCameraError
from delayed_vlm_ros.journal import JournalStore
from delayed_vlm_ros.journal.store import FILE
from delayed_vlm_ros.ros.output.journal_messages import journal_moment
from delayed_vlm_ros.ros.output.messages import error_text
from delayed_vlm_ros.ros.scene_memory.journal import Journal
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, parse_stamp
from delayed_vlm_ros.ros.services.responses import respond
from delayed_vlm_ros.srv import GetJournal
from delayed_vlm_ros.text import escaped

DEFAULT_LINES = 500
"""Number of lines in a response if the request sets none."""

MAX_LINES = 2000
"""Maximum number of lines in a response; with thumbnails they have some 10 MB."""

OFF = "the journal is off: set the parameters journal.enabled and persistence.folder, and configure the node again"
"""Warning of a node without a journal."""


class JournalHost(Protocol):
    """The node, as the services of the journal see it."""

    def require_journal(self) -> Journal | None:
        """Return the journal; None if it is off.

        Raises:
            ModelNotReadyError: The node is not configured.
        """


class JournalServices:
    """Offers the services in every state of the node.

    Args:
        node: Node that offers them.
        host: The node's journal.
    """

    def __init__(self, node: Node, host: JournalHost) -> None:
        self._node = node
        self._host = host
        reading, clearing = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._services = [
            node.create_service(GetJournal, "~/get_journal", self._on_get, callback_group=reading),
            node.create_service(Trigger, "~/clear_journal", self._on_clear, callback_group=clearing),
        ]

    def _on_get(self, request: GetJournal.Request, response: GetJournal.Response) -> GetJournal.Response:
        return respond(self._node, "get_journal", lambda: self._fill(request, response), response)

    def _fill(self, request: GetJournal.Request, response: GetJournal.Response) -> None:
        since, until = parse_stamp("since", request.since), parse_stamp("until", request.until)
        if since is not None and until is not None and since > until:
            raise BadRequestError(f"'since' ({since:.3f} s) is after 'until' ({until:.3f} s): swap them")
        if request.max_lines > MAX_LINES:
            raise BadRequestError(f"'max_lines' must be at most {MAX_LINES}, got {request.max_lines}: use before_id")
        journal = self._host.require_journal()
        if journal is None:
            response.warnings = [OFF]
            return
        store = journal.store
        page = store.lines(
            since=since,
            until=until,
            camera=_camera(store, request.camera),
            before_id=request.before_id,
            limit=request.max_lines or DEFAULT_LINES,
            thumbnails=request.include_thumbnails,
        )
        response.lines = [journal_moment(entry) for entry in page.entries]
        response.lines_left = page.left
        response.warnings = list(map(escaped, journal_warnings(journal)))

    def _on_clear(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            journal = self._host.require_journal()
            if journal is None:
                raise MemoryFileError(
                    f"the journal is off: delete the file {FILE} of an earlier one in persistence.folder by hand"
                )
            removed = journal.clear()
        except DelayedVlmError as error:
            response.message = error_text(error)
            self._node.get_logger().info(f"clear_journal rejected: {response.message}")
            return response
        response.success = True
        lines = "1 line was" if removed == 1 else f"{removed} lines were"
        response.message = f"the journal is empty: {lines} removed from the disk"
        self._node.get_logger().info(response.message)
        return response


def _camera(store: JournalStore, name: str) -> str | None:
    """Return the camera of a request; None for all. A camera of an earlier configuration may have lines."""
    if name in ("", ALL_CAMERAS):
        return None
    if not store.count(camera=name):
        raise UnknownCameraError(f"the journal has no lines of camera '{name}': leave the camera out for all lines")
    return name


def journal_warnings(journal: Journal) -> list[str]:
    """Return why the lines may be incomplete."""
    report = journal.report()
    dropped = f"{report.dropped} evicted pairs got no line: the model or the disk was too slow, or failed"
    return [text for text in (report.error, report.warning, dropped if report.dropped else "") if text]
