"""Moments of the timeline: kept frames, alerts, questions and lines of the journal of one camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.web.backend import (
    ALL_CAMERAS,
    AnsweredQuestion,
    CameraSpan,
    CameraState,
    KeptFrame,
    WatchAlert,
)
from delayed_vlm_ros.web.formatting import duration, quantity

Moment: TypeAlias = KeptFrame | WatchAlert | AnsweredQuestion | JournalLine

ALERTS, QUESTIONS, JOURNAL = "Alerts", "Questions", "Journal"
"""Lanes of the moments that are no frames. Frames have one lane for each reason."""

_UNREMARKABLE = "unremarkable"
_MAX_CHARACTERS = 160
_NANOSECONDS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """A moment as the browser draws it.

    Attributes:
        key: Unique key.
        stamp_ns: Time, in nanoseconds.
        lane: Name of its row.
        kind: Name of its style, in timeline.js.
        label: Text for people, without the time.
    """

    key: str
    stamp_ns: int
    lane: str
    kind: str
    label: str

    @property
    def row(self) -> list[str | float]:
        """The event as timeline.js reads it; its time is in milliseconds."""
        return [self.key, self.stamp_ns / _NANOSECONDS_PER_MS, self.lane, self.kind, self.label]


def moments_of(
    camera: CameraState,
    alerts: Iterable[WatchAlert],
    answers: Iterable[AnsweredQuestion],
    lines: Iterable[JournalLine],
    *,
    is_first: bool,
) -> dict[str, Moment]:
    """Return the moments of a camera by a key that is unique among all of them.

    Args:
        camera: The camera.
        alerts: Alerts of all cameras.
        answers: Answered questions about all cameras.
        lines: Lines of the journal about all cameras.
        is_first: Whether the camera is the first one, to which questions without a camera go.
    """
    names = {camera.name, ALL_CAMERAS, *([""] if is_first else [])}
    return {
        **{f"f{frame.key}": frame for frame in camera.frames},
        **{f"a{alert.key}": alert for alert in alerts if alert.camera == camera.name},
        **{f"q{answer.key}": answer for answer in answers if answer.camera in names},
        **{f"j{line.id}": line for line in lines if line.camera == camera.name},
    }


def event_of(key: str, moment: Moment) -> TimelineEvent:
    """Return a moment as the browser draws it."""
    lane, kind, label = _appearance(moment)
    if len(label) > _MAX_CHARACTERS:
        label = f"{label[:_MAX_CHARACTERS]}…"
    return TimelineEvent(key, moment.stamp_ns, lane, kind, label)


def _appearance(moment: Moment) -> tuple[str, str, str]:
    """Return the lane, kind and label of a moment."""
    if isinstance(moment, KeptFrame):
        reason = moment.reason or _UNREMARKABLE
        kind = "marked" if moment.marked else "star" if moment.in_star else "stream"
        mark = f", marked {moment.label}".rstrip() if moment.marked else ""
        return reason, kind, f"Frame, {reason}, score {moment.importance:.2f}{mark}"
    if isinstance(moment, WatchAlert):
        answer = "Yes" if moment.is_rising else "No"
        return ALERTS, answer.lower(), f"Alert: {moment.question} {answer}"
    if isinstance(moment, AnsweredQuestion):
        kind = "failed" if moment.error else "answered"
        return QUESTIONS, kind, f"Question: {moment.question} {moment.error or moment.answer}"
    return JOURNAL, "line", f"Journal: {moment.caption}"


def changes(before: Mapping[str, Moment], after: Mapping[str, Moment]) -> Iterator[tuple[str, Moment | None]]:
    """Yield the keys of all moments that differ, with the new moment; None for one that is gone."""
    for key, moment in after.items():
        known = before.get(key)
        if known is not moment and known != moment:
            yield key, moment
    for key in before:
        if key not in after:
            yield key, None


def gap_summary(spans: Sequence[CameraSpan], since: str) -> str:
    """Return what is known about the images of a camera, as a sentence.

    Args:
        spans: Times with images and gaps, oldest first.
        since: Time of the first observation, as text.
    """
    if not spans:
        return "Gaps of the camera are not known yet."
    gaps = [span for span in spans if not span.has_images]
    if not gaps:
        return f"No gap of the camera since {since}, when this page began to observe it."
    total = sum(span.until_ns - span.since_ns for span in gaps) / 1e9
    return f"{quantity(len(gaps), 'gap')} of the camera since {since}, {duration(total)} in total."
