"""Score the alerts of a watch against the times at which its answer is yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

TOLERANCE_SEC = 1.0
"""How far an alert may lie outside of an expected time, in seconds: people note times to about a second."""

RIGHT = "right"
REPEATED = "repeated"
FALSE = "false"
UNSCORED = ""

Interval = tuple[float, float]


@dataclass(frozen=True)
class WatchScores:
    """Scores of one or more watches.

    Attributes:
        expected: Number of expected times.
        found: Number of expected times with a rising alert.
        alerts: Number of rising alerts.
        false_alarms: Number of rising alerts outside of all expected times.
        delays: Time from the begin of each found time to its first alert, in seconds.
        hours: Time that was watched, in hours.
    """

    expected: int
    found: int
    alerts: int
    false_alarms: int
    delays: tuple[float, ...]
    hours: float

    @property
    def precision(self) -> float | None:
        """Share of the alerts that lie in an expected time; None without alerts."""
        return 1.0 - self.false_alarms / self.alerts if self.alerts else None

    @property
    def recall(self) -> float | None:
        """Share of the expected times with an alert; None without expected times."""
        return self.found / self.expected if self.expected else None

    @property
    def delay_sec(self) -> float | None:
        """Median delay, in seconds; None if nothing was found."""
        return median(self.delays) if self.delays else None

    @property
    def false_alarms_per_hour(self) -> float | None:
        """False alarms in an hour; None if nothing was watched."""
        return self.false_alarms / self.hours if self.hours else None


def verdicts(rising: Sequence[float], expect: Sequence[Interval], grace_sec: float) -> list[str]:
    """Return what each rising alert is: ``right``, ``repeated`` (another one of the same time) or ``false``.

    Args:
        rising: Times of the rising alerts, ascending, in seconds.
        expect: Times at which the answer is yes, ascending, in seconds.
        grace_sec: How long after an expected time its alert may come, in seconds: the hold and the period.
    """
    found: set[Interval] = set()
    given = []
    for at in rising:
        one = _expected_at(at, expect, grace_sec)
        if one is None:
            given.append(FALSE)
        else:
            given.append(REPEATED if one in found else RIGHT)
            found.add(one)
    return given


def score_alerts(
    rising: Sequence[float], expect: Sequence[Interval], grace_sec: float, duration_sec: float
) -> WatchScores:
    """Return the scores of a watch.

    Args:
        rising: Times of the rising alerts, ascending, in seconds.
        expect: Times at which the answer is yes, ascending, in seconds.
        grace_sec: As for ``verdicts``.
        duration_sec: Time that was watched, in seconds.
    """
    given = verdicts(rising, expect, grace_sec)
    right = [at for at, verdict in zip(rising, given, strict=True) if verdict == RIGHT]
    begins = [one[0] for at in right if (one := _expected_at(at, expect, grace_sec)) is not None]
    return WatchScores(
        expected=len(expect),
        found=len(right),
        alerts=len(rising),
        false_alarms=given.count(FALSE),
        delays=tuple(max(0.0, at - begin) for at, begin in zip(right, begins, strict=True)),
        hours=duration_sec / 3600.0,
    )


def total(scores: Sequence[WatchScores]) -> WatchScores:
    """Return the scores of several watches together."""
    return WatchScores(
        expected=sum(one.expected for one in scores),
        found=sum(one.found for one in scores),
        alerts=sum(one.alerts for one in scores),
        false_alarms=sum(one.false_alarms for one in scores),
        delays=tuple(delay for one in scores for delay in one.delays),
        hours=sum(one.hours for one in scores),
    )


def _expected_at(at: float, expect: Sequence[Interval], grace_sec: float) -> Interval | None:
    """Return the latest expected time that an alert may belong to."""
    matching = [one for one in expect if one[0] - TOLERANCE_SEC <= at <= one[1] + grace_sec + TOLERANCE_SEC]
    within = [one for one in matching if one[0] <= at <= one[1]]
    best = within or matching
    return best[-1] if best else None
