"""Changes of one watch, from the states and alerts that a node publishes, and their text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from delayed_vlm_ros.cli.terminal import literal
from delayed_vlm_ros.time import nanoseconds_of, seconds_of
from delayed_vlm_ros.watches import Level
from delayed_vlm_ros.watches.runner import FIRST_ALERT, LIFETIME_OVER
from delayed_vlm_ros.web.formatting import clock

if TYPE_CHECKING:
    from delayed_vlm_ros.msg import Alert, KeyFrame, WatchState

_RISING = 1  # as in Alert.msg
_STYLES = {Level.INACTIVE: "dim", Level.NO: "green", Level.YES: "bold red", Level.UNKNOWN: "yellow"}
_ALERT_WAIT_SEC = 1.0  # for the alert of a new state: it has the evidence


@dataclass(frozen=True)
class Change:
    """A change of a watch.

    Attributes:
        level: Level of the watch.
        stamp_ns: Stamp of the first frame at this level, in nanoseconds; 0 if there is none.
        p_yes: Probability of yes; NaN if unknown.
        reason: Why the level is unknown or inactive, or not yes despite a high probability; empty otherwise.
        alert: The alert with the evidence; None if the node published none.
    """

    level: Level
    stamp_ns: int
    p_yes: float
    reason: str = ""
    alert: Alert | None = None

    @property
    def is_rising(self) -> bool:
        """Whether it has the alert of a change to yes."""
        return self.alert is not None and self.level == Level.YES


class WatchChanges:
    """Joins the states and alerts of one watch, which arrive on two topics in any order.

    A node repeats its last alerts for every new subscriber: those of an earlier watch of this name are left out.

    Args:
        name: Name of the watch.

    Attributes:
        name: See above.
        interruption: Why the newest state is out of date; empty while it is not.
    """

    def __init__(self, name: str) -> None:
        self.interruption = ""
        self.name = name
        self._state: WatchState | None = None
        self._differs_since: float | None = None
        self._has_begun = False  # a known level, from which on alerts are of this watch
        self._shown: tuple[Level, str] | None = None  # level and reason
        self._waiting: list[Alert] = []
        self._seen: set[tuple[int, int]] = set()  # id and stamp of alerts

    @property
    def has_ended(self) -> bool:
        """Whether the watch is never checked again, and this was shown."""
        return self._shown in ((Level.INACTIVE, FIRST_ALERT), (Level.INACTIVE, LIFETIME_OVER))

    @property
    def warning(self) -> str:
        """Why the watch is checked less often than its period demands; empty otherwise."""
        return str(self._state.warning) if self._state is not None else ""

    def add_states(self, states: Sequence[WatchState]) -> bool:
        """Note the newest states; return whether the watch is among them."""
        own = next((state for state in states if state.settings.name == self.name), None)
        if own is not None:
            self._state = own
            since_ns = nanoseconds_of(own.since)
            if not self._has_begun and since_ns:
                self._has_begun = True
                self._waiting = [alert for alert in self._waiting if nanoseconds_of(alert.header.stamp) >= since_ns]
        return own is not None

    def add_alert(self, alert: Alert) -> None:
        """Note an alert of any watch."""
        key = int(alert.id), nanoseconds_of(alert.header.stamp)
        if alert.watch == self.name and key not in self._seen:
            self._seen.add(key)
            self._waiting.append(alert)

    def take(self, now: float) -> list[Change]:
        """Return the changes since the last call, oldest first.

        Args:
            now: Present time, in seconds on a steady clock.
        """
        if self.interruption:
            self._differs_since = None
            return self._interrupted(self.interruption)
        state = self._state
        changes = self._take_alerts() if self._has_begun else []
        if state is None or (state.level, state.reason) == self._shown:
            self._differs_since = None
            return changes
        if self._differs_since is None:
            self._differs_since = now
        has_waited = now - self._differs_since >= _ALERT_WAIT_SEC
        if state.level == Level.UNKNOWN or self._shown is None or has_waited:
            if state.level == Level.INACTIVE and state.checks and not self._has_begun:  # ended with its first check
                self._waiting, self._has_begun = self._waiting[-1:], True
                changes = self._take_alerts()
            self._shown = Level(state.level), state.reason
            self._differs_since = None
            changes.append(_change_of_state(state))
        return changes

    def _take_alerts(self) -> list[Change]:
        changes = [_change_of_alert(alert) for alert in self._waiting]
        self._waiting = []
        if changes:
            self._shown = changes[-1].level, ""
        return changes

    def _interrupted(self, reason: str) -> list[Change]:
        if self._shown == (Level.UNKNOWN, reason):
            return []
        self._shown = Level.UNKNOWN, reason
        return [Change(Level.UNKNOWN, 0, math.nan, reason)]


def _change_of_state(state: WatchState) -> Change:
    is_held_back = state.level == Level.NO and state.p_yes >= state.settings.threshold
    reason = "not yes for long enough yet" if is_held_back else state.reason
    return Change(Level(state.level), nanoseconds_of(state.since), state.p_yes, reason)


def _change_of_alert(alert: Alert) -> Change:
    level = Level.YES if alert.edge == _RISING else Level.NO
    return Change(level, nanoseconds_of(alert.header.stamp), alert.p_yes, alert=alert)


def show_change(console: Console, change: Change, shown_warnings: set[str]) -> None:
    """Show a change on one line, and its evidence below.

    Args:
        console: Target console.
        change: The change.
        shown_warnings: Warnings that were shown before, which are left out; those of this change are added.
    """
    time = clock(change.stamp_ns) if change.stamp_ns else "no frame"
    console.print(f"{time}  {_level(change.level)}  {_details(change)}", highlight=False, soft_wrap=True)
    if change.alert is not None:
        warnings = [warning for warning in change.alert.metrics.warnings if warning not in shown_warnings]
        shown_warnings.update(warnings)
        for line in (*_evidence(change.alert), *map(_warning_line, warnings)):
            console.print(f"          {line}", highlight=False, soft_wrap=True)


def _level(level: Level) -> str:
    return f"[{_STYLES[level]}]{level.name:8}[/]"


def _details(change: Change) -> str:
    if change.level in (Level.UNKNOWN, Level.INACTIVE):
        return literal(change.reason)
    first_ns = nanoseconds_of(change.alert.first_stamp) if change.alert is not None else 0
    began = f", first seen {clock(first_ns)}" if change.level == Level.YES and 0 < first_ns < change.stamp_ns else ""
    reason = f", {literal(change.reason)}" if change.reason else ""
    return f"p(yes) {change.p_yes:.2f}{began}{reason}"


def _evidence(alert: Alert) -> list[str]:
    stamps = [(frame.id, seconds_of(nanoseconds_of(frame.end_stamp))) for frame in alert.evidence]
    frames = [f"key frame {number}, stamp {stamp:.3f} s" for number, stamp in stamps]
    pose = [_pose_text(alert.pose)] if alert.pose_valid else []
    return [*frames, *pose]


def _warning_line(warning: str) -> str:
    return f"[yellow]warning:[/] {literal(warning)}"


def _pose_text(stamped: Any) -> str:
    at, turn = stamped.pose.position, stamped.pose.orientation
    heading = math.degrees(math.atan2(2 * (turn.w * turn.z + turn.x * turn.y), 1 - 2 * (turn.y**2 + turn.z**2)))
    frame = literal(stamped.header.frame_id) or "an unnamed frame"
    return f"camera at x {at.x:.2f} m, y {at.y:.2f} m, z {at.z:.2f} m, heading {heading:.0f}° in {frame}"


def change_json(change: Change) -> dict[str, Any]:
    """Return the object that ``delayed-vlm watch --json`` prints for a change."""
    alert = change.alert
    return {
        "level": change.level.name.lower(),
        "stamp": seconds_of(change.stamp_ns) if change.stamp_ns else None,
        "p_yes": _number(change.p_yes),
        "reason": change.reason,
        "first_stamp": seconds_of(nanoseconds_of(alert.first_stamp)) if alert is not None else None,
        "evidence": [_frame_json(frame) for frame in alert.evidence] if alert is not None else [],
        "pose": _pose_json(alert.pose) if alert is not None and alert.pose_valid else None,
        "warnings": list(alert.metrics.warnings) if alert is not None else [],
    }


def _frame_json(frame: KeyFrame) -> dict[str, Any]:
    return {
        "id": frame.id,
        "stamp": seconds_of(nanoseconds_of(frame.header.stamp)),
        "end_stamp": seconds_of(nanoseconds_of(frame.end_stamp)),
    }


def _pose_json(stamped: Any) -> dict[str, Any]:
    at, turn = stamped.pose.position, stamped.pose.orientation
    return {
        "frame_id": stamped.header.frame_id,
        "position": [at.x, at.y, at.z],
        "orientation": [turn.x, turn.y, turn.z, turn.w],
    }


def show_watches(console: Console, states: Sequence[WatchState]) -> None:
    """Show all watches of a node: level, question and settings on one line, cost and reason below."""
    if not states:
        console.print("no watches", highlight=False)
    for state in states:
        settings = state.settings
        name = literal(settings.name)
        question = "" if settings.name == settings.question else f": {literal(settings.question)}"
        console.print(f"{_level(Level(state.level))}  [bold]{name}[/]{question}", highlight=False, soft_wrap=True)
        for line in (*_reasons(state), settings_text(settings), _cost(state)):
            console.print(f"          {line}", highlight=False, soft_wrap=True)


def settings_text(settings: Any) -> str:
    """Return camera, window, period and gate of a watch."""
    window = f"last {settings.last_sec:g} s" if settings.last_sec > 0 else "all kept frames"
    gates = ("", ", only after a change of the view", ", only after a new key frame in Star memory")
    return f"camera {literal(settings.camera)}, {window}, every {settings.period_sec:g} s{gates[settings.gate]}"


def _reasons(state: WatchState) -> list[str]:
    if state.level in (Level.NO, Level.YES):
        since = f", since {clock(nanoseconds_of(state.since))}" if nanoseconds_of(state.since) else ""
        known = f"p(yes) {state.p_yes:.2f}{since}"
    else:
        known = literal(state.reason)
    return [known, *([_warning_line(state.warning)] if state.warning else [])]


def _cost(state: WatchState) -> str:
    ago = f", the last one {state.checked_ago_sec:.1f} s ago" if state.checked_ago_sec >= 0 else ""
    checks = "1 check" if state.checks == 1 else f"{state.checks} checks"
    return f"{checks}{ago}, {state.device_sec_per_hour:.1f} s of device time in an hour"


def state_json(state: WatchState) -> dict[str, Any]:
    """Return a watch with its state as a JSON object."""
    settings = state.settings
    since_ns = nanoseconds_of(state.since)
    return {
        "name": settings.name,
        "question": settings.question,
        "camera": settings.camera,
        "last_sec": _number(max(0.0, settings.last_sec)),  # 0: all kept frames
        "period_sec": _number(settings.period_sec),
        "level": Level(state.level).name.lower(),
        "since": seconds_of(since_ns) if since_ns else None,
        "p_yes": _number(state.p_yes),
        "reason": state.reason,
        "warning": state.warning,
        "checks": state.checks,
        "checked_ago_sec": None if state.checked_ago_sec < 0 else _number(state.checked_ago_sec),
        "device_sec_per_hour": _number(state.device_sec_per_hour),
    }


def _number(value: float) -> float | None:
    """Return a number of a message as short as it was meant; None for NaN, which JSON lacks."""
    return None if math.isnan(value) else float(f"{value:.7g}")
