"""Export of the memory as a ZIP file, which is made while the browser receives it."""

from __future__ import annotations

import asyncio
import io
import logging
import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response

from delayed_vlm_ros.errors import DelayedVlmError, ExportError
from delayed_vlm_ros.export.contents import (
    Evidence,
    ExportedAlert,
    ExportedAnswer,
    ExportedPair,
    LeftPair,
    PairImages,
    Records,
    is_within,
)
from delayed_vlm_ros.export.targets import ZipTarget
from delayed_vlm_ros.export.writer import write_export
from delayed_vlm_ros.web.backend import MAX_JOURNAL_LINES, Backend, KeptFrame, SceneState
from delayed_vlm_ros.web.formatting import sentence
from delayed_vlm_ros.web.responses import Message, Receive, Scope, Send

_LOGGER = logging.getLogger(__name__)

_BATCH = 4  # pairs in one call of the backend
_CHUNKS = 16  # that wait for the browser
_CHUNK_BYTES = 65_536
_POLL_SEC = 0.1
_SEND_SEC = 60.0  # without progress of the browser, such as a paused download
_NANOSECONDS_PER_MS = 1_000_000
_MILLISECONDS = re.compile(r"[0-9]{1,15}")
_BUSY = "Another export is running: try again when it is complete."
_BAD_TIME = "The time is not valid: use the button Export of the page."


def add_export_route(outer: FastAPI, backend: Backend) -> None:
    """Serve ``/export.zip``, to one browser at a time.

    Args:
        outer: The application.
        backend: Scene memory to export.
    """
    running = threading.Lock()

    @outer.get("/export.zip")
    async def export(since: str = "0", until: str = "0") -> Response:
        if not (_MILLISECONDS.fullmatch(since) and _MILLISECONDS.fullmatch(until)):
            return PlainTextResponse(_BAD_TIME, status_code=400)
        limits = int(since) * _NANOSECONDS_PER_MS, int(until) * _NANOSECONDS_PER_MS
        return _ExportResponse(backend, limits, running)


