"""Check the watches of a recording while it is replayed, in the recording's time."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from delayed_vlm_ros.errors import DeviceMemoryError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.yes_no import ScoreResult
from delayed_vlm_ros.ingest.rate import SilenceWatch
from delayed_vlm_ros.memory import Activity, KeptPair, SmartFrameManager
from delayed_vlm_ros.replay.answerers import pair_key
from delayed_vlm_ros.replay.watch_file import TimedWatch
from delayed_vlm_ros.replay.watch_scores import UNSCORED, Interval, WatchScores, score_alerts, total, verdicts
from delayed_vlm_ros.watches import Alert, Edge, Level, Watch, WatchRunner
from delayed_vlm_ros.watches.runner import ScoringEngine

_CAMERA = "recording"
_POLL_SEC = 0.1  # between two looks at what is due, as in the node
_STALE_AFTER_SEC = 1.0  # without an image, as the node's default of diagnostics.stale_after_sec
_SILENT = "no new image"


class WatchReplay:
    """The watches of a recording. Their states depend on the recording and the settings, not on the machine's speed.

    Each check that is due is made: the share of device time is measured, not limited.

    Args:
        watches: Watches with their expected times.
        engine: Engine that answers them, with the replay's memory.
        memory: The replay's memory.
    """

    def __init__(self, watches: Sequence[TimedWatch], engine: ScoringEngine, memory: SmartFrameManager) -> None:
        self._watches = watches
        self._engine = _TimedEngine(engine)
        self._camera = _Camera(memory)
        self._now = 0.0
        self._silence = SilenceWatch(0.0, _STALE_AFTER_SEC)
        self._evidence: list[KeptPair] = []
        self._shown_at: dict[float, float] = {}  # replay time of each frame, by stamp
        self._alerts: dict[str, list[dict[str, Any]]] = {timed.watch.name: [] for timed in watches}
        self._states: dict[str, list[dict[str, Any]]] = {timed.watch.name: [] for timed in watches}
        self._runner = WatchRunner(
            {_CAMERA: self._camera},
            max_watches=len(watches),
            max_duty=1.0,
            on_alert=self._on_alert,
            steady=lambda: self._now,
        )
        self._runner.activate()
        for timed in watches:
            self._runner.add(timed.watch)
        self._note_states()

    @property
    def failures(self) -> dict[str, int]:
        """Number of failed calls of the engine, by reason."""
        return dict(self._engine.failures)

    def advance(self, until: float) -> list[KeptPair]:
        """Check what becomes due before the next image.

        Args:
            until: Replay time of the next image, in seconds.

        Returns:
            Evidence of new alerts.
        """
        while self._next_poll() < until:
            self._now = self._next_poll()
            self._poll()
            if self._camera.silence:
                break  # nothing changes before the next image
        self._now = max(self._now, until)
        self._camera.silence = ""
        self._silence.tick(until)
        return self._take_evidence()

    def show(self, stamp: float) -> list[KeptPair]:
        """Check what is due when a frame has entered the memory.

        Args:
            stamp: Stamp of the frame in the memory, in seconds.

        Returns:
            Evidence of new alerts.
        """
        self._shown_at[stamp] = self._now
        self._poll()
        return self._take_evidence()

    def _next_poll(self) -> float:
        return (math.floor(self._now / _POLL_SEC + 0.5) + 1) * _POLL_SEC

    def _poll(self) -> None:
        if self._silence.silent_sec(self._now):
            self._camera.silence = _SILENT
        while self._check():
            pass
        self._note_states()

    def _check(self) -> bool:
        try:
            return self._runner.check({_CAMERA: self._engine}, AskControl())
        except DeviceMemoryError:
            return True  # the watches of this check are unknown; others may be due

    def _take_evidence(self) -> list[KeptPair]:
        evidence, self._evidence = self._evidence, []
        return evidence

    def _on_alert(self, alert: Alert) -> None:
        self._evidence += alert.evidence
        self._alerts[alert.watch.name].append(
            {
                "at": self._now,
                "first_at": self._shown_at.get(alert.first_stamp, self._now),
                "edge": alert.edge.value,
                "p_yes": alert.p_yes,
                "evidence": [pair_key(kept) for kept in alert.evidence],
                "warnings": list(alert.metrics.warnings),
            }
        )

    def _note_states(self) -> None:
        for status in self._runner.statuses():
            states, level, reason = self._states[status.watch.name], status.state.level, status.state.reason
            if not states or (states[-1]["level"], states[-1]["reason"]) != (level.name.lower(), reason):
                states.append({"at": self._now, "level": level.name.lower(), "reason": reason})

    def results(self, duration_sec: float) -> list[dict[str, Any]]:
        """Return the entries of the watches in the recording's result.

        Args:
            duration_sec: Duration of the recording, in seconds.
        """
        return [self._result(number, timed, duration_sec) for number, timed in enumerate(self._watches, start=1)]

    def _result(self, number: int, timed: TimedWatch, duration_sec: float) -> dict[str, Any]:
        watch, alerts = timed.watch, self._alerts[timed.watch.name]
        status = self._runner.status(watch.name)
        settings = {key: value for key, value in asdict(watch).items() if key not in ("name", "question", "camera")}
        scores = None
        given = [UNSCORED] * len(alerts)
        if timed.expect is not None:
            rising = [alert["at"] for alert in alerts if alert["edge"] == Edge.RISING.value]
            expect = _begun(timed.expect, duration_sec)
            scores = score_alerts(rising, expect, _grace_sec(watch), duration_sec)
            by_time = dict(zip(rising, verdicts(rising, expect, _grace_sec(watch)), strict=True))
            given = [by_time[one["at"]] if one["edge"] == Edge.RISING.value else UNSCORED for one in alerts]
        device_sec = self._engine.seconds_of(watch, [other.watch for other in self._watches])
        return {
            "number": number,
            "name": watch.name,
            "question": watch.question,
            "settings": {**settings, "gate": watch.gate.value},
            "expect": None if timed.expect is None else [list(one) for one in timed.expect],
            "states": self._states[watch.name],
            "alerts": [alert | {"verdict": verdict} for alert, verdict in zip(alerts, given, strict=True)],
            "checks": 0 if status is None else status.checks,
            "device_sec": device_sec,
            "device_sec_per_hour": device_sec / duration_sec * 3600.0 if duration_sec else None,
            "unknown_sec": _time_at(self._states[watch.name], Level.UNKNOWN, duration_sec),
            "scores": None if scores is None else scores_entry(scores),
        }

    def warnings(self, duration_sec: float) -> list[str]:
        """Return what the user should know about the watches, one sentence each."""
        warnings = [f"{count} checks of watches failed: {reason}" for reason, count in self.failures.items()]
        for timed in self._watches:
            name = timed.watch.name
            after = len(timed.expect or ()) - len(_begun(timed.expect or (), duration_sec))
            if after:
                warnings.append(
                    f"watch '{name}': {after} expected times begin after the end of the recording at "
                    f"{duration_sec:.1f} s: they are not scored"
                )
            last = self._states[name][-1]
            if last["level"] == Level.UNKNOWN.name.lower() and last["reason"] != _SILENT:
                warnings.append(f"watch '{name}' was unknown at the end: {last['reason']}")
        return warnings


class _Camera:
    """The replay's memory as a camera of watches."""

    name = _CAMERA

    def __init__(self, memory: SmartFrameManager) -> None:
        self._memory = memory
        self.silence = ""

    @property
    def activity(self) -> Activity:
        return self._memory.activity


