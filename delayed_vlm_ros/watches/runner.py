"""Checks watches one group after another, and turns the outcomes into states and alerts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from delayed_vlm_ros.errors import (
    AskCancelledError,
    BadRequestError,
    DelayedVlmError,
    DeviceMemoryError,
    UnknownCameraError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.duty import DutyLimit
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.yes_no import ScoreResult, YesNo
from delayed_vlm_ros.memory import Activity, KeptPair
from delayed_vlm_ros.watches.schedule import Candidate, is_due, next_group
from delayed_vlm_ros.watches.state import Edge, Level, Observation, WatchState, advance, interrupted, is_waiting
from delayed_vlm_ros.watches.watch import Watch, check_watch

_LOGGER = logging.getLogger(__name__)

FIRST_ALERT = "ended with its first alert"
"""Reason of a watch that has ended because of ``once``."""

LIFETIME_OVER = "ended after its lifetime"
"""Reason of a watch that has ended because of ``lifetime_sec``."""

_MEMORY_EMPTIED = "the memory was emptied"
_SLOW_AFTER = 0.5  # periods after it was due; a watch that is checked later is reported as checked too rarely
_OVERDUE_AFTER = 4.0  # periods after it was due; a watch that is not checked until then is reported as not checked


class WatchedCamera(Protocol):
    """A camera as watches see it."""

    @property
    def name(self) -> str:
        """Name of the camera."""

    @property
    def activity(self) -> Activity:
        """What has happened in its memory."""

    @property
    def silence(self) -> str:
        """Why there are no new images; empty while they arrive."""


class ScoringEngine(Protocol):
    """The methods of an engine that watches use."""

    def score(
        self, questions: Sequence[str], *, window_sec: float | None = None, control: AskControl | None = None
    ) -> ScoreResult:
        """Return what the model would answer to yes/no questions about the newest frames; None: about all."""

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the encoded windows of all other lengths, in seconds."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A change of a watch between yes and no.

    Attributes:
        watch: Settings of the watch.
        edge: Whether it changed to yes or to no.
        p_yes: Probability of yes at the check that caused the change.
        stamp: Stamp of the newest frame of that check, in seconds.
        first_stamp: Stamp of the newest frame of the first of the successive checks that counted as yes, in seconds;
            for a falling edge equal to ``stamp``.
        evidence: Newest pair of the first of these checks, and of the last one if it is another.
        metrics: Cost of the check and limitations of its outcome.
    """

    watch: Watch
    edge: Edge
    p_yes: float
    stamp: float
    first_stamp: float
    evidence: tuple[KeptPair, ...]
    metrics: AskMetrics


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """A watch with its state and cost.

    Attributes:
        watch: Its settings; ``camera`` is resolved.
        state: Its state.
        since: Newest pair of the first check at its level; None while that is not yes or no.
        checks: Number of checks.
        checked_ago_sec: Time since the last check, in seconds; None before the first.
        interval_sec: Time between the last two checks, in seconds; None before the second.
        late_sec: Time from when the last check was due to the check, in seconds.
        device_sec: Its share of the time that checks have taken, in seconds.
        age_sec: Time since it was added to this runner, in seconds.
        is_overdue: Whether it has been due for several periods.
    """

    watch: Watch
    state: WatchState
    since: KeptPair | None
    checks: int
    checked_ago_sec: float | None
    interval_sec: float | None
    device_sec: float
    age_sec: float
    late_sec: float = 0.0
    is_overdue: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether it is never checked again: after its first alert with ``once``, or its lifetime."""
        return _has_ended(self.state)

    @property
    def device_sec_per_hour(self) -> float:
        """Device time that it takes in an hour, in seconds."""
        return self.device_sec / self.age_sec * 3600.0 if self.age_sec > 0 else 0.0

    @property
    def warning(self) -> str:
        """Why it is checked less often than its period demands, or not at all; empty if neither."""
        if self.is_overdue:
            return (
                "due for several periods and not checked: other questions or watches.max_duty leave it no device time"
            )
        if self.interval_sec is None or self.late_sec < _SLOW_AFTER * self.watch.period_sec:
            return ""
        return (
            f"checked every {self.interval_sec:.1f} s instead of {self.watch.period_sec:g} s: questions come first and "
            "watches.max_duty limits the device time: use longer periods, fewer windows, or a higher limit"
        )


@dataclass(slots=True)
class _Entry:
    """A watch with what the runner knows about it."""

    watch: Watch
    added_at: float  # to this runner
    created_at: float  # in an earlier run, maybe
    state: WatchState
    checks: int = 0
    checked_at: float | None = None
    checked_stamp: float | None = None
    has_failed: bool = False  # the last check
    due_at: float | None = None  # the next check, since when
    turn: float = 0.0
    interval_sec: float | None = None
    late_sec: float = 0.0
    device_sec: float = 0.0
    since: KeptPair | None = None
    first_yes: KeptPair | None = None

    @property
    def has_ended(self) -> bool:
        return _has_ended(self.state)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A watch in a check, with its state when the check began: any other state means that it was interrupted."""

    watch: Watch
    state: WatchState