class _ExportResponse(Response):
    """A response without a known length. If the export fails, it ends early, which a browser reports.

    It also ends early if the browser receives nothing for a minute.

    Args:
        backend: Scene memory to export.
        limits_ns: Earliest and latest stamp in nanoseconds; 0 for no limit.
        running: Lock that is held while an export runs.
    """

    def __init__(self, backend: Backend, limits_ns: tuple[int, int], running: threading.Lock) -> None:
        folder = f"scene-memory-{time.strftime('%Y%m%d-%H%M%S')}"
        super().__init__(
            media_type="application/zip",
            headers={"content-disposition": f'attachment; filename="{folder}.zip"', "cache-control": "no-store"},
        )
        del self.headers["content-length"]
        self._running = running
        self._pipe = _Pipe()
        self._thread = threading.Thread(
            target=self._write, args=(backend, limits_ns, folder), name="export", daemon=True
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or why there is none."""
        if not self._running.acquire(blocking=False):
            await PlainTextResponse(_BUSY, status_code=503)(dict(scope), receive, send)
            return
        try:
            self._thread.start()
        except RuntimeError:  # the system has too many threads
            self._running.release()
            raise
        try:
            await self._send(scope, receive, send)
        except asyncio.TimeoutError:
            _LOGGER.warning("export ended: the browser received nothing for %.0f s", _SEND_SEC)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = asyncio.ensure_future(_wait_for_disconnect(receive))
        is_started = False
        try:
            while not left.done():
                chunk = await asyncio.to_thread(self._pipe.read)
                if chunk is None:
                    continue
                if not chunk and self._pipe.failure:
                    if not is_started:
                        await PlainTextResponse(self._pipe.failure, status_code=503)(dict(scope), receive, send)
                    return
                if not is_started:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    is_started = True
                message = {"type": "http.response.body", "body": chunk, "more_body": bool(chunk)}
                await asyncio.wait_for(send(message), _SEND_SEC)
                if not chunk:
                    return
        finally:
            left.cancel()
            self._pipe.close()

    def _write(self, backend: Backend, limits_ns: tuple[int, int], folder: str) -> None:
        try:
            stream = io.BufferedWriter(self._pipe, _CHUNK_BYTES)
            target = ZipTarget(stream, folder)
            state = backend.state()
            write_export(_records(backend, state, limits_ns), _pairs(backend, state, limits_ns), target)
            target.close()
            stream.flush()
        except DelayedVlmError as error:
            self._pipe.failure = f"The export failed: {sentence(error)}"
            if not self._pipe.is_closed:
                _LOGGER.warning("export failed: %s", error)
        except Exception:
            self._pipe.failure = "The export failed: see the log of the page's process."
            _LOGGER.exception("export failed")
        finally:
            self._running.release()
            self._pipe.end()


async def _wait_for_disconnect(receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


class _Pipe(io.RawIOBase):
    """Bytes from a thread that writes them to one that sends them, which may be slower.

    Attributes:
        failure: Why the writer has failed, as a sentence; empty if it has not.
        is_closed: Whether nobody reads any more.
    """

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes] = queue.Queue(_CHUNKS)
        self.failure = ""
        self.is_closed = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Pass on bytes; wait while too many are waiting. After a failure, nothing is passed on.

        Raises:
            ExportError: The browser has left.
        """
        chunk = bytes(data)
        if not self.failure:  # a ZIP file that is deleted writes its end, which must not complete a partial one
            self._put(chunk)
        return len(chunk)

    def _put(self, chunk: bytes) -> None:
        while not self.is_closed:
            try:
                self._chunks.put(chunk, timeout=_POLL_SEC)
            except queue.Full:
                continue
            return
        raise ExportError("the browser has left: start the export again")

    def end(self) -> None:
        """Say that no bytes follow."""
        try:
            self._put(b"")
        except ExportError:
            return

    def read(self, size: int = -1) -> bytes | None:
        """Return the next bytes, or none at the end; None if there are none yet."""
        del size
        try:
            return self._chunks.get(timeout=_POLL_SEC)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Read no more: the writer stops."""
        self.is_closed = True


def _pairs(backend: Backend, state: SceneState, limits_ns: tuple[int, int]) -> Iterator[PairImages | LeftPair]:
    """Yield the kept pairs of all cameras with their images."""
    frames = [frame for camera in state.cameras for frame in camera.frames if is_within(frame.stamp_ns, limits_ns)]
    for start in range(0, len(frames), _BATCH):
        batch = frames[start : start + _BATCH]
        found = backend.images([frame.id for frame in batch], "png")
        for frame in batch:
            images = found.get(frame.key)
            yield PairImages(_pair(frame), images.first, images.second) if images is not None else LeftPair(frame.id)


def _pair(frame: KeptFrame) -> ExportedPair:
    return ExportedPair(
        id=frame.id,
        camera=frame.camera,
        stamp_ns=frame.stamp_ns,
        end_stamp_ns=frame.end_stamp_ns,
        importance=frame.importance,
        reason=frame.reason,
        in_star=frame.in_star,
        in_stream=frame.in_stream,
        marked=frame.marked,
        label=frame.label,
    )


def _records(backend: Backend, state: SceneState, limits_ns: tuple[int, int]) -> Records:
    def within(entries: Iterable[Any]) -> list[Any]:
        return sorted((one for one in entries if is_within(one.stamp_ns, limits_ns)), key=lambda one: one.stamp_ns)

    since_ns, until_ns = limits_ns
    warnings = list(state.warnings)
    if not state.connected:
        warnings.append("The memory was not reachable: its images are missing.")
    try:
        lines = backend.journal(0, since_ns=since_ns, until_ns=until_ns)
        if len(lines) == MAX_JOURNAL_LINES:
            warnings.append(
                f"Lines of the journal may be missing: a ZIP file has the newest {MAX_JOURNAL_LINES}. Export a shorter "
                "time, or use delayed-vlm export."
            )
    except DelayedVlmError as error:
        lines = ()
        warnings.append(f"The journal is missing: {sentence(error)}")
    return Records(
        source=", ".join(camera.name for camera in state.cameras),
        created_ns=time.time_ns(),
        since_ns=since_ns,
        until_ns=until_ns,
        answers=tuple(
            ExportedAnswer(
                stamp_ns=one.stamp_ns,
                camera=one.camera,
                question=one.question,
                answer=one.answer,
                error=one.error,
                pair_ids=one.frame_ids,
                evidence=tuple(Evidence(rank.frame.id, rank.frame.stamp_ns, rank.relevance) for rank in one.evidence),
                warnings=one.warnings,
            )
            for one in within(state.answers)
        ),
        alerts=tuple(
            ExportedAlert(
                stamp_ns=one.stamp_ns,
                camera=one.camera,
                watch=one.watch,
                question=one.question,
                is_rising=one.is_rising,
                p_yes=one.p_yes,
                pair_ids=tuple(frame.id for frame in one.evidence),
            )
            for one in within(state.alerts)
        ),
        lines=tuple(within(lines)),
        warnings=tuple(warnings),
    )
