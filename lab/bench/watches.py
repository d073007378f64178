"""Watches over streams of synthetic rooms: alerts against the truth, and what the checks cost.

Images pass through the whole chain: sampling, memory, engine, schedule and states of the watches. The clock is that of
the stream, plus the processor time of each check.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.checkpoint import processor_geometry
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.inference.yes_no import UNKNOWN, ScoreResult, YesNo
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import Activity, MemoryConfig
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND
from delayed_vlm_ros.watches import Alert, Edge, Watch, WatchRunner, WatchStatus
from lab.bench.asked_scenes import bootstrap_weights
from lab.bench.watched_rooms import FRAME_SEC, Visit, WatchedObject, WatchedRoom, draw_room

WATCHES, ANSWERS, CLIPS = "watches", "decoded answers", "clips"
METHODS = (WATCHES, ANSWERS, CLIPS)
"""This project; a decoded answer to each question at each check; the same with nothing kept between questions."""

_CAMERA = "camera"
_GRACE_SEC = 1.0  # an alert may be this much later than hold and period allow
_ANSWERS = {"yes": YesNo(0.999, 1.0, 7.0, "yes"), "no": YesNo(0.001, 1.0, -7.0, "no")}
_LONGEST_ANSWER = 16
_BINS = np.array([0.0, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99, 1.0])


@dataclass(frozen=True)
class WatchPlan:
    """Streams and settings of the watches.

    Attributes:
        settings: Settings of every watch; name and question are replaced.
        room: One of ``watched_rooms.ROOMS``.
        minutes: Length of a stream in minutes.
        max_duty: Largest share of the device's time that checks may take.
        star: Capacity of Star memory, in frames.
        stream: Length of the Stream window, in frames.
    """

    settings: Watch = field(default_factory=lambda: Watch("", ""))
    room: str = "lively"
    minutes: float = 3.0
    max_duty: float = 1.0
    star: int = MemoryConfig.star_memory_size
    stream: int = MemoryConfig.stream_window_size

    @property
    def delay_sec(self) -> float:
        """Largest delay of an alert that counts as found, in seconds after the end of the event."""
        watch = self.settings
        needed = max(watch.hold_sec, (watch.yes_checks - 1) * watch.period_sec)
        return needed + watch.period_sec + _GRACE_SEC


@dataclass(frozen=True)
class WatchGrade:
    """Alerts of one watch against the truth.

    Attributes:
        kind: ``object``, ``shape``, ``colour`` or ``person``: what the question names.
        events: Events that began early enough to be found.
        found: Events with a rising alert in time.
        false_alarms: Rising alerts without a visit, and repeated ones in a visit while the object was clearly visible.
        delays_sec: Time from the begin of each found event to its alert, in seconds; without events that the stream
            begins with.
        is_absent: Whether no matching object is ever visible.
        checks: Number of checks.
        device_sec: Processor time of its checks, in seconds.
    """

    kind: str
    events: int
    found: int
    false_alarms: int
    delays_sec: tuple[float, ...]
    is_absent: bool
    checks: int
    device_sec: float


@dataclass(frozen=True, slots=True)
class CheckedTruth:
    """The outcome of a check, and the truth.

    Attributes:
        p_yes: Probability of yes.
        truth: Whether yes is true.
        is_steady: Whether it was the same in the two frames before.
    """

    p_yes: float
    truth: bool
    is_steady: bool


@dataclass(frozen=True)
class RoomGrade:
    """Alerts and outcomes of one stream.

    Attributes:
        hours: Length of the stream in hours.
        watches: One entry for each watch.
        outcomes: Every check whose truth is unambiguous.
        unclear: Number of checks whose outcome is neither yes nor no.
    """

    hours: float
    watches: tuple[WatchGrade, ...]
    outcomes: tuple[CheckedTruth, ...]
    unclear: int


class _StreamClock:
    """The time of a stream, plus the processor time since its newest image: other programs do not change it."""

    def __init__(self) -> None:
        self._stream_sec = 0.0
        self._since = time.process_time()

    def __call__(self) -> float:
        return self._stream_sec + time.process_time() - self._since

    def advance(self, stamp: float) -> None:
        self._stream_sec, self._since = max(stamp, self()), time.process_time()


class _Camera:
    """The camera of a stream, as watches see it."""

    name = _CAMERA
    silence = ""

    def __init__(self, engine: DelayedBatchInferenceEngine) -> None:
        self._manager = engine.frame_manager

    @property
    def activity(self) -> Activity:
        return self._manager.activity


class _AnsweringEngine:
    """Checks by decoded answers.

    Args:
        engine: Engine with the memory.
        keeps_encodings: Whether encoded state may be reused by the next question.
    """

    def __init__(self, engine: DelayedBatchInferenceEngine, *, keeps_encodings: bool) -> None:
        self._engine = engine
        self._keeps_encodings = keeps_encodings

    def score(
        self, questions: Sequence[str], *, window_sec: float | None = None, control: AskControl | None = None
    ) -> ScoreResult:
        results = [self._answer(question, window_sec, control) for question in questions]
        scores = tuple(_ANSWERS.get(result.answer.lower(), UNKNOWN) for result in results)
        return ScoreResult(scores, results[-1].frames_used, results[-1].metrics)

    def _answer(self, question: str, window_sec: float | None, control: AskControl | None) -> Any:
        if not self._keeps_encodings:
            self._engine.reset_cache()
        request = AskRequest(question, last_sec=window_sec, max_new_tokens=_LONGEST_ANSWER)
        return self._engine.answer(request, control)

    def keep_windows(self, lengths: Collection[float]) -> None:
        pass


class _Recorder:
    """Passes checks on, and records their outcomes with the stamp of the newest frame."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.keep_windows: Callable[[Collection[float]], None] = engine.keep_windows
        self.outcomes: list[tuple[float, str, YesNo]] = []

    def score(self, questions: Sequence[str], **options: Any) -> ScoreResult:
        result: ScoreResult = self._engine.score(questions, **options)
        stamp = round(result.frames_used[-1].stamps[1], 3)
        self.outcomes.extend((stamp, question, score) for question, score in zip(questions, result.scores, strict=True))
        return result


