"""Which watches to check next: gates, periods, and a limit on the share of device time.

Watches about the same window of the same camera form a *group*, because one encoding of the window serves all of them.
When the device time does not suffice, watches that are due take turns (stride scheduling): a check moves the next turn
of a watch back by its period. So all periods stretch by the same factor, however long the checks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from delayed_vlm_ros.inference.request import WINDOW_STRETCH
from delayed_vlm_ros.memory import Activity
from delayed_vlm_ros.watches.watch import Gate, Watch

_EARLY = 0.25  # of its period: a watch may be checked this much earlier, together with others of its group


@dataclass(frozen=True, slots=True)
class Candidate:
    """A watch as the schedule sees it.

    Attributes:
        watch: Its settings.
        activity: What has happened in the memory of its camera.
        checked_at: Time of its last check, in seconds on a steady clock; None before the first.
        checked_stamp: Stamp of the newest frame of its last check, in seconds; None before the first.
        is_waiting: Whether a check may cause an alert although nothing has changed in the scene.
        turn: Its next turn, in seconds of a time that runs more slowly than the clock if device time is short.
    """

    watch: Watch
    activity: Activity
    checked_at: float | None
    checked_stamp: float | None
    is_waiting: bool
    turn: float = 0.0

    def lateness(self, now: float) -> float:
        """Return the time since the last check in periods; infinite before the first."""
        return float("inf") if self.checked_at is None else (now - self.checked_at) / self.watch.period_sec


def next_group(candidates: Sequence[Candidate], now: float, turn: float = 0.0) -> tuple[Watch, ...]:
    """Return the watches to check now, all about the same window of the same camera; empty if none is due.

    Args:
        candidates: All watches that can be checked.
        now: Present time, in seconds on the clock of ``checked_at``.
        turn: Turn of the latest check; earlier ones count as this one, so that a gate that was closed earns no turns.
    """
    ready = [candidate for candidate in candidates if is_open(candidate)]
    due = [candidate for candidate in candidates if is_due(candidate, now)]
    if not due:
        return ()
    first = min(due, key=lambda candidate: (max(candidate.turn, turn), -candidate.lateness(now))).watch
    return tuple(
        candidate.watch
        for candidate in ready
        if (candidate.watch.camera, candidate.watch.last_sec) == (first.camera, first.last_sec)
        and candidate.lateness(now) >= 1.0 - _EARLY
    )


def is_due(candidate: Candidate, now: float) -> bool:
    """Return whether the period of a watch has passed and its gate is open."""
    return candidate.lateness(now) >= 1.0 and is_open(candidate)


def is_open(candidate: Candidate) -> bool:
    """Return whether the gate of a watch lets a check through: without new images none does."""
    activity, before = candidate.activity, candidate.checked_stamp
    if activity.newest is None or activity.newest == before:
        return False
    if candidate.watch.gate is Gate.EVERY or candidate.is_waiting or before is None or before > activity.newest:
        return True  # the last two: never checked, or time has jumped back
    happened = activity.view_changed if candidate.watch.gate is Gate.ON_CHANGE else activity.star_entered
    # What has happened within the window of the last check may have left the window since.
    return happened is not None and happened > before - WINDOW_STRETCH * candidate.watch.last_sec
