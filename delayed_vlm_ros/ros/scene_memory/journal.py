"""The journal of a configured node: one line for each pair that has left Star memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros.images.encoding import encode_thumbnail
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.worker import IdleTask
from delayed_vlm_ros.journal import JournalEntry, JournalStore, Pose, check_fts
from delayed_vlm_ros.journal.captioner import Captioned, Captioner
from delayed_vlm_ros.journal.store import FILE
from delayed_vlm_ros.journal.writer import JournalWriter
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.ros.input.frame_headers import FrameHeader
from delayed_vlm_ros.ros.output.node_report import JournalReport
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.model import logged
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters
from delayed_vlm_ros.time import nanoseconds_of

JOURNAL = "journal"
"""Name of the worker's idle task that asks for captions."""

_QUIET_SEC = 1.0  # without a question before the first caption
_PERIOD_SEC = 0.2  # between two looks for a pair without a caption
_MB = 1_000_000


class Journal:
    """Collects evicted pairs, asks the model for captions in idle time, and writes both, from configure to cleanup.

    A fault of the disk or the model never stops the node: the log and the diagnostics report it. Thread-safe.

    Args:
        parameters: Parameters of the node.
        cameras: Cameras by name.
        logger: The node's logger.

    Raises:
        ConfigurationError: The SQLite library has no full-text search.
    """

    def __init__(
        self, parameters: SceneMemoryParameters, cameras: Mapping[str, CameraMemory], logger: RcutilsLogger
    ) -> None:
        check_fts()
        self._logger = logger
        self._started = time.monotonic()
        self._wake: Callable[[], None] = lambda: None
        self._path = Path(parameters.persistence_folder) / FILE
        self._captioner = Captioner(parameters.journal_question, self._on_caption)
        self._writer = JournalWriter(
            partial(
                JournalStore,
                parameters.persistence_folder,
                max_rows=parameters.journal_max_rows,
                max_bytes=round(parameters.journal_max_mb * _MB),
            ),
            logger.warning,
        )
        self._cameras = cameras
        for name, camera in cameras.items():
            camera.frame_manager.set_eviction_listener(partial(self._on_evicted, name))

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Set the function to call when the worker may need the model."""
        self._wake = wake

    def start(self, folder_error: str) -> None:
        """Open the file and begin to write; without a folder, evicted pairs get neither a caption nor a line.

        Args:
            folder_error: Why this node may not use the folder; empty if it may.
        """
        if folder_error:
            for camera in self._cameras.values():
                camera.frame_manager.set_eviction_listener(None)
            self._captioner.clear()  # pairs that the start has evicted
            self._writer.refuse(f"the journal is not written: {folder_error}")
        else:
            self._logger.info(f"the journal is on: lines about evicted frames are written to {self._path}")
            self._writer.start()

    def close(self, timeout_sec: float) -> None:
        """Write the last lines and close the file. Pairs without a caption get no line.

        Args:
            timeout_sec: Longest time to wait for it, in seconds.
        """
        waiting = self._captioner.counts.waiting
        if waiting:
            self._logger.info(f"{waiting} evicted pairs get no line in the journal: the node ends before their caption")
        self._writer.close(timeout_sec)

    @property
    def idle_task(self) -> IdleTask[Engines]:
        """The worker's task."""

        def caption(loaded: Engines, control: AskControl) -> None:
            with logged(self._logger, "captions of the journal have stopped"):
                self._captioner.work(loaded.by_camera, control, uses_server=loaded.server is not None)

        return IdleTask(JOURNAL, caption, _QUIET_SEC, _PERIOD_SEC, needs_model=lambda: self._captioner.needs_model)

    def _on_evicted(self, camera: str, kept: KeptPair) -> None:
        self._captioner.offer(camera, kept)
        if self._captioner.needs_model:
            self._wake()

    def _on_caption(self, captioned: Captioned) -> None:
        self._writer.put(partial(_entry_of, captioned))

    @property
    def store(self) -> JournalStore:
        """The lines, for reading.

        Raises:
            MemoryFileError: The file is not open.
        """
        return self._writer.store

    def clear(self) -> int:
        """Remove all lines from the disk, and the evicted pairs that wait; return the number of lines.

        Raises:
            MemoryFileError: A file cannot be removed, or the journal is not open.
        """
        self._captioner.clear()
        return self._writer.clear()

    def report(self) -> JournalReport:
        """Return the present state."""
        captions, written = self._captioner.counts, self._writer.report()
        return JournalReport(
            lines=written.counts.lines,
            file_bytes=written.counts.bytes,
            waiting=captions.waiting + written.unwritten,
            written=written.written,
            dropped=captions.dropped + written.lost,
            device_sec=captions.device_sec,
            running_sec=time.monotonic() - self._started,
            error=written.error or captions.error,
            warning=written.warning,
            caption_warnings=captions.warnings,
        )


def _entry_of(captioned: Captioned) -> JournalEntry:
    """Return the line of a pair. Made late, when the pose that is nearest in time has arrived."""
    kept = captioned.kept
    first: FrameHeader = kept.pair.first.source
    last: FrameHeader = kept.pair.last.source
    return JournalEntry(
        id=0,
        camera=captioned.camera,
        frame_id=first.frame_id,
        stamp_ns=first.stamp_ns,
        end_stamp_ns=last.stamp_ns,
        pair_id=kept.id,
        caption=captioned.caption,
        reason=kept.reason,
        label=kept.label,
        pose=_pose_of(first),
        thumbnail=encode_thumbnail(kept.pair.important_frame.image),
    )


def _pose_of(header: FrameHeader) -> Pose | None:
    message = header.pose
    if message is None:
        return None
    position, orientation = message.pose.position, message.pose.orientation
    return Pose(
        nanoseconds_of(message.header.stamp),
        message.header.frame_id,
        (position.x, position.y, position.z),
        (orientation.x, orientation.y, orientation.z, orientation.w),
    )
