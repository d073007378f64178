"""The standing questions of a configured node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros import msg
from delayed_vlm_ros.errors import BadRequestError, MemoryFileError
from delayed_vlm_ros.memory import Activity
from delayed_vlm_ros.ros.output.messages import alert_message, watch_state
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.watches import Alert, Edge, Watch, WatchRunner, WatchStatus
from delayed_vlm_ros.watches.store import StoredWatch, WatchStore

_NOT_ACTIVE = "the node is not active"


class WatchedCameraMemory:
    """A camera as watches see it.

    Args:
        camera: The camera.
        stale_after_sec: Returns the silence after which a camera is stale, in seconds.
    """

    def __init__(self, camera: CameraMemory, stale_after_sec: Callable[[], float]) -> None:
        self._camera = camera
        self._stale_after_sec = stale_after_sec

    @property
    def name(self) -> str:
        """Name of the camera."""
        return self._camera.name

    @property
    def activity(self) -> Activity:
        """What has happened in its memory."""
        return self._camera.frame_manager.activity

    @property
    def silence(self) -> str:
        """Why there are no new images; empty while they arrive."""
        if self._camera.silent_sec is None:
            return f"no image yet on {self._camera.topic}"
        if self._camera.unusually_silent_sec > self._stale_after_sec():
            return f"no new image on {self._camera.topic}"
        return ""


class AlertIds:
    """Number of the last published alert. One thread changes it."""

    def __init__(self) -> None:
        self.last = 0

    def continue_after(self, number: int) -> None:
        """Go on with the next number after this one, unless a later one was published."""
        self.last = max(self.last, number)


class Watches:
    """Standing questions of the parameter file, of clients, and of goals, from configure to cleanup. Thread-safe.

    Args:
        cameras: Cameras by name.
        max_watches: Largest number of watches.
        max_duty: Largest share of the device's time that checks may take.
        stale_after_sec: Returns the silence after which a camera is stale, in seconds.
        publish: Publishes an alert's message and returns whether it did; called in the thread that checks.
        logger: The node's logger.
        store: File that survives a restart; None: none.
        alert_ids: Source of alert ids, for the life of the node.
    """

    def __init__(
        self,
        cameras: Mapping[str, CameraMemory],
        *,
        max_watches: int,
        max_duty: float,
        stale_after_sec: Callable[[], float],
        publish: Callable[[msg.Alert], bool],
        logger: RcutilsLogger,
        store: WatchStore | None,
        alert_ids: AlertIds,
    ) -> None:
        self._cameras = cameras
        self._publish = publish
        self._logger = logger
        self._store = store
        self._can_save = False
        self._alert_ids = alert_ids
        self._saving = threading.Lock()  # guards the next two
        self._error = ""
        self._stored: dict[str, StoredWatch] = {}  # what the next file says of each watch, except those of goals
        self._lock = threading.Lock()
        self._of_goals: dict[str, Callable[[msg.Alert], None]] = {}  # what to call with the alert, by watch
        self._wake: Callable[[], None] = lambda: None
        self.runner = WatchRunner(
            {name: WatchedCameraMemory(camera, stale_after_sec) for name, camera in cameras.items()},
            max_watches=max_watches,
            max_duty=max_duty,
            on_alert=self._on_alert,
        )

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Set the function to call after each change: the worker may need the model now, or no longer."""
        self._wake = wake

    def start(self, watches: Sequence[Watch]) -> None:
        """Add the watches of the parameter file.

        Raises:
            BadRequestError: There are too many.
            UnknownCameraError: A watch has an unknown camera.
        """
        for watch in watches:
            status = self.runner.add(watch)
            self._stored[watch.name] = StoredWatch(status.watch, of_client=False, added_at=time.time())

    def restore(self) -> None:
        """Restore the state of these and the watches of clients from the store, and save from now on.

        Called once, before the first check, after this node has locked the folder.
        """
        if self._store is None:
            return
        loaded = self._store.load()
        if loaded.warning:
            self._logger.warning(loaded.warning)
        self._alert_ids.continue_after(loaded.alerts)
        for stored in loaded.watches:
            own = self._stored.get(stored.watch.name)
            if own is None and stored.of_client:
                self._restore(stored)
            elif own is not None and own.watch == stored.watch and not stored.of_client:
                self.runner.set_state(own.watch.name, stored.state)
                self._stored[own.watch.name] = stored
            elif stored.of_client:
                self._logger.warning(f"watch {stored.watch.name} of a client is replaced by the parameter file's")
        self._can_save = True

    def _restore(self, stored: StoredWatch) -> None:
        age_sec = max(0.0, time.time() - stored.added_at)
        if stored.watch.lifetime_sec and age_sec >= stored.watch.lifetime_sec:
            self._logger.info(
                f"watch {stored.watch.name} is not restored: its lifetime is over by this machine's clock"
            )
            return
        try:
            self.runner.add(stored.watch, stored.state, age_sec=age_sec)
        except BadRequestError as error:
            self._logger.warning(f"watch {stored.watch.name} is not restored: {error}")
        else:
            self._stored[stored.watch.name] = stored

    def add(self, watch: Watch) -> WatchStatus:
        """Add a watch of a client; adding the same watch again changes nothing.

        Raises:
            BadRequestError: A setting is invalid, another watch has the name, or there are too many watches.
            UnknownCameraError: There is no such camera.
        """
        with self._saving:  # an alert of its first check waits
            status = self.runner.add(watch)
            if watch.name not in self._stored and not status.has_ended:
                self._stored[watch.name] = StoredWatch(status.watch, of_client=True, added_at=time.time())
                self._save()
        self._wake()
        return status

    def add_for_goal(self, watch: Watch, on_alert: Callable[[msg.Alert], None]) -> WatchStatus:
        """Add the watch of a goal; its alert is passed to the goal only.

        Args:
            watch: The watch; its name is unique.
            on_alert: Called with the first rising alert, in the thread that checks.

        Raises:
            BadRequestError: A setting is invalid, or there are too many watches.
            UnknownCameraError: There is no such camera.
        """
        with self._lock:
            self._of_goals[watch.name] = on_alert
        try:
            status = self.runner.add(replace(watch, once=True))
        except BaseException:
            self._drop_goal(watch.name)
            raise
        self._wake()
        return status

    def message_of(self, status: WatchStatus, unavailable: str) -> msg.WatchState:
        """Return the message of a watch with its state.

        Args:
            status: The watch.
            unavailable: Why no watch can be checked; empty if they can.
        """
        return watch_state(status, self._cameras[status.watch.camera], unavailable=unavailable)

    def remove(self, name: str) -> None:
        """Remove a watch.

        Raises:
            BadRequestError: There is no such watch.
        """
        self.runner.remove(name)
        self._drop_goal(name)
        with self._saving:
            if self._stored.pop(name, None) is not None:
                self._save()
        self._wake()

    def _drop_goal(self, name: str) -> None:
        with self._lock:
            self._of_goals.pop(name, None)

    def activate(self) -> None:
        """Begin to check."""
        self.runner.activate()
        self._wake()

    def deactivate(self) -> None:
        """Stop checking."""
        self.runner.deactivate(_NOT_ACTIVE)
        self._wake()

    def _on_alert(self, alert: Alert) -> None:
        with self._lock:
            of_goal = self._of_goals.get(alert.watch.name)
        camera = self._cameras[alert.watch.camera]
        if of_goal is not None:
            of_goal(alert_message(alert, camera, 0))
            return
        with self._saving:
            stored = self._stored.get(alert.watch.name)
            if stored is None or not self._publish(alert_message(alert, camera, self._alert_ids.last + 1)):
                return  # its goal or watch has been removed meanwhile, or the node is closing
            self._alert_ids.continue_after(self._alert_ids.last + 1)
            # Saved after it was published: a kill in between repeats it with the same id, and loses none.
            self._set_alerted(alert, stored)
            self._save()

    def _set_alerted(self, alert: Alert, stored: StoredWatch) -> None:
        is_rising = alert.edge is Edge.RISING
        if is_rising and alert.watch.once and stored.of_client:
            del self._stored[alert.watch.name]
            return
        alerted_at = alert.stamp if is_rising else stored.alerted_at
        self._stored[alert.watch.name] = replace(stored, was_yes=is_rising, is_alerted=is_rising, alerted_at=alerted_at)

    def _save(self) -> None:
        """Write the file, if this node may; log the first of successive errors."""
        if self._store is None or not self._can_save:
            return
        try:
            self._store.save(tuple(self._stored.values()), self._alert_ids.last)
        except MemoryFileError as error:
            if not self._error:
                self._logger.warning(str(error))
            self._error = str(error)
        else:
            self._error = ""

    @property
    def error(self) -> str:
        """Why the watches could not be saved; empty if they could."""
        return self._error
