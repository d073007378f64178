"""The standing questions of a configured node."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from delayed_vlm_ros import msg
from delayed_vlm_ros.memory import Activity
from delayed_vlm_ros.ros.output.messages import alert_message, watch_state
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.watches import Alert, Watch, WatchRunner, WatchStatus

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
        silent_sec = self._camera.silent_sec
        if silent_sec is None:
            return f"no image yet on {self._camera.topic}"
        if silent_sec > self._stale_after_sec():
            return f"no new image on {self._camera.topic}"
        return ""


class Watches:
    """Standing questions of the parameter file, of clients, and of goals, from configure to cleanup. Thread-safe.

    Args:
        cameras: Cameras by name.
        max_watches: Largest number of watches.
        max_duty: Largest share of the device's time that checks may take.
        stale_after_sec: Returns the silence after which a camera is stale, in seconds.
        publish: Called with each alert's message, except those of goals, in the thread that checks.
    """

    def __init__(
        self,
        cameras: Mapping[str, CameraMemory],
        *,
        max_watches: int,
        max_duty: float,
        stale_after_sec: Callable[[], float],
        publish: Callable[[msg.Alert], None],
    ) -> None:
        self._cameras = cameras
        self._publish = publish
        self._ids = itertools.count(1)
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
            self.runner.add(watch)

    def add(self, watch: Watch) -> WatchStatus:
        """Add a watch of a client; adding the same watch again changes nothing.

        Raises:
            BadRequestError: A setting is invalid, another watch has the name, or there are too many watches.
            UnknownCameraError: There is no such camera.
        """
        status = self.runner.add(watch)
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
            return self.add(replace(watch, once=True))
        except BaseException:
            self._forget_goal(watch.name)
            raise

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
        self._forget_goal(name)
        self._wake()

    def _forget_goal(self, name: str) -> None:
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
        else:
            self._publish(alert_message(alert, camera, next(self._ids)))