class _TimedEngine:
    """Measures the device time of each question, and counts failures."""

    def __init__(self, engine: ScoringEngine) -> None:
        self._engine = engine
        self._seconds: defaultdict[tuple[str, float], float] = defaultdict(float)  # by question and window
        self.failures: Counter[str] = Counter()

    def score(
        self, questions: Sequence[str], *, window_sec: float | None = None, control: AskControl | None = None
    ) -> ScoreResult:
        started = time.monotonic()
        try:
            return self._engine.score(questions, window_sec=window_sec, control=control)
        except Exception as error:
            self.failures[f"{type(error).__name__}: {error}"] += 1
            raise
        finally:
            share_sec = (time.monotonic() - started) / len(questions)
            for question in questions:
                self._seconds[question, window_sec or 0.0] += share_sec

    def keep_windows(self, lengths: Collection[float]) -> None:
        self._engine.keep_windows(lengths)

    def seconds_of(self, watch: Watch, watches: Sequence[Watch]) -> float:
        """Return the device time of a watch; watches with the same question and window share theirs."""
        key = (watch.question, watch.last_sec)
        sharing = [other for other in watches if (other.question, other.last_sec) == key]
        return self._seconds[key] / len(sharing)


def scores_entry(scores: WatchScores) -> dict[str, Any]:
    """Return scores as an entry of a result."""
    return {
        "expected": scores.expected,
        "found": scores.found,
        "alerts": scores.alerts,
        "false_alarms": scores.false_alarms,
        "precision": scores.precision,
        "recall": scores.recall,
        "delay_sec": scores.delay_sec,
        "false_alarms_per_hour": scores.false_alarms_per_hour,
        "delays": list(scores.delays),
        "hours": scores.hours,
    }


def summarise_watches(watches: Sequence[dict[str, Any]], failures: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the totals of the watches of a result.

    Args:
        watches: Entries of the watches.
        failures: Number of failed calls of the engine, by reason.

    Returns:
        The totals, figures None where nothing is scored; None without watches.
    """
    if not watches:
        return None
    scored = [
        WatchScores(
            one["scores"]["expected"],
            one["scores"]["found"],
            one["scores"]["alerts"],
            one["scores"]["false_alarms"],
            tuple(one["scores"]["delays"]),
            one["scores"]["hours"],
        )
        for one in watches
        if one["scores"] is not None
    ]
    return {
        "watches": len(watches),
        "failures": dict(failures),
        "checks": sum(one["checks"] for one in watches),
        "device_sec": sum(one["device_sec"] for one in watches),
        "device_sec_per_hour": sum(one["device_sec_per_hour"] or 0.0 for one in watches),
        "unknown_sec": sum(one["unknown_sec"] for one in watches),
        "alerts": sum(alert["edge"] == Edge.RISING.value for one in watches for alert in one["alerts"]),
        "scores": scores_entry(total(scored)) if scored else None,
    }


def _grace_sec(watch: Watch) -> float:
    """Return how long after the end of an event its alert may come: the last check within it, and its confirmation."""
    return watch.period_sec * max(1, watch.of_checks) + watch.hold_sec


def _begun(expect: Sequence[Interval], duration_sec: float) -> list[Interval]:
    return [one for one in expect if one[0] <= duration_sec]


def _time_at(states: Sequence[dict[str, Any]], level: Level, duration_sec: float) -> float:
    ends = [*(state["at"] for state in states[1:]), duration_sec]
    spans = [
        max(0.0, float(end - state["at"]))
        for state, end in zip(states, ends, strict=True)
        if state["level"] == level.name.lower()
    ]
    return sum(spans)
