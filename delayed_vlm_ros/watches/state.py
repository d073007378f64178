"""The state of a watch, and how the outcome of a check changes it. Pure functions on frozen objects.

A watch changes from no to yes after enough checks at or above ``threshold``, and back at the first check below
``release``; between the two it keeps its level (hysteresis). A failed check is neither: it makes the level unknown and
interrupts what was about to become a yes. The next known level is compared with the last known one, so an interruption
alone causes no alert, and hides none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from delayed_vlm_ros.watches.watch import Watch


class Level(IntEnum):
    """Level of a watch, with the numbers of ``delayed_vlm_ros/msg/WatchState``."""

    INACTIVE = 0
    NO = 1
    YES = 2
    UNKNOWN = 3


class Edge(Enum):
    """A change that an alert reports."""

    RISING = "rising"
    FALLING = "falling"


@dataclass(frozen=True, slots=True)
class Observation:
    """The outcome of a check.

    Attributes:
        stamp: Stamp of the newest frame that was used, in seconds.
        p_yes: Probability of yes; None if it is unknown.
        reason: Why it is unknown; empty if it is known.
    """

    stamp: float
    p_yes: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WatchState:
    """What is known about a watch.

    Attributes:
        level: Present level.
        since: Stamp of the newest frame of the first check at this level, in seconds; None while it is not yes or no.
        p_yes: Probability of yes at the last check with a known outcome; None before it.
        reason: Why the level is unknown or inactive; empty otherwise.
        was_yes: Whether the last known level was yes.
        yes_since: Stamp of the first of the latest successive checks that count as yes, in seconds; None after any
            other check.
        recent: Whether each of the last known checks counted as yes, oldest first; at most ``of_checks``.
        alerted_at: Stamp of the last rising alert, in seconds; None before the first.
        is_alerted: Whether the last alert was a rising one.
    """

    level: Level = Level.UNKNOWN
    since: float | None = None
    p_yes: float | None = None
    reason: str = "not checked yet"
    was_yes: bool = False
    yes_since: float | None = None
    recent: tuple[bool, ...] = ()
    alerted_at: float | None = None
    is_alerted: bool = False


def advance(watch: Watch, state: WatchState, observation: Observation) -> tuple[WatchState, Edge | None]:
    """Return the state after a check, and the change that an alert must report.

    Args:
        watch: Settings of the watch.
        state: State before the check.
        observation: Outcome of the check. A stamp older than earlier ones means that time has jumped back: earlier
            stamps no longer count.
    """
    if observation.p_yes is None:
        return interrupted(state, observation.reason), None
    state = _without_later_stamps(state, observation.stamp)
    counts_as_yes = observation.p_yes >= watch.threshold
    yes_since = None
    if counts_as_yes:
        yes_since = observation.stamp if state.yes_since is None else state.yes_since
    recent = (*state.recent, counts_as_yes)[-watch.of_checks :]
    if state.was_yes:
        is_yes = observation.p_yes >= watch.release
    else:
        is_yes = counts_as_yes and _is_confirmed(watch, recent, observation.stamp, yes_since)
    level = Level.YES if is_yes else Level.NO
    changed = replace(
        state,
        level=level,
        since=state.since if level is state.level else observation.stamp,
        p_yes=observation.p_yes,
        reason="",
        was_yes=is_yes,
        yes_since=yes_since,
        recent=recent,
    )
    return _with_edge(watch, changed, observation.stamp)


def interrupted(state: WatchState, reason: str, *, level: Level = Level.UNKNOWN) -> WatchState:
    """Return the state while there are no outcomes: unknown or inactive, and nothing is about to become a yes.

    Args:
        state: State before.
        reason: Why there are none.
        level: ``UNKNOWN`` or ``INACTIVE``.
    """
    return replace(state, level=level, since=None, reason=reason, yes_since=None, recent=())


def is_waiting(watch: Watch, state: WatchState, stamp: float) -> bool:
    """Return whether a check may cause an alert although nothing has changed in the scene.

    Args:
        watch: Settings of the watch.
        state: State after the last check.
        stamp: Stamp of the newest frame, in seconds.
    """
    if not state.was_yes:
        return state.yes_since is not None  # of a hold that is not over, or of checks that must be confirmed
    return not state.is_alerted and not _is_cooling_down(watch, state, stamp)


def _is_confirmed(watch: Watch, recent: tuple[bool, ...], stamp: float, yes_since: float | None) -> bool:
    is_held = yes_since is not None and stamp - yes_since >= watch.hold_sec
    return is_held and sum(recent) >= watch.yes_checks


def _without_later_stamps(state: WatchState, stamp: float) -> WatchState:
    """Return the state without stamps that are later than this one: time has jumped back since."""

    def earlier(value: float | None) -> float | None:
        return None if value is None or value > stamp else value

    return replace(
        state, since=earlier(state.since), yes_since=earlier(state.yes_since), alerted_at=earlier(state.alerted_at)
    )


def _with_edge(watch: Watch, state: WatchState, stamp: float) -> tuple[WatchState, Edge | None]:
    """Return the state and the alert that is due; a rising one not before the end of the cool-down."""
    if state.was_yes == state.is_alerted:
        return state, None
    if not state.was_yes:
        return replace(state, is_alerted=False), Edge.FALLING
    if _is_cooling_down(watch, state, stamp):
        return state, None
    return replace(state, alerted_at=stamp, is_alerted=True), Edge.RISING


def _is_cooling_down(watch: Watch, state: WatchState, stamp: float) -> bool:
    return state.alerted_at is not None and stamp - state.alerted_at < watch.cooldown_sec