def watch_room(engine: DelayedBatchInferenceEngine, seed: int, plan: WatchPlan, method: str = WATCHES) -> RoomGrade:
    """Show a stream to an engine whose watches are checked meanwhile.

    Args:
        engine: Engine with the model.
        seed: Seed of the stream.
        plan: Streams and settings.
        method: One of ``METHODS``.
    """
    room = draw_room(seed, plan.room, plan.minutes)
    frames = MemoryConfig(plan.star, plan.stream).build()
    memory = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=frames)
    checked = memory if method == WATCHES else _AnsweringEngine(memory, keeps_encodings=method == ANSWERS)
    recorder, clock = _Recorder(checked), _StreamClock()
    clock.advance(room.stamps[0])
    alerts: dict[str, list[float]] = {watched.wanted: [] for watched in room.watched}

    def note(alert: Alert) -> None:
        if alert.edge is Edge.RISING:
            alerts[alert.watch.name].append(clock())

    runner = WatchRunner(
        {_CAMERA: _Camera(memory)}, max_watches=len(alerts), max_duty=plan.max_duty, on_alert=note, steady=clock
    )
    for watched in room.watched:
        runner.add(replace(plan.settings, name=watched.wanted, question=watched.question))
    runner.activate()
    geometry = processor_geometry(engine.model.config, engine.processor, MemoryConfig.max_pixels)
    ingestor = SamplingIngestor(
        geometry, memory.frame_manager, MemoryConfig.sample_fps, topic=_CAMERA, restart_on_jump=True
    )
    for image, stamp in zip(room.images, room.stamps, strict=True):
        clock.advance(stamp)
        stamp_ns = round(stamp * NANOSECONDS_PER_SECOND)
        decision = ingestor.decide(stamp_ns, stamp, stamp_ns)
        if decision.is_due:
            ingestor.add(image, decision)
        while runner.check({_CAMERA: recorder}, AskControl()):
            pass
    statuses = {status.watch.name: status for status in runner.statuses()}
    grades = tuple(
        _grade(watched, alerts[watched.wanted], statuses[watched.wanted], room.stamps, plan) for watched in room.watched
    )
    return RoomGrade(plan.minutes / 60.0, grades, *_outcomes(recorder, room))


def _grade(
    watched: WatchedObject, alerts: Sequence[float], status: WatchStatus, stamps: Sequence[float], plan: WatchPlan
) -> WatchGrade:
    of_visit = _by_visit(watched.visits, alerts, plan.delay_sec)
    in_visits = [alert for some in of_visit for alert in some]
    repeated = sum(_repeated(watched.truths, some) for some in of_visit)
    events, found, delays = 0, 0, []
    for visit, some in zip(watched.visits, of_visit, strict=True):
        if visit.clear_from is None or visit.clear_from + plan.delay_sec > stamps[-1]:
            continue  # not an event, or the stream ends too early
        events += 1
        found += bool(some)
        if some and visit.begin > stamps[0]:
            delays.append(some[0] - visit.clear_from)
    return WatchGrade(
        kind=_kind(watched.wanted),
        events=events,
        found=found,
        false_alarms=len(alerts) - len(in_visits) + repeated,
        delays_sec=tuple(delays),
        is_absent=not watched.visits,
        checks=status.checks,
        device_sec=status.device_sec,
    )


def _by_visit(visits: Sequence[Visit], alerts: Sequence[float], delay_sec: float) -> list[list[float]]:
    """Return the alerts during each visit, or shortly after it and before the next one."""
    found: list[list[float]] = [[] for _ in visits]
    for alert in alerts:
        number = bisect_right(visits, alert, key=lambda visit: visit.begin) - 1
        if number >= 0 and alert <= visits[number].end + delay_sec:
            found[number].append(alert)
    return found


