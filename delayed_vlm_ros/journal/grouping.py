"""Moments of the journal: lines that a search found and that follow each other are one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from delayed_vlm_ros.journal.entry import JournalEntry, JournalMatch
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND

LINES_PER_MOMENT = 20
"""Lines to search for each moment that is wanted: an event may have several lines."""

_GAP_NS = 10 * NANOSECONDS_PER_SECOND  # between two lines of a moment, at most


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
    return (
        entry.camera == moment.entry.camera
        and match.share == moment.share
        and entry.stamp_ns - moment.end_stamp_ns <= _GAP_NS
        and moment.stamp_ns - entry.end_stamp_ns <= _GAP_NS
    )
