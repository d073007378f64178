"""Star memories that survive a restart: restored from a folder at configure and saved by a thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ros.input.frame_headers import header_from_dict, header_to_dict
from delayed_vlm_ros.ros.output.node_report import PersistenceReport
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.storage.file_format import StoredMemory, star_of
from delayed_vlm_ros.storage.folder import MemoryFolder

_MIN_PERIOD_SEC = 1.0  # between two attempts after an error or a request
_LOG_PERIOD_SEC = 30.0


class Persistence:
    """Restores the cameras' Star memories at ``start`` and saves them when they change, until ``close``.

    A problem with the folder or a file never stops the node: the log and the diagnostics report it.

    Args:
        folder: Path of the folder.
        period_sec: Shortest time between two saves, in seconds.
        cameras: Cameras by name; their memories are empty.
        geometry: Size rules for the frames.
        logger: The node's logger.
    """

    def __init__(
        self,
        folder: str,
        period_sec: float,
        cameras: Mapping[str, CameraMemory],
        geometry: FrameGeometry,
        logger: RcutilsLogger,
    ) -> None:
        self._path = folder
        self._period_sec = period_sec
        self._cameras = cameras
        self._geometry = geometry
        self._logger = logger
        self._error = ""
        self._folder_error = ""  # what the next save would meet
        self._warnings: list[str] = []
        self._not_replaced: set[str] = set()  # cameras whose file was unusable and that have saved no key frames since
        self._restored_frames = self._written_bytes = self._times_written = 0
        self._last_written: float | None = None
        self._wake = threading.Condition()
        self._save_requested = False
        self._deadline: float | None = None  # end of the last save, on the clock of time.monotonic
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Restore the memories and start the thread that saves them. Never raises for the folder or its files."""
        try:
            folder = MemoryFolder(self._path, header_to_dict, header_from_dict)
        except MemoryFileError as error:
            self._set_error(f"key frames are not saved: {error}; then configure again")
            return
        try:
            self._restore(folder)
        except MemoryFileError as error:
            # A file that can be neither read nor moved must not be overwritten.
            folder.close()
            self._set_error(f"key frames are not saved: {error}; then configure again")
            return
        self._thread = threading.Thread(target=self._run, args=(folder,), name="persistence", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether this node has locked the folder."""
        return self._thread is not None

    def request_save(self) -> None:
        """Save soon. Frames that were removed on purpose must not come back after a restart."""
        with self._wake:
            self._save_requested = True
            self._wake.notify()

    def request_close(self, timeout_sec: float) -> None:
        """Save changes a last time and release the folder, without waiting for it.

        Args:
            timeout_sec: Time after which the save is given up and the previous file stays, in seconds. A second call
                can only shorten it.
        """
        deadline = time.monotonic() + timeout_sec
        with self._wake:
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
            self._wake.notify()

    def close(self, timeout_sec: float) -> None:
        """Save changes a last time, release the folder and wait for it.

        Args:
            timeout_sec: As for ``request_close``.
        """
        self.request_close(timeout_sec)
        if self._thread is not None and self._deadline is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()))

    def _restore(self, folder: MemoryFolder) -> None:
        known_ids: set[int] = set()
        for camera in self._cameras.values():
            loaded = folder.load(camera.name, self._refusal(camera.name, known_ids))
            if loaded.warning:
                self._warnings.append(loaded.warning)
                self._not_replaced.add(camera.name)
                self._logger.warning(loaded.warning)
            if loaded.memory is None or not loaded.memory.pairs:
                continue
            camera.restore(loaded.memory.pairs)
            known_ids.update(kept.id for kept in loaded.memory.pairs)
            frames = camera.frame_manager.statistics().star_memory_size
            self._restored_frames += frames
            self._logger.info(f"camera {camera.name}: restored {frames} key frames from {self._path}")

    def _refusal(self, camera: str, known_ids: set[int]) -> Callable[[StoredMemory], str]:
        def refuse(memory: StoredMemory) -> str:
            if memory.camera != camera:
                return f"belongs to another camera, {memory.camera}"
            if memory.geometry != self._geometry:
                return "frames were resized for another model or another memory.max_pixels"
            if any(kept.id in known_ids for kept in memory.pairs):
                return "key-frame ids also occur in the file of another camera"
            return ""

        return refuse

    def _run(self, folder: MemoryFolder) -> None:
        try:
            is_last = False
            while not is_last:
                self._save_changes(folder)
                is_last = self._wait_until_due(folder)
            self._save_changes(folder)
        except Exception as error:  # noqa: BLE001  a defect: the log and the diagnostics report that the thread ended
            self._error = f"key frames are no longer saved: {type(error).__name__}: {error}"
            self._logger.error(f"{self._error}\n{traceback.format_exc()}")
        finally:
            folder.close()

    def _wait_until_due(self, folder: MemoryFolder) -> bool:
        """Wait for the next save. Return whether it is the last one."""
        began = time.monotonic()
        is_due = False
        while not is_due:
            self._check_folder(folder)
            is_due = self._wait_once(began)
        with self._wake:
            self._save_requested = False
            return self._deadline is not None

    def _wait_once(self, began: float) -> bool:
        """Wait for at most a second. Return whether a save is due."""
        min_period = min(_MIN_PERIOD_SEC, self._period_sec)

        def is_due() -> bool:
            period = min_period if self._save_requested or self._error else self._period_sec
            return self._deadline is not None or time.monotonic() >= began + period

        with self._wake:
            return self._wake.wait_for(is_due, min_period)

    def _check_folder(self, folder: MemoryFolder) -> None:
        """Report before the next file is due that it could not be written. Save soon when it can be, or is missing."""
        try:
            is_complete = folder.check()
        except MemoryFileError as error:
            if not self._folder_error:
                self._logger.warning(str(error), throttle_duration_sec=_LOG_PERIOD_SEC)
            self._folder_error = f"key frames cannot be saved: {error}"
        else:
            if self._folder_error or not is_complete:
                self.request_save()
            self._folder_error = ""

    def _save_changes(self, folder: MemoryFolder) -> None:
        failure = ""
        for camera in self._cameras.values():
            try:
                memory = StoredMemory(camera.name, self._geometry, star_of(camera.frame_manager.snapshot()))
                size = folder.save(memory, interrupted=self._is_overdue)
            except MemoryFileError as error:
                failure = str(error)
            except Exception as error:  # noqa: BLE001  a defect must not end the thread
                failure = f"{type(error).__name__}: {error}"
                self._logger.error(
                    f"camera {camera.name}: saving key frames failed: {traceback.format_exc()}",
                    throttle_duration_sec=_LOG_PERIOD_SEC,
                )
            else:
                if size:
                    self._times_written += 1
                    self._written_bytes = size
                    if memory.pairs:
                        self._not_replaced.discard(camera.name)
                    self._last_written = time.monotonic()
        if failure:
            self._set_error(f"key frames are not saved: {failure}")
        elif self._error:
            self._logger.info("key frames are saved again")
            self._error = ""

    def _is_overdue(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _set_error(self, error: str) -> None:
        if error != self._error:
            # Throttled: the text contains a number of bytes, which may change.
            self._logger.warning(error, throttle_duration_sec=_LOG_PERIOD_SEC)
        self._error = error

    def report(self) -> PersistenceReport:
        """Return the present state."""
        last = self._last_written
        return PersistenceReport(
            folder=self._path,
            error=self._error or self._folder_error,
            warnings=tuple(self._warnings),
            not_replaced=bool(self._not_replaced),
            restored_frames=self._restored_frames,
            times_written=self._times_written,
            written_bytes=self._written_bytes,
            written_ago_sec=None if last is None else time.monotonic() - last,
        )
