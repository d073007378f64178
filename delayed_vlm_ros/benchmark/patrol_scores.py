"""How good a choice of pairs is, beside what somebody could keep who knows the truth."""

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
"""Events are told apart by how long they last: from, and up to but not with (s)."""
AGES = ("oldest third", "middle third", "newest third")

_ALIKE = 0.3  # distance of descriptors up to which two images show the same


@dataclass(frozen=True)
class SelectionScore:
    """One strategy on one patrol.

    Attributes:
        kept: How many pairs it kept.
        shown: Numbers of the events that it kept a sharp frame of.
        evidence: Events shown ÷ events that the oracle shows with as many pairs; None where there are none.
        by_length: For each of ``LENGTHS_SEC`` that there are events of: how many of them it shows, and of how many.
        by_age: The same for each of ``AGES``, from when in the patrol they happened.
        places: Share of the visited places of which it kept a sharp view.
        redundancy: Share of its pairs that look like another one it kept.
    """

    kept: int
    shown: frozenset[int]
    evidence: float | None
    by_length: Mapping[str, tuple[int, int]]
    by_age: Mapping[str, tuple[int, int]]
    places: float
    redundancy: float


def score_selection(patrol: Patrol, kept: Sequence[int], pairs: int, looks: Mapping[int, Descriptor]) -> SelectionScore:
    """Judge which pairs were kept of a patrol.

    Args:
        patrol: With its truth.
        kept: Numbers of the pairs.
        pairs: How many there was room for.
        looks: What each kept pair looks like.
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
        redundancy=redundancy([looks[pair] for pair in kept]),
    )


def oracle(patrol: Patrol, pairs: int) -> list[int]:
    """The pairs to keep if one knows the truth: as many events as fit, then places.

    Greedy, which is the best there is as long as events do not overlap in time.
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


def redundancy(looks: Sequence[Descriptor]) -> float:
    """Share of images that look like another of them, but for exposure, noise and small shake."""
    if len(looks) <= 1:
        return 0.0
    alike = [distances(look, [*looks[:index], *looks[index + 1 :]]).min() < _ALIKE for index, look in enumerate(looks)]
    return float(np.mean(alike))


def coverage(stream: Sequence[Descriptor], looks: Sequence[Descriptor]) -> float:
    """Share of a stream's images that look like a kept one: what can be said where no truth is known."""
    if not looks:
        return 0.0
    alike: list[NDArray[np.bool_]] = [distances(one, looks).min(keepdims=True) < _ALIKE for one in stream]
    return float(np.mean(alike)) if alike else 0.0


def length_name(seconds: float) -> str:
    """Which of ``LENGTHS_SEC`` a length is, for people."""
    low, high = next((low, high) for low, high in LENGTHS_SEC if low <= seconds < high)
    return f"{low:g} to {high:g} s" if high < LENGTHS_SEC[-1][1] else f"from {low:g} s"


def _tally(shown: frozenset[int], groups: Sequence[str]) -> dict[str, tuple[int, int]]:
    tally: dict[str, tuple[int, int]] = {}
    for number, group in enumerate(groups):
        found, all_ = tally.get(group, (0, 0))
        tally[group] = (found + (number in shown), all_ + 1)
    return tally
