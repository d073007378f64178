"""Submits searches for moments to the worker: validation, several cameras, the journal, pauses, deadlines.

A search takes as long as many questions. It therefore pauses after a pair when a question waits, and continues after
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    BadRequestError,
    BusyError,
    DelayedVlmError,
    MemoryFileError,
    NoFramesError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.moments import DEFAULT_MAX_MOMENTS, Moment, MomentSearch, check_search, does_fit
from delayed_vlm_ros.inference.worker import ModelWorker
from delayed_vlm_ros.journal import JournalMatch
from delayed_vlm_ros.journal.grouping import (
    LINES_PER_MOMENT,
    JournalMoment,
    ShownSpan,
    group_lines,
    without_shown,
)
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.journal import Journal
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.ros.services.ask_handler import empty_memory_message
from delayed_vlm_ros.ros.services.journal_services import journal_warnings
from delayed_vlm_ros.ros.services.multi_camera_ask import CameraFailure
from delayed_vlm_ros.ros.services.requests import ALL_CAMERAS, check_id, parse_stamp, parse_timeout, select_cameras


@dataclass(frozen=True)
class FindRequest:
    """One search.

    Attributes:
        description: What to find.
        since: Stamp of the oldest frame to search, in seconds; None: unbounded.
        until: Stamp of the newest frame to search, in seconds; None: unbounded.
        max_moments: Number of moments, and of lines of the journal, to return.
        include_thumbnails: Whether lines of the journal have their thumbnails.
    """

    description: str
    since: float | None
    until: float | None
    max_moments: int
    include_thumbnails: bool


@dataclass(frozen=True)
class CameraMoment:
    """A moment with its camera."""

    camera: CameraMemory
    moment: Moment


@dataclass(frozen=True)
class FoundLines:
    """Lines of the journal that a search found.

    Attributes:
        matches: The lines, best first.
        searched: Lines within the limits.
        warnings: Limitations of the journal, one sentence each.
        thumbnail_of: Returns the thumbnail of a line by its id; None: thumbnails are not requested.
    """

    matches: tuple[JournalMatch, ...] = ()
    searched: int = 0
    warnings: tuple[str, ...] = ()
    thumbnail_of: Callable[[int], bytes] | None = None


@dataclass(frozen=True)
class FoundInCameras:
    """Result of a search.

    Attributes:
        moments: Moments of all cameras, best first.
        lines: Lines of the journal about moments that ``moments`` do not show, best first.
        lines_searched: Lines of the journal within the limits.
        question: Yes/no question that the model was asked; empty if it was not asked.
        pairs_searched: Pairs that the model was asked about.
        warnings: Limitations of the result, one sentence each.
    """

    moments: tuple[CameraMoment, ...]
    lines: tuple[JournalMoment, ...]
    lines_searched: int
    question: str
    pairs_searched: int
    warnings: tuple[str, ...]


def parse_search(message: Any, parameters: SceneMemoryParameters) -> FindRequest:
    """Return the search of a ``FindMoments`` request; zeros become defaults.

    Raises:
        BadRequestError: A field is invalid.
    """
    if len(message.description) > parameters.max_question_characters:
        raise BadRequestError(
            f"description too long ({len(message.description)} characters, limit "
            f"{parameters.max_question_characters}): shorten it, or raise the parameter ask.max_question_characters"
        )
    check_id("client_id", message.client_id)
    request = FindRequest(
        message.description,
        parse_stamp("since", message.since),
        parse_stamp("until", message.until),
        message.max_moments or DEFAULT_MAX_MOMENTS,
        message.include_thumbnails,
    )
    check_search(request.description, request.since, request.until, request.max_moments)
    return request


class MultiCameraSearch:
    """Searches the cameras of one request one after another, with the same question.

    The worker's thread runs it. Another thread may take what was found when the deadline passes.

    Args:
        request: The search.
        cameras: Cameras to search.
        lines: Lines of the journal for this search.
        is_of_all: Whether the search is for all cameras.
    """

    def __init__(
        self, request: FindRequest, cameras: Sequence[CameraMemory], lines: FoundLines, *, is_of_all: bool
    ) -> None:
        self._request = request
        self._cameras = cameras
        self._lines = lines
        self._is_of_all = is_of_all
        self._searches: dict[str, MomentSearch] = {}
        self._failures: dict[str, CameraFailure] = {}

    def run(self, pauses: Callable[[], bool], engines: Engines, control: AskControl) -> bool:
        """Search until all is done, or until a pause after a pair; return whether all is done.

        Args:
            pauses: Whether to pause.
            engines: The loaded model.
            control: Control of the job.

        Raises:
            AskCancelledError: The search was cancelled.
            DelayedVlmError: No camera could be searched. It is no error that none has frames if the journal has lines.
        """
        for camera in self._cameras:
            if camera.name not in self._failures and not self._search(camera, pauses, engines, control):
                return False
        if not any(search.is_complete for search in self._searches.values()):
            self._raise_failure()
        return True

    def _raise_failure(self) -> None:
        errors = [failure.error for failure in self._failures.values()]
        serious = [error for error in errors if not isinstance(error, NoFramesError)]
        try:
            if serious:
                raise serious[0]
            if not self._lines.searched:
                raise errors[0]
        finally:
            errors.clear()  # the error would keep itself alive through them
            serious.clear()

    def _search(self, camera: CameraMemory, pauses: Callable[[], bool], engines: Engines, control: AskControl) -> bool:
        """Search a camera; return False at a pause."""
        try:
            search = self._search_of(camera)
            while not search.is_complete:
                search.step(engines.by_camera[camera.name], control)
                if pauses() and not search.is_complete:
                    return False
        except (AskCancelledError, AskTimeoutError):
            raise
        except DelayedVlmError as error:
            # The frames of its traceback would keep device memory while the next camera is searched.
            self._failures[camera.name] = CameraFailure(camera, error.with_traceback(None))
        return True

    def _search_of(self, camera: CameraMemory) -> MomentSearch:
        if camera.name not in self._searches:
            if camera.frame_manager.newest_stamp is None:
                raise NoFramesError(empty_memory_message(camera))
            request = self._request
            self._searches[camera.name] = MomentSearch(
                camera.frame_manager.snapshot(),
                request.description,
                since=request.since,
                until=request.until,
                max_moments=request.max_moments,
                question=next((search.question for search in self._searches.values() if search.is_complete), ""),
            )
        return self._searches[camera.name]

    @property
    def rest(self) -> str:
        """What is not searched yet, with the remedy, as text."""
        searches = dict(self._searches)  # the worker may add one meanwhile
        left = [f"{search.pairs_left} older key frames of {name}" for name, search in searches.items()]
        left += [f"camera {camera.name}" for camera in self._cameras if camera.name not in searches]
        return f"not searched: {', '.join(left)}. Allow more time, or limit the search with since and until"

    def found(self, *warnings: str) -> FoundInCameras:
        """Return what was found so far.

        Args:
            *warnings: Further limitations of the result.
        """
        searches = dict(self._searches)
        by_camera = [(camera, searches[camera.name].found()) for camera in self._cameras if camera.name in searches]
        moments = [CameraMoment(camera, moment) for camera, found in by_camera for moment in found.moments]
        moments = sorted(moments, key=lambda one: -one.moment.score)[: self._request.max_moments]
        shown = [_shown_span(one) for one in moments if does_fit(one.moment.score, is_journal_line=False)]
        lines = group_lines(without_shown(self._lines.matches, shown), self._request.max_moments)
        lines, thumbnail_warnings = _with_thumbnails(lines, self._lines.thumbnail_of)
        missing = (f"camera {one.camera.name} was not searched: {one.error}" for one in [*self._failures.values()])
        own = (
            f"camera {camera.name}: {warning}" if self._is_of_all else warning
            for camera, found in by_camera
            for warning in (*found.warnings, *camera.warnings)
        )
        return FoundInCameras(
            tuple(moments),
            lines,
            self._lines.searched,
            next((found.question for _, found in by_camera), ""),
            sum(found.pairs_searched for _, found in by_camera),
            tuple(dict.fromkeys((*warnings, *missing, *own, *self._lines.warnings, *thumbnail_warnings))),
        )


class FindHandler:
    """Validates searches and submits them to the worker. Thread-safe.

    Args:
        worker: Owner of the model.
        cameras: Cameras by name. A search without a camera name is for the first one.
        journal: Lines about pairs that are no longer kept; None if the journal is off.
    """

    def __init__(
        self, worker: ModelWorker[Engines], cameras: Mapping[str, CameraMemory], journal: Journal | None = None
    ) -> None:
        self._worker = worker
        self._cameras = cameras
        self._journal = journal

    def submit(self, message: Any, parameters: SceneMemoryParameters) -> Future[FoundInCameras]:
        """Submit the search of a ``FindMoments`` request; does not wait for the result.

        Args:
            message: The request.
            parameters: Current parameters of the node.

        Returns:
            What was found, or the error that prevented it. When the deadline passes, what was found so far.

        Raises:
            DelayedVlmError: The request is invalid or cannot be queued.
        """
        cameras = select_cameras(self._cameras, message.camera)
        request = parse_search(message, parameters)
        timeout_sec = parse_timeout(message, parameters)
        is_of_all = message.camera == ALL_CAMERAS
        lines = self._search_journal(request, None if is_of_all else cameras[0].name)
        search = MultiCameraSearch(request, cameras, lines, is_of_all=is_of_all)
        job = _Job(search, AskControl(), message.client_id, timeout_sec, Future())
        if all(camera.frame_manager.newest_stamp is None for camera in cameras):  # without waiting for the model
            empty = "; ".join(empty_memory_message(camera) for camera in cameras)
            if not lines.searched:
                raise NoFramesError(empty)
            job.outcome.set_result(search.found(empty))
        else:
            self._continue(job, timeout_sec)
        return job.outcome

    def _search_journal(self, request: FindRequest, camera: str | None) -> FoundLines:
        """Return the lines about a camera, or about all cameras.

        Takes up to 0.2 s with 100,000 lines, and does not wait for the thread that writes.
        """
        if self._journal is None:
            return FoundLines()
        limits = {"since": request.since, "until": request.until}
        try:
            store = self._journal.store
            limit = LINES_PER_MOMENT * request.max_moments
            matches = store.search(request.description, camera=camera, limit=limit, **limits)
            searched = store.count(camera=camera, **limits)
        except MemoryFileError as error:
            return FoundLines(warnings=(f"the journal was not searched: {error}",))
        thumbnail_of = store.thumbnail if request.include_thumbnails else None
        return FoundLines(tuple(matches), searched, tuple(journal_warnings(self._journal)), thumbnail_of)

    def _continue(self, job: _Job, timeout_sec: float) -> None:
        self._worker.submit(
            partial(job.search.run, self._is_awaited),
            timeout_sec,
            control=job.control,
            client_id=job.client_id,
            on_done=partial(self._on_done, job),
        )

    def _is_awaited(self) -> bool:
        return self._worker.status.waiting > 0

    def _on_done(self, job: _Job, part: Future[bool]) -> None:
        """End or continue a search; any failure reaches the client, which would wait forever otherwise."""
        try:
            self._proceed(job, part)
        except Exception as error:  # noqa: BLE001  the client receives any error
            job.outcome.set_exception(error)
        finally:
            del part  # an error's traceback holds this frame; the future would close the cycle

    def _proceed(self, job: _Job, part: Future[bool]) -> None:
        """End a search, or queue its continuation after the questions that wait."""
        try:
            if not part.result():
                self._continue(job, max(0.0, job.control.remaining() or 0.0))
                return
            found = job.search.found()
        except AskTimeoutError as error:
            job.end_early(error, f"the deadline of {job.timeout_sec:g} s passed")
        except BusyError as error:
            job.end_early(error, "the queue is full")
        else:
            job.outcome.set_result(found)
        finally:
            del part  # as above


def _shown_span(found: CameraMoment) -> ShownSpan:
    """Return the span of a moment in the stamps of the messages, as in the journal."""
    first, last = found.moment.pairs[0].pair.first, found.moment.pairs[-1].pair.last
    camera = found.camera
    return ShownSpan(camera.name, camera.header_of(first).stamp_ns, camera.header_of(last).stamp_ns)


def _with_thumbnails(
    moments: tuple[JournalMoment, ...], thumbnail_of: Callable[[int], bytes] | None
) -> tuple[tuple[JournalMoment, ...], tuple[str, ...]]:
    """Return the moments with their thumbnails, and a warning if these cannot be read."""
    if thumbnail_of is None:
        return moments, ()
    try:
        entries = [replace(one.entry, thumbnail=thumbnail_of(one.entry.id)) for one in moments]
    except MemoryFileError as error:
        return moments, (f"images of the journal are missing: {error}",)
    return tuple(replace(one, entry=entry) for one, entry in zip(moments, entries, strict=True)), ()


@dataclass(frozen=True, eq=False)
class _Job:
    """A search that is queued or runs.

    Attributes:
        search: The search.
        control: Control of its parts.
        client_id: Client that searches.
        timeout_sec: Deadline from the arrival of the request, in seconds.
        outcome: Result for the client.
    """

    search: MultiCameraSearch
    control: AskControl
    client_id: str
    timeout_sec: float
    outcome: Future[FoundInCameras]

    def end_early(self, error: Exception, reason: str) -> None:
        """End with what was found so far, or with the error if nothing was searched.

        Args:
            error: Why the search ends.
            reason: The same for a warning.
        """
        found = self.search.found(f"stopped early ({reason}), {self.search.rest}")
        if found.pairs_searched:
            self.outcome.set_result(found)
        else:
            self.outcome.set_exception(error)
