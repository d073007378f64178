"""Star memory: key frames of the whole past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.descriptor import Descriptor, distance, distances
from delayed_vlm_ros.memory.frame import FramePair

_FRAMES_PER_PAIR = 2
# How much an even spread over time is worth beside appearance: looks decide, time decides among what looks alike.
_TIME_WEIGHT = 0.3
# Frames of a pair further apart than this show two scenes.
_TORN_FROM = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    pair: FramePair
    descriptors: tuple[Descriptor, ...]  # of the frames it can stand for


class StarMemory:
    """A bounded set of pairs that covers the past as well as it can, in what was seen and in when.

    When it is full, the pair goes whose loss costs the least coverage: the one most like another that stays, and near
    to it in time; more important ones stay a little longer. That may be the newcomer, and it is never simply the
    oldest. A provisional pair counts one frame but has room for two reserved, so completing it drops nothing.

    Args:
        memory_size: Most frames it holds; 0 switches it off, an odd number is used down to whole pairs.

    Raises:
        ConfigurationError: `memory_size` is negative or 1.
    """

    def __init__(self, memory_size: int) -> None:
        if memory_size < 0 or memory_size == 1:
            raise ConfigurationError(
                f"star_memory_size is {memory_size} frames, but frames are kept in pairs: give 0 to switch Star memory "
                "off, else 2 or more"
            )
        self._max_pairs = memory_size // _FRAMES_PER_PAIR
        self._entries: list[_Entry] = []

    @property
    def pairs(self) -> tuple[FramePair, ...]:
        """The pairs it holds, in time order."""
        return tuple(entry.pair for entry in self._entries)

    @property
    def frame_count(self) -> int:
        """How many frames it holds; a provisional pair counts one."""
        return sum(entry.pair.frame_count for entry in self._entries)

    def contains(self, pair_id: int) -> bool:
        """Whether it holds that pair."""
        return any(entry.pair.id == pair_id for entry in self._entries)

    def novelty(self, descriptor: Descriptor) -> float:
        """Tell how far a picture is from all that is kept.

        Args:
            descriptor: The picture's descriptor.

        Returns:
            Distance to the nearest kept frame, 0..1; infinite when none is kept.
        """
        known = [known for entry in self._entries for known in entry.descriptors]
        return float(distances(descriptor, known).min()) if known else math.inf

    def add(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        """Take in a pair newer than all it holds; the least missed one leaves if need be.

        Args:
            pair: The pair.
            descriptors: Those of its frames, one or two.
        """
        self._entries.append(_Entry(pair, _standing_for(descriptors)))
        if len(self._entries) > self._max_pairs:
            del self._entries[int(np.argmin(self._losses()))]

    def update(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        """Put a completed pair in the place of the provisional one with the same id.

        Args:
            pair: The complete pair.
            descriptors: Those of its two frames.

        Raises:
            ValueError: No such pair is kept.
        """
        for index, entry in enumerate(self._entries):
            if entry.pair.id == pair.id:
                self._entries[index] = _Entry(pair, _standing_for(descriptors))
                return
        raise ValueError(f"pair {pair.id} is not in Star memory")

    def _losses(self) -> NDArray[np.float64]:
        """What the loss of each entry would cost, by entry."""
        weights = np.array([0.5 + 0.5 * entry.pair.importance for entry in self._entries])
        return weights * (self._appearance_losses() + _TIME_WEIGHT * self._time_losses())

    def _appearance_losses(self) -> NDArray[np.float64]:
        """How unlike all the others each entry's least replaceable frame is, 0..1."""
        losses = np.ones(len(self._entries))
        for index, entry in enumerate(self._entries):
            others = [known for other in self._entries if other is not entry for known in other.descriptors]
            if others:
                losses[index] = max(distances(descriptor, others).min() for descriptor in entry.descriptors)
        return losses

    def _time_losses(self) -> NDArray[np.float64]:
        """How far each entry's nearest neighbour in time is, in units of an even spread, at most 1."""
        stamps = np.array([entry.pair.first.stamp for entry in self._entries])
        if len(stamps) == 1:
            return np.ones(1)
        gaps = np.diff(stamps)
        nearest = np.minimum(np.append(np.inf, gaps), np.append(gaps, np.inf))
        return np.minimum(1.0, nearest / gaps.mean())


def _standing_for(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The frames of a pair that it shows well.

    A pair is encoded as one patch. When a cut falls between its frames the two scenes blend in it, so it does not count
    as a view of the second scene: the next pair, which shows that scene alone, shall still be found novel.
    """
    first, *rest = descriptors
    return (first, *(second for second in rest if distance(first, second) < _TORN_FROM))