def _repeated(truths: Mapping[float, bool | None], alerts: Sequence[float]) -> int:
    """Return the number of alerts of one visit that repeat another one although the object was always clearly visible.

    An object that was partly hidden in between may count as one that has come again.
    """
    clear = [
        all(truth for stamp, truth in truths.items() if before <= stamp <= alert) for before, alert in pairwise(alerts)
    ]
    return sum(clear)


def _kind(wanted: str) -> str:
    if wanted == PERSON:
        return PERSON
    return "object" if " " in wanted else "colour" if wanted in COLOURS else "shape"


def _outcomes(recorder: _Recorder, room: WatchedRoom) -> tuple[tuple[CheckedTruth, ...], int]:
    """Return the clear outcomes with their truth, and the number of unclear ones."""
    by_question = {watched.question: watched for watched in room.watched}
    outcomes, unclear = [], 0
    for stamp, question, score in recorder.outcomes:
        truths = by_question[question].truths
        truth = truths[stamp]
        unclear += not score.is_clear
        if score.is_clear and truth is not None:
            before = [truths.get(round(stamp - number * FRAME_SEC, 3)) for number in (1, 2)]
            outcomes.append(CheckedTruth(score.p_yes, truth, before == [truth, truth]))
    return tuple(outcomes), unclear


def grades_json(grades: Sequence[RoomGrade], seed: int = 0) -> dict[str, Any]:
    """Return the figures of some streams.

    Args:
        grades: One entry for each stream.
        seed: Seed of the bootstrap.
    """
    watches = [watch for room in grades for watch in room.watches]
    absent = [(watch, room.hours) for room in grades for watch in room.watches if watch.is_absent]
    delays = [delay for watch in watches for delay in watch.delays_sec]
    hours = sum(room.hours for room in grades)
    counts = np.array([_counts(room.watches) for room in grades])
    events, found, false_alarms = counts.sum(axis=0)
    sampled = np.array([_f1(*one) for one in bootstrap_weights(len(grades), seed) @ counts])
    checks = sum(watch.checks for watch in watches)
    kinds = dict.fromkeys(watch.kind for watch in watches)
    return {
        "streams": len(grades),
        "watches": len(watches),
        "events": int(events),
        "found": int(found),
        "false_alarms": int(false_alarms),
        "precision": _share(found, found + false_alarms),
        "recall": _share(found, events),
        "f1": {
            "mean": round(_f1(events, found, false_alarms), 4),
            "low": round(float(np.quantile(sampled, 0.025)), 4),
            "high": round(float(np.quantile(sampled, 0.975)), 4),
        },
        "delay_sec": {name: _quantile(delays, share) for name, share in (("median", 0.5), ("p90", 0.9))},
        "absent_hours": round(sum(length for _, length in absent), 3),
        "absent_false_alarms": sum(watch.false_alarms for watch, _ in absent),
        "absent_false_alarms_per_hour": _share(
            sum(watch.false_alarms for watch, _ in absent), sum(length for _, length in absent)
        ),
        "device_sec_per_hour": _share(sum(watch.device_sec for watch in watches), hours),
        "device_ms_per_check": _share(1e3 * sum(watch.device_sec for watch in watches), checks),
        "recall_by_kind": {
            kind: _share(
                sum(watch.found for watch in watches if watch.kind == kind),
                sum(watch.events for watch in watches if watch.kind == kind),
            )
            for kind in kinds
        },
        "unclear_share": _share(sum(room.unclear for room in grades), checks),
        "reliability": _reliability([outcome for room in grades for outcome in room.outcomes]),
    }


def _counts(watches: Sequence[WatchGrade]) -> tuple[int, int, int]:
    return (
        sum(watch.events for watch in watches),
        sum(watch.found for watch in watches),
        sum(watch.false_alarms for watch in watches),
    )


def _f1(events: float, found: float, false_alarms: float) -> float:
    return float(2.0 * found / max(1.0, events + found + false_alarms))


def _share(part: float, whole: float) -> float | None:
    return round(float(part) / float(whole), 4) if whole else None


def _quantile(values: Sequence[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 3) if values else None


def _reliability(outcomes: Sequence[CheckedTruth]) -> list[dict[str, float | None]]:
    """Return by range of the probability of yes: its mean, and how often yes was true."""
    p_yes = np.array([one.p_yes for one in outcomes])
    truths = np.array([one.truth for one in outcomes], bool)
    steady = np.array([one.is_steady for one in outcomes], bool)
    bins = np.digitize(p_yes, _BINS[1:-1])
    rows = []
    for number in sorted(set(bins.tolist())):
        here = bins == number
        rows.append(
            {
                "from": float(_BINS[number]),
                "to": float(_BINS[number + 1]),
                "checks": int(here.sum()),
                "p_yes": round(float(p_yes[here].mean()), 4),
                "true_yes": _share(truths[here].sum(), here.sum()),
                "steady_checks": int((here & steady).sum()),
                "steady_true_yes": _share(truths[here & steady].sum(), (here & steady).sum()),
            }
        )
    return rows
