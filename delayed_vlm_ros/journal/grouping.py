"""Moments of the journal: lines that a search found and that follow each other are one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from delayed_vlm_ros.journal.entry import JournalEntry, JournalMatch
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

LINES_PER_MOMENT = 40
"""Lines to search for each moment that is wanted: an event may have several lines, and key frames may show it."""

# Between two lines of a moment, at most. Few pairs of an event enter Star memory, so its lines are farther apart than
# key frames: with 10 s, an event was often two moments.
_GAP_NS = 20 * NANOSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class JournalMoment:
    """One or several lines about the same time.

    Attributes:
        entry: The best line.
        share: Share of the words of the description that it has, above 0 and up to 1.
        stamp_ns: Stamp of the first frame of all lines, in nanoseconds.
        end_stamp_ns: Stamp of the last frame of all lines, in nanoseconds.
    """

    entry: JournalEntry
    share: float
    stamp_ns: int
    end_stamp_ns: int


@dataclass(frozen=True, slots=True)
class ShownSpan:
    """A span of time that found key frames show.

    Attributes:
        camera: Name of the camera.
        stamp_ns: Stamp of the first frame in its message, in nanoseconds.
        end_stamp_ns: Stamp of the last frame in its message, in nanoseconds.
    """

    camera: str
    stamp_ns: int
    end_stamp_ns: int


def without_shown(matches: Iterable[JournalMatch], shown: Sequence[ShownSpan]) -> Iterator[JournalMatch]:
    """Yield the lines without those about a moment that key frames show already."""
    return (
        match
        for match in matches
        if not any(span.camera == match.entry.camera and _is_near(match.entry, span) for span in shown)
    )


def group_lines(matches: Iterable[JournalMatch], max_moments: int) -> tuple[JournalMoment, ...]:
    """Return moments, best first: lines of one camera that are close in time and have as many of the words are one.

    Args:
        matches: Lines, best first.
        max_moments: Largest number of moments.
    """
    moments: list[JournalMoment] = []
    for match in matches:
        entry = match.entry
        index = next((at for at, moment in enumerate(moments) if _belongs(match, moment)), None)
        if index is not None:
            moment = moments[index]
            moments[index] = replace(
                moment,
                stamp_ns=min(moment.stamp_ns, entry.stamp_ns),
                end_stamp_ns=max(moment.end_stamp_ns, entry.end_stamp_ns),
            )
        elif len(moments) < max_moments:
            moments.append(JournalMoment(entry, match.share, entry.stamp_ns, entry.end_stamp_ns))
    return tuple(moments)


def _belongs(match: JournalMatch, moment: JournalMoment) -> bool:
    entry = match.entry
    return entry.camera == moment.entry.camera and match.share == moment.share and _is_near(entry, moment)


def _is_near(entry: JournalEntry, span: JournalMoment | ShownSpan) -> bool:
    return entry.stamp_ns - span.end_stamp_ns <= _GAP_NS and span.stamp_ns - entry.end_stamp_ns <= _GAP_NS
