"""Star memory: key frames of the whole past."""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING

import numpy as np

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.descriptor import Descriptor, distances, is_cut
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import FramePair

# How much an even spread over time is worth beside appearance: looks decide, time decides among what looks alike.
_TIME_WEIGHT = 0.3


class _Views:
    """The looks of the kept frames and how far they are from each other, each distance measured once."""

    def __init__(self) -> None:
        self._descriptors: list[Descriptor] = []
        self._owners: NDArray[np.int64] = np.empty(0, np.int64)  # the pair of each
        self._between: NDArray[np.float64] = np.empty((0, 0))

    def nearest(self, descriptor: Descriptor) -> float:
        known = distances(descriptor, self._descriptors)
        return float(known.min(initial=math.inf))

    def add(self, pair_id: int, descriptor: Descriptor) -> None:
        row = distances(descriptor, self._descriptors)
        self._between = np.block([[self._between, row[:, None]], [row[None, :], np.zeros((1, 1))]])
        self._descriptors.append(descriptor)
        self._owners = np.append(self._owners, pair_id)

    def drop(self, pair_id: int) -> None:
        stay = np.flatnonzero(self._owners != pair_id)
        self._between = self._between[np.ix_(stay, stay)]
        self._descriptors = [self._descriptors[index] for index in stay]
        self._owners = self._owners[stay]

    def losses(self, pair_ids: Sequence[int]) -> NDArray[np.float64]:
        """How unlike all other pairs each pair's least replaceable frame is, 0..1."""
        is_other = self._owners[:, None] != self._owners[None, :]
        to_others = np.where(is_other, self._between, 1.0).min(axis=1)
        return np.array([to_others[self._owners == pair_id].max() for pair_id in pair_ids])


class StarMemory:
    """A bounded set of pairs that covers the past as well as it can, in what was seen and in when.

    When it is full, the pair goes whose loss costs the least coverage: the one most like another that stays, and near
    to it in time; more important ones stay a little longer. That may be the newcomer, and it is never simply the
    oldest. A provisional pair counts one frame but has room for two reserved, so completing it drops nothing. Protected
    pairs never leave; whoever protects them sees to it that they do not fill it.

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
        self._max_pairs = memory_size // FRAMES_PER_PAIR
        self._pairs: list[FramePair] = []
        self._protected: set[int] = set()
        self._views = _Views()

    @property
    def pairs(self) -> tuple[FramePair, ...]:
        """The pairs it holds, in time order."""
        return tuple(self._pairs)

    @property
    def frame_count(self) -> int:
        """How many frames it holds; a provisional pair counts one."""
        return sum(pair.frame_count for pair in self._pairs)

    @property
    def is_full(self) -> bool:
        """Whether another pair would have to take the place of one it holds; never so when it is switched off."""
        return len(self._pairs) == self._max_pairs > 0

    def contains(self, pair_id: int) -> bool:
        """Whether it holds that pair."""
        return any(pair.id == pair_id for pair in self._pairs)

    def novelty(self, descriptor: Descriptor) -> float:
        """Tell how far a picture is from all that is kept.

        Args:
            descriptor: The picture's descriptor.

        Returns:
            Distance to the nearest kept frame, 0..1; infinite when none is kept.
        """
        return self._views.nearest(descriptor)

    def add(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> bool:
        """Take in a pair that it does not hold; the least missed one leaves if need be.

        Args:
            pair: The pair; its id says where in time it belongs.
            descriptors: Those of its frames, one or two.

        Returns:
            Whether another pair left for it; not so when it found room, or was the least missed itself.
        """
        if self._max_pairs == 0:
            return False
        was_full = self.is_full
        insort(self._pairs, pair, key=lambda held: held.id)
        self._learn(pair, descriptors)
        if was_full:
            self._drop_least_missed()
        return was_full and self.contains(pair.id)

    def drop_least_missed(self, count: int, *, besides: FramePair) -> None:
        """Let pairs leave one after the other, each the one whose loss costs the least coverage then.

        Args:
            count: How many pairs; fewer leave when the others are protected. It holds more.
            besides: A pair that stays if it is kept.
        """
        for _ in range(count):
            self._drop_least_missed(besides)

    def protect(self, pair_id: int) -> None:
        """Let a pair, which may come later, never leave until it is released."""
        self._protected.add(pair_id)

    def release(self, pair_id: int) -> None:
        """Let a protected pair leave as any other when its turn comes."""
        self._protected.discard(pair_id)

    def update(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        """Put a completed pair in the place of the provisional one with the same id.

        Args:
            pair: The complete pair.
            descriptors: Those of its two frames.

        Raises:
            ValueError: No such pair is kept.
        """
        if not self.contains(pair.id):
            raise ValueError(f"pair {pair.id} is not in Star memory")
        self._pairs = [pair if kept.id == pair.id else kept for kept in self._pairs]
        self._views.drop(pair.id)
        self._learn(pair, descriptors)

    def _drop_least_missed(self, besides: FramePair | None = None) -> None:
        staying = self._protected if besides is None else {*self._protected, besides.id}
        losses = np.where([pair.id in staying for pair in self._pairs], math.inf, self._losses())
        least_missed = int(np.argmin(losses))
        if math.isinf(losses[least_missed]):
            return
        self._views.drop(self._pairs.pop(least_missed).id)

    def _learn(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        for descriptor in _standing_for(descriptors):
            self._views.add(pair.id, descriptor)

    def _losses(self) -> NDArray[np.float64]:
        """What the loss of each pair would cost."""
        weights = np.array([0.5 + 0.5 * pair.importance for pair in self._pairs])
        appearance = self._views.losses([pair.id for pair in self._pairs])
        return np.asarray(weights * (appearance + _TIME_WEIGHT * _time_losses(self._pairs)))


def _time_losses(pairs: Sequence[FramePair]) -> NDArray[np.float64]:
    """How large a blank in time the loss of each pair would leave, 0..1; 0.5 where pairs are spread evenly.

    The geometric mean of the gaps before and after it is large only when both are: a close neighbour on either side
    covers for it. Before the oldest lies a past that nothing else can cover; after the newest comes Stream memory.
    """
    gaps = np.diff([pair.first.stamp for pair in pairs])
    if not gaps.size:
        return np.ones(1)
    blanks = np.sqrt(np.append(np.inf, gaps) * np.append(gaps, gaps[-1])) / gaps.mean()
    return np.asarray(1.0 - 1.0 / (1.0 + blanks))


def _standing_for(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The frames of a pair that it shows well.

    A pair is encoded as one patch. When a cut falls between its frames the two scenes blend in it, so it does not count
    as a view of the second scene: the next pair, which shows that scene alone, shall still be found novel.
    """
    first, *rest = descriptors
    return (first, *(second for second in rest if not is_cut(first, second)))
