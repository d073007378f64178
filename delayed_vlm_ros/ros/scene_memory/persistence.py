"""Star memories that survive a restart: taken from their folder at configure, and kept there by a thread of its own."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros.errors import MemoryFileError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ros.input.frame_headers import header_from_dict, header_to_dict
from delayed_vlm_ros.ros.output.reports import PersistenceReport
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
from delayed_vlm_ros.storage.file_format import StoredMemory, star_of
from delayed_vlm_ros.storage.folder import MemoryFolder

_SHORTEST_PERIOD_SEC = 1.0  # between two attempts after a failure, or when something must not wait
_LOG_EVERY_SEC = 30.0


class Persistence:
    """Restores the cameras' Star memories at once, and writes them whenever they have changed, until ``close``.

    What is wrong with the folder or a file never stops the node: it is told in log and diagnostics.

    Args:
        folder: Path of the folder.
        period_sec: Shortest time between two writings.
        cameras: By name; their memories are empty.
        geometry: The rules for the size of their frames.
        logger: The node's.
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
        self._fault = ""
        self._lacks_room = ""  # no fault yet: what the next file would meet
        self._notices: list[str] = []
        self._begun_anew: set[str] = set()  # cameras of which nothing has been written since their file was set aside
        self._restored_frames = self._written_bytes = self._times_written = 0
        self._last_written: float | None = None
        self._waking = threading.Condition()
        self._hurried = False
        self._end_by: float | None = None  # on the clock of time.monotonic
        self._thread: threading.Thread | None = None
        try:
            self._folder = MemoryFolder(folder, header_to_dict, header_from_dict)
        except MemoryFileError as error:
            self._tell_fault(f"key frames are not kept on disk: {error}; then configure again")
            return
        try:
            self._restore()
        except MemoryFileError as error:
            # What could be neither read nor moved must not be overwritten.
            self._folder.close()
            self._tell_fault(f"key frames are not kept on disk: {error}; then configure again")
            return
        self._thread = threading.Thread(target=self._run, name="persistence", daemon=True)
        self._thread.start()

    def _restore(self) -> None:
        known: set[int] = set()
        for camera in self._cameras.values():
            loaded = self._folder.load(camera.name, self._refusal(camera.name, known))
            if loaded.notice:
                self._notices.append(loaded.notice)
                self._begun_anew.add(camera.name)
                self._logger.warning(loaded.notice)
            if loaded.memory is None or not loaded.memory.pairs:
                continue
            camera.restore(loaded.memory.pairs)
            known.update(kept.id for kept in loaded.memory.pairs)
            frames = camera.frame_manager.statistics().star_memory_size
            self._restored_frames += frames
            message = f"camera {camera.name}: {frames} key frames are restored from {self._path}"
            self._logger.info(message)

    def _refusal(self, camera: str, known: set[int]) -> Callable[[StoredMemory], str]:
        def refuse(memory: StoredMemory) -> str:
            if memory.camera != camera:
                return f"is of another camera, {memory.camera}"
            if memory.geometry != self._geometry:
                return "has images that were sized for another model, or another memory.max_pixels"
            if any(kept.id in known for kept in memory.pairs):
                return "has ids of key frames that another camera's file has, too"
            return ""

        return refuse

    def hurry(self) -> None:
        """Write soon: what was forgotten on purpose must not come back."""
        with self._waking:
            self._hurried = True
            self._waking.notify()

    def end(self, timeout_sec: float) -> None:
        """Write a last time if something has changed, and then leave the folder; does not wait for it.

        Args:
            timeout_sec: Writing that is not done by then is given up; the file before it stays. A second call can only
                shorten it.
        """
        end_by = time.monotonic() + timeout_sec
        with self._waking:
            self._end_by = end_by if self._end_by is None else min(self._end_by, end_by)
            self._waking.notify()

    def join(self) -> None:
        """Wait until it has ended, or its time is over."""
        if self._thread is not None and self._end_by is not None:
            self._thread.join(max(0.0, self._end_by - time.monotonic()))

    def _run(self) -> None:
        try:
            ending = False
            while not ending:
                self._write_changes()
                ending = self._wait()
            self._write_changes()
        except Exception as error:  # noqa: BLE001  a defect: the log and the diagnostics report that the thread ended
            self._fault = f"key frames are not kept on disk any more: {type(error).__name__}: {error}"
            message = f"{self._fault}\n{traceback.format_exc()}"
            self._logger.error(message)  # noqa: TRY400  ROS's logger
        finally:
            self._folder.close()

    def _wait(self) -> bool:
        """Wait until it is time to write; gives whether it is for the last time."""
        began, is_time = time.monotonic(), False
        while not is_time:
            self._look_for_room()
            is_time = self._is_time(began)
        with self._waking:
            self._hurried = False
            return self._end_by is not None

    def _is_time(self, began: float) -> bool:
        """Wait for a second, or until it is time to write; gives whether it is."""
        shortest = min(_SHORTEST_PERIOD_SEC, self._period_sec)

        def is_time() -> bool:
            period = shortest if self._hurried or self._fault else self._period_sec
            return self._end_by is not None or time.monotonic() >= began + period

        with self._waking:
            return self._waking.wait_for(is_time, shortest)

    def _look_for_room(self) -> None:
        """Tell of a disk that has no room for another file like the largest before that one is due."""
        try:
            self._folder.check_room()
        except MemoryFileError as error:
            if not self._lacks_room:
                self._logger.warning(str(error), throttle_duration_sec=_LOG_EVERY_SEC)
            self._lacks_room = f"key frames will not be kept on disk: {error}"
        else:
            self._lacks_room = ""

    def _write_changes(self) -> None:
        fault = ""
        for camera in self._cameras.values():
            try:
                memory = StoredMemory(camera.name, self._geometry, star_of(camera.frame_manager.snapshot()))
                size = self._folder.save(memory, interrupted=self._is_over)
            except MemoryFileError as error:
                fault = str(error)
            except Exception as error:  # noqa: BLE001  a defect here must not end the thread without a word
                fault = f"{type(error).__name__}: {error}"
                self._logger.error(traceback.format_exc(), throttle_duration_sec=_LOG_EVERY_SEC)  # noqa: TRY400  ROS's logger
            else:
                if size:
                    self._times_written += 1
                    self._written_bytes = size
                    if memory.pairs:
                        self._begun_anew.discard(camera.name)
                    self._last_written = time.monotonic()
        if fault:
            self._tell_fault(f"key frames are not kept on disk: {fault}")
        elif self._fault:
            self._logger.info("key frames are kept on disk again")
            self._fault = ""

    def _is_over(self) -> bool:
        return self._end_by is not None and time.monotonic() > self._end_by

    def _tell_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._logger.warning(fault, throttle_duration_sec=_LOG_EVERY_SEC)  # its number of bytes may change
        self._fault = fault

    def report(self) -> PersistenceReport:
        """How it goes."""
        last = self._last_written
        return PersistenceReport(
            folder=self._path,
            fault=self._fault or self._lacks_room,
            notices=tuple(self._notices),
            begun_anew=bool(self._begun_anew),
            restored_frames=self._restored_frames,
            times_written=self._times_written,
            written_bytes=self._written_bytes,
            written_ago_sec=None if last is None else time.monotonic() - last,
        )
