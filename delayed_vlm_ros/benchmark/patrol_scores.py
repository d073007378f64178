"""Scores of a selection of pairs, relative to the best selection that ground truth allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.benchmark.patrol import TRANSIT, Patrol
from delayed_vlm_ros.memory import Descriptor
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.memory.scoring.descriptor import distances

LENGTHS_SEC = ((0.0, 1.5), (1.5, 2.5), (2.5, 4.0), (4.0, 7.5), (7.5, 20.0), (20.0, 1e9))
"""Groups of events by duration, in seconds: minimum (inclusive) and maximum (exclusive)."""
AGES = ("oldest third", "middle third", "newest third")

_SIMILAR = 0.3  # descriptor distance below which two images count as similar


@dataclass(frozen=True)
class SelectionScore:
    """Scores of one strategy on one patrol.

    Attributes:
        kept: Number of kept pairs.
        shown: Numbers of the events shown by a kept sharp frame.
        evidence: Events shown ÷ events that the oracle shows with the same number of pairs; None without events.
        by_length: Events shown and events in total by duration group; groups without events are absent.
        by_age: Events shown and events in total by time of the event, one entry for each of ``AGES``.
        places: Share of the visited places shown by a kept sharp frame.
        redundancy: Share of the kept pairs that are similar to another kept pair.
    """

    kept: int
    shown: frozenset[int]
    evidence: float | None
    by_length: Mapping[str, tuple[int, int]]
    by_age: Mapping[str, tuple[int, int]]
    places: float
    redundancy: float


def score_selection(
    patrol: Patrol, kept: Sequence[int], pairs: int, descriptors: Mapping[int, Descriptor]
) -> SelectionScore:
    """Score the pairs kept from a patrol.

    Args:
        patrol: Patrol with its ground truth.
        kept: Numbers of the kept pairs.
        pairs: Capacity of the memory, in pairs.
        descriptors: Descriptor of each kept pair, by pair number.
    """
    shown = frozenset().union(*(patrol.events_in(pair) for pair in kept))
    possible = len(frozenset().union(*(patrol.events_in(pair) for pair in oracle(patrol, pairs))))
    visited = set(patrol.place[patrol.sharp].tolist()) - {TRANSIT}
    seen = frozenset().union(*(patrol.places_in(pair) for pair in kept))
    return SelectionScore(
        kept=len(kept),
        shown=shown,
        evidence=len(shown) / possible if possible else None,
        by_length=_tally(shown, [length_name(event.seconds) for event in patrol.events]),
        by_age=_tally(shown, [AGES[min(2, 3 * event.start // patrol.frames)] for event in patrol.events]),
        places=len(seen) / len(visited) if visited else 1.0,
        redundancy=redundancy([descriptors[pair] for pair in kept]),
    )


def oracle(patrol: Patrol, pairs: int) -> list[int]:
    """Return the pairs to keep if the ground truth is known: as many events as fit, then places.

    The greedy choice is optimal as long as events do not overlap in time.
    """
    candidates = sorted(
        {frame // FRAMES_PER_PAIR for event in patrol.events for frame in range(event.start, event.stop)}
        | {frame // FRAMES_PER_PAIR for visit in patrol.visits for frame in range(visit.start, visit.stop, 20)}
    )
    events = {pair: patrol.events_in(pair) for pair in candidates}
    places = {pair: patrol.places_in(pair) for pair in candidates}
    chosen: list[int] = []
    shown: frozenset[int] = frozenset()
    seen: frozenset[int] = frozenset()
    while candidates and len(chosen) < pairs:
        best = max(candidates, key=lambda pair: (len(events[pair] - shown), len(places[pair] - seen)))
        if not (events[best] - shown or places[best] - seen):
            break
        chosen.append(best)
        shown, seen = shown | events[best], seen | places[best]
    return sorted(chosen)


def redundancy(descriptors: Sequence[Descriptor]) -> float:
    """Return the share of images that equal another one up to exposure, noise and small shake."""
    if len(descriptors) <= 1:
        return 0.0
    similar = [
        distances(one, [*descriptors[:index], *descriptors[index + 1 :]]).min() < _SIMILAR
        for index, one in enumerate(descriptors)
    ]
    return float(np.mean(similar))


def coverage(stream: Sequence[Descriptor], descriptors: Sequence[Descriptor]) -> float:
    """Return the share of a stream's images that are similar to a kept one. It requires no ground truth."""
    if not descriptors:
        return 0.0
    similar: list[NDArray[np.bool_]] = [distances(one, descriptors).min(keepdims=True) < _SIMILAR for one in stream]
    return float(np.mean(similar)) if similar else 0.0


def length_name(seconds: float) -> str:
    """Return the name of the duration group of ``LENGTHS_SEC``."""
    low, high = next((low, high) for low, high in LENGTHS_SEC if low <= seconds < high)
    return f"{low:g} to {high:g} s" if high < LENGTHS_SEC[-1][1] else f"from {low:g} s"


def _tally(shown: frozenset[int], groups: Sequence[str]) -> dict[str, tuple[int, int]]:
    tally: dict[str, tuple[int, int]] = {}
    for number, group in enumerate(groups):
        found, all_ = tally.get(group, (0, 0))
        tally[group] = (found + (number in shown), all_ + 1)
    return tally
