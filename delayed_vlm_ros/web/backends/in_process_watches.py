"""Standing questions of the page's backend in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.memory import KeptPair
from delayed_vlm_ros.watches import Alert, Edge, Level, Watch, WatchRunner, WatchStatus
from delayed_vlm_ros.watches.runner import ScoringEngine, WatchedCamera
from delayed_vlm_ros.watches.watch import ALERTS_KEPT
from delayed_vlm_ros.web.backend import MAX_ALERTS, KeptFrame, WatchAlert, WatchedQuestion

_MAX_WATCHES = 32  # this and the next as the defaults of the scene_memory node
_MAX_DUTY = 0.2


class InProcessWatches:
    """Standing questions about one camera. Thread-safe.

    Args:
        camera: The camera.
        to_frame: Converts a kept pair for the page.
    """

    def __init__(self, camera: WatchedCamera, to_frame: Callable[[KeptPair], KeptFrame]) -> None:
        self._camera = camera
        self._to_frame = to_frame
        self._alerts: deque[WatchAlert] = deque(maxlen=MAX_ALERTS)
        self._with_images: deque[Alert] = deque(maxlen=ALERTS_KEPT)
        self._count = 0
        self._runner = WatchRunner(
            {camera.name: camera}, max_watches=_MAX_WATCHES, max_duty=_MAX_DUTY, on_alert=self._add_alert
        )

    def start(self) -> None:
        """Begin to check when there is a model."""
        self._runner.activate()

    @property
    def needs_model(self) -> bool:
        """Whether there is a standing question to check."""
        return self._runner.needs_model

    def check(self, engine: ScoringEngine, control: AskControl) -> None:
        """Check what is due; called in the thread with the model."""
        self._runner.check({self._camera.name: engine}, control)

    def _add_alert(self, alert: Alert) -> None:
        self._count += 1
        shown = WatchAlert(
            id=self._count,
            watch=alert.watch.name,
            question=alert.watch.question,
            camera=alert.watch.camera,
            is_rising=alert.edge is Edge.RISING,
            p_yes=alert.p_yes,
            stamp_ns=self._to_frame(alert.evidence[-1]).end_stamp_ns,
            evidence=tuple(map(self._to_frame, alert.evidence)),
        )
        self._with_images.append(alert)
        self._alerts.append(shown)

    @property
    def alerts(self) -> tuple[WatchAlert, ...]:
        """The last alerts, oldest first."""
        return tuple(self._alerts.copy())

    @property
    def evidence(self) -> Mapping[int, KeptPair]:
        """The pairs of the last ``ALERTS_KEPT`` alerts by id, also those that the memory has evicted."""
        return {kept.id: kept for alert in self._with_images.copy() for kept in alert.evidence}

    def questions(self, unavailable: str) -> tuple[WatchedQuestion, ...]:
        """Return the standing questions.

        Args:
            unavailable: Why none can be checked; empty if they can.
        """
        return tuple(self._question(status, unavailable) for status in self._runner.statuses())

    def _question(self, status: WatchStatus, unavailable: str) -> WatchedQuestion:
        state = status.state
        waited_sec = status.age_sec if status.checked_ago_sec is None else status.checked_ago_sec
        question = WatchedQuestion(
            watch=status.watch,
            level=state.level,
            since_ns=self._to_frame(status.since).end_stamp_ns if status.since is not None else 0,
            p_yes=state.p_yes,
            reason=state.reason,
            warning=f"not checked for {waited_sec:.0f} s" if status.is_overdue else status.warning,
            device_sec_per_hour=status.device_sec_per_hour,
        )
        if unavailable and state.level is not Level.INACTIVE:
            return question.unknown(unavailable)
        return question

    def add(self, watch: Watch) -> None:
        """Add a standing question.

        Raises:
            BadRequestError: A setting is invalid, or there are too many.
        """
        self._runner.add(watch)

    def remove(self, name: str) -> None:
        """Remove a standing question.

        Raises:
            BadRequestError: There is none of this name.
        """
        self._runner.remove(name)