class WatchRunner:
    """Holds the watches of all cameras and checks them. Thread-safe; one thread calls ``check``.

    Args:
        cameras: Cameras by name, the first one being that of watches without a camera.
        max_watches: Largest number of watches.
        max_duty: Largest share of the device's time that checks may take, above 0 and up to 1.
        on_alert: Called with each alert in the thread that checks. Must not block.
        steady: Steady clock, in seconds.
    """

    def __init__(
        self,
        cameras: Mapping[str, WatchedCamera],
        *,
        max_watches: int,
        max_duty: float,
        on_alert: Callable[[Alert], None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cameras = cameras
        self._max_watches = max_watches
        self._duty = DutyLimit(max_duty)
        self._on_alert = on_alert
        self._steady = steady
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._turn = 0.0  # of the latest check
        self._windows: set[tuple[str, float]] = set()  # camera and length, of the thread that checks
        self._inactive_reason = "the node is not active"

    # Watches --------------------------------------------------------------------------------------------------------

    def add(self, watch: Watch, state: WatchState | None = None, *, age_sec: float = 0.0) -> WatchStatus:
        """Add a watch. Adding the same watch again changes nothing.

        Args:
            watch: Settings of the watch.
            state: State from an earlier run; None: nothing is known.
            age_sec: Time for which it has existed, in seconds.

        Raises:
            BadRequestError: A setting is invalid, another watch has the name, or there are too many watches.
            UnknownCameraError: There is no such camera.
        """
        check_watch(watch)
        watch = replace(watch, camera=self._camera_of(watch).name)
        with self._lock:
            entry = self._entries.get(watch.name)
            if entry is None:
                entry = self._entries[watch.name] = self._new_entry(watch, state or WatchState(), age_sec)
            elif entry.watch != watch:
                raise BadRequestError(
                    f"watch '{watch.name}' exists with other settings: remove it first, or use another name"
                )
            return self._status(entry)

    def set_state(self, name: str, state: WatchState) -> None:
        """Set the state of a watch from an earlier run, before its first check.

        Args:
            name: Name of the watch.
            state: Its state.
        """
        with self._lock:
            entry = self._entries[name]
            entry.state = interrupted(state, entry.state.reason, level=entry.state.level)

    def _new_entry(self, watch: Watch, state: WatchState, age_sec: float) -> _Entry:
        if sum(not entry.has_ended for entry in self._entries.values()) >= self._max_watches:
            raise BadRequestError(f"there are already {self._max_watches} watches, the maximum: remove one first")
        if self._inactive_reason:
            state = interrupted(state, self._inactive_reason, level=Level.INACTIVE)
        now = self._steady()
        return _Entry(watch, now, now - age_sec, state)

    def _camera_of(self, watch: Watch) -> WatchedCamera:
        camera = self._cameras.get(watch.camera or next(iter(self._cameras)))
        if camera is None:
            raise UnknownCameraError(f"no camera '{watch.camera}': the cameras are {', '.join(self._cameras)}")
        return camera

    def remove(self, name: str) -> Watch:
        """Remove a watch and return it.

        Raises:
            BadRequestError: There is no such watch.
        """
        with self._lock:
            entry = self._entries.pop(name, None)
            known = ", ".join(self._entries) or "none"
        if entry is None:
            raise BadRequestError(f"no watch '{name}': the watches are: {known}")
        return entry.watch

    @property
    def needs_model(self) -> bool:
        """Whether there is a watch to check."""
        with self._lock:
            return not self._inactive_reason and not all(entry.has_ended for entry in self._entries.values())

    def statuses(self) -> tuple[WatchStatus, ...]:
        """Return all watches in the order in which they were added."""
        with self._lock:
            return tuple(self._status(entry) for entry in self._entries.values())

    def status(self, name: str) -> WatchStatus | None:
        """Return one watch; None if there is none of this name."""
        with self._lock:
            entry = self._entries.get(name)
            return None if entry is None else self._status(entry)

    def _status(self, entry: _Entry) -> WatchStatus:
        now = self._steady()
        self._refresh(entry, now)
        return WatchStatus(
            watch=entry.watch,
            state=entry.state,
            since=entry.since if entry.state.since is not None else None,
            checks=entry.checks,
            checked_ago_sec=None if entry.checked_at is None else now - entry.checked_at,
            interval_sec=entry.interval_sec,
            device_sec=entry.device_sec,
            age_sec=now - entry.added_at,
            late_sec=entry.late_sec,
            is_overdue=entry.due_at is not None and now - entry.due_at > _OVERDUE_AFTER * entry.watch.period_sec,
        )

    def _refresh(self, entry: _Entry, now: float) -> Candidate | None:
        """Bring a watch up to date with the time and its camera; return it if it can be checked."""
        can_be_checked = self._can_be_checked(entry, now)
        candidate = self._candidate(entry)
        if not (can_be_checked and is_due(candidate, now)):
            entry.due_at = None
            if candidate.lateness(now) >= 1.0:  # something else than its turn keeps it from being checked
                entry.turn = 0.0
        elif entry.due_at is None:
            entry.due_at = now
        return candidate if can_be_checked else None

    def _can_be_checked(self, entry: _Entry, now: float) -> bool:
        """Return whether a watch can be checked; note why not in its state."""
        if entry.has_ended:
            return False
        lifetime_sec = entry.watch.lifetime_sec
        if lifetime_sec and now - entry.created_at >= lifetime_sec:
            self._interrupt(entry, LIFETIME_OVER, Level.INACTIVE)
            return False
        if self._inactive_reason:
            return False
        camera = self._cameras[entry.watch.camera]
        if _was_emptied(camera.activity, entry.checked_stamp):
            self._interrupt(entry, _MEMORY_EMPTIED)
        silence = camera.silence
        if silence and entry.state.reason != silence:
            self._interrupt(entry, silence)
        return not silence

    # Activity -------------------------------------------------------------------------------------------------------

    def activate(self) -> None:
        """Begin to check."""
        with self._lock:
            self._inactive_reason = ""
        self.interrupt("not checked yet")

    def deactivate(self, reason: str = "the node is not active") -> None:
        """Stop checking; all watches are inactive.

        Args:
            reason: Why.
        """
        with self._lock:
            self._inactive_reason = reason
        self.interrupt(reason, level=Level.INACTIVE)

    def interrupt(self, reason: str, *, level: Level = Level.UNKNOWN) -> None:
        """Make all watches unknown until their next check.

        Args:
            reason: Why.
            level: ``UNKNOWN`` or ``INACTIVE``.
        """
        with self._lock:
            for entry in self._entries.values():
                self._interrupt(entry, reason, level)

    def _interrupt(self, entry: _Entry, reason: str, level: Level = Level.UNKNOWN) -> None:
        if entry.has_ended:
            return
        entry.state = interrupted(entry.state, reason, level=level)
        entry.checked_stamp = None  # the gate opens for the next check

    # Checks ---------------------------------------------------------------------------------------------------------

    def check(self, engines: Mapping[str, ScoringEngine], control: AskControl) -> bool:
        """Check the watches that are most due, all about one window of one camera.

        Args:
            engines: Engine of each camera.
            control: Control of the check, which a question cancels.

        Returns:
            Whether watches were checked.

        Raises:
            AskCancelledError: The check was cancelled; it is due again.
            DeviceMemoryError: The device ran out of memory.
        """
        now = self._steady()
        self._drop_windows(engines)
        group = self._next_group(now)
        if not group:
            return False
        camera, last_sec = group[0].watch.camera, group[0].watch.last_sec
        newest = self._cameras[camera].activity.newest
        if newest is None:  # emptied since the group was chosen
            return False
        result: ScoreResult | None = None
        failure: Exception | None = None
        try:
            questions = [begun.watch.question for begun in group]
            result = engines[camera].score(questions, window_sec=last_sec or None, control=control)
        except AskCancelledError:
            ended = self._steady()
            self._duty.add(ended - now, ended)
            raise
        except DelayedVlmError as error:
            failure = error
        except Exception as error:
            _LOGGER.exception("a check of watches failed")
            failure = error
        outcomes = (
            [Observation(newest, None, _described(failure)) for _ in group] if result is None else _outcomes(result)
        )
        for alert in self._record(group, outcomes, result, now):
            self._report(alert)
        if isinstance(failure, DeviceMemoryError):
            raise failure
        return True

    def _report(self, alert: Alert) -> None:
        try:
            self._on_alert(alert)
        except Exception:  # the other alerts are reported nevertheless
            _LOGGER.exception("an alert of watch %r was not reported", alert.watch.name)

    def _drop_windows(self, engines: Mapping[str, ScoringEngine]) -> None:
        """Drop the encoded windows of watches that have ended or were removed since the last check."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if not entry.has_ended]
            windows = {(entry.watch.camera, entry.watch.last_sec) for entry in entries}
        if windows == self._windows:
            return
        self._windows = windows
        for camera, engine in engines.items():
            engine.keep_windows({last_sec for name, last_sec in windows if name == camera})

    def _next_group(self, now: float) -> tuple[_Begun, ...]:
        with self._lock:
            candidates = [
                candidate for entry in self._entries.values() if (candidate := self._refresh(entry, now)) is not None
            ]
            if not self._duty.allows(now):
                return ()
            chosen = next_group(candidates, now, self._turn)
            return tuple(_Begun(watch, self._entries[watch.name].state) for watch in chosen)

    def _candidate(self, entry: _Entry) -> Candidate:
        activity = self._cameras[entry.watch.camera].activity
        waits = activity.newest is not None and is_waiting(entry.watch, entry.state, activity.newest)
        return Candidate(
            entry.watch, activity, entry.checked_at, entry.checked_stamp, waits or entry.has_failed, entry.turn
        )

    def _record(
        self, group: Sequence[_Begun], outcomes: Sequence[Observation], result: ScoreResult | None, began: float
    ) -> list[Alert]:
        """Note the outcomes of a check and return the alerts."""
        ended = self._steady()
        self._duty.add(ended - began, ended)
        alerts = []
        with self._lock:
            turns = [entry.turn for begun in group if (entry := self._entries.get(begun.watch.name)) is not None]
            self._turn = max(self._turn, min(turns, default=0.0))
            for begun, outcome in zip(group, outcomes, strict=True):
                entry = self._entries.get(begun.watch.name)
                if entry is None or entry.state is not begun.state:
                    continue  # removed, stopped or interrupted while it was checked
                entry.checks += 1
                entry.interval_sec = None if entry.checked_at is None else began - entry.checked_at
                entry.late_sec = 0.0 if entry.due_at is None else began - entry.due_at
                entry.checked_at, entry.checked_stamp, entry.due_at = began, outcome.stamp, None
                entry.turn = self._turn + entry.watch.period_sec
                entry.has_failed = result is None  # then a still scene is checked again
                entry.device_sec += (ended - began) / len(group)
                alert = _advance(entry, outcome, result)
                if alert is not None:
                    alerts.append(alert)
        return alerts


def _advance(entry: _Entry, outcome: Observation, result: ScoreResult | None) -> Alert | None:
    """Change the state of a watch; return the alert that is due."""
    watch = entry.watch
    entry.state, edge = advance(watch, entry.state, outcome)
    if result is None or outcome.p_yes is None:
        entry.first_yes = None
        return None
    newest = result.frames_used[-1]
    if entry.state.since == outcome.stamp:
        entry.since = newest
    if entry.state.yes_since is None:
        entry.first_yes = None
    elif entry.state.yes_since == outcome.stamp or entry.first_yes is None:
        entry.first_yes = newest
    if edge is None:
        return None
    is_rising = edge is Edge.RISING
    first = entry.first_yes if is_rising and entry.first_yes is not None else newest
    if is_rising and watch.once:
        entry.state = interrupted(entry.state, FIRST_ALERT, level=Level.INACTIVE)
    return Alert(
        watch=watch,
        edge=edge,
        p_yes=outcome.p_yes,
        stamp=outcome.stamp,
        first_stamp=first.stamps[1],
        evidence=(first,) if first.id == newest.id else (first, newest),
        metrics=result.metrics,
    )


def _was_emptied(activity: Activity, checked_stamp: float | None) -> bool:
    """Return whether the frames of a watch's last check are no longer in the memory, because it was emptied."""
    if checked_stamp is None:
        return False
    first, newest = activity.first, activity.newest
    return first is None or newest is None or first > checked_stamp or newest < checked_stamp


def _has_ended(state: WatchState) -> bool:
    return state.level is Level.INACTIVE and state.reason in (FIRST_ALERT, LIFETIME_OVER)


def _outcomes(result: ScoreResult) -> list[Observation]:
    stamp = result.frames_used[-1].stamps[1]
    if not result.is_complete:
        reason = "; ".join(result.metrics.warnings)
        return [Observation(stamp, None, reason) for _ in result.scores]
    return [_observation(stamp, score, result.metrics.warnings) for score in result.scores]


def _observation(stamp: float, score: YesNo, warnings: Sequence[str]) -> Observation:
    if score.is_clear:
        return Observation(stamp, score.p_yes)
    if not score.first_token:  # the model was not asked
        return Observation(stamp, None, "; ".join(warnings) or "the model was not asked")
    return Observation(
        stamp, None, f"not taken as a yes/no question: the answer starts with '{score.first_token}': rephrase it"
    )


def _described(failure: Exception | None) -> str:
    return (
        str(failure) if isinstance(failure, DelayedVlmError) else f"internal error, {type(failure).__name__}: {failure}"
    )
