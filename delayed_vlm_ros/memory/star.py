"""Star memory: key frames of the whole past."""

from __future__ import annotations

import math
from bisect import insort
from typing import TYPE_CHECKING

import numpy as np

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.memory.scoring.descriptor import (
    CELLS,
    Descriptor,
    distance,
    distances,
    distances_and_extents,
    is_cut,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.frame import FramePair, KeptPair
    from delayed_vlm_ros.memory.scoring.tracks import Track

# How much an even spread over time is worth beside appearance: looks decide, time decides among what looks alike.
_TIME_WEIGHT = 0.3
# How much coverage in general is worth beside a brief thing of clear contrast, which is worth 1.
_COVERAGE_WEIGHT = 0.25
# And the only view of a place.
_PLACE_WEIGHT = 0.5
# And how it was at the start, which nothing that comes later shows; less than a brief thing of clear contrast.
_START_WEIGHT = 0.4
# Share of the image that differs between views of one place at most, and of two places for sure.
_ONE_PLACE, _TWO_PLACES = 0.25, 0.5


# Blocks to a side of a coarse glance, and how many frames are looked at more closely after it.
_BLOCKS = 6
_LOOKED_AT = 8
# How many distances of a frame must be known at least.
_FEWEST_KNOWN = 4
# Distance up to which one of them is enough.
_NEAR_ENOUGH = 0.2
# What a brief thing must be worth for its pair to be brought in late.
MIN_EVENT_VALUE = 0.25


class _Views:
    """The looks of the kept frames and how far they are from each other, each distance measured once."""

    def __init__(self) -> None:
        self._descriptors: list[Descriptor] = []
        self._owners: NDArray[np.int64] = np.empty(0, np.int64)  # the pair of each
        self._between: NDArray[np.float64] = np.empty((0, 0))
        self._extents: NDArray[np.float64] = np.empty((0, 0))
        self._coarse: NDArray[np.float32] = np.empty((0, 3 * _BLOCKS**2), np.float32)

    def nearest(self, descriptor: Descriptor) -> float:
        first, *others = [self._descriptors[index] for index in self._likeliest(descriptor, range(len(self._owners)))]
        near = distance(descriptor, first)
        return near if near < _NEAR_ENOUGH else float(distances(descriptor, others).min(initial=near))

    def _likeliest(self, descriptor: Descriptor, indices: Sequence[int]) -> Sequence[int]:
        """Those few of the frames that an image is most like at a coarse glance, the likeliest first.

        Most frames need no closer look.
        """
        chosen = np.fromiter(indices, np.int64)
        apart = np.abs(self._coarse[chosen] - _coarse(descriptor)).sum(axis=1)
        return [int(index) for index in chosen[np.argsort(apart)[:_LOOKED_AT]]]

    def add(self, pair_id: int, descriptor: Descriptor) -> None:
        self._between, self._extents = (_with_row(matrix) for matrix in (self._between, self._extents))
        self._descriptors.append(descriptor)
        self._coarse = np.vstack([self._coarse, _coarse(descriptor)])
        self._owners = np.append(self._owners, pair_id)
        self._measure(len(self._owners) - 1)

    def _measure(self, index: int) -> None:
        """Compare a frame with those it is likeliest to be like; the others are taken to be far away."""
        descriptor = self._descriptors[index]
        others = [one for one in range(len(self._owners)) if one != index]
        likeliest = self._likeliest(descriptor, others)
        near, wide = distances_and_extents(descriptor, [self._descriptors[one] for one in likeliest])
        for matrix, found in ((self._between, near), (self._extents, wide)):
            matrix[index, likeliest] = matrix[likeliest, index] = found

    def drop(self, pair_id: int) -> None:
        stay = np.flatnonzero(self._owners != pair_id)
        self._between = self._between[np.ix_(stay, stay)]
        self._extents = self._extents[np.ix_(stay, stay)]
        self._coarse = self._coarse[stay]
        self._descriptors = [self._descriptors[index] for index in stay]
        self._owners = self._owners[stay]
        # Who has lost all that it is like may be like others, which it was not compared with then.
        alone = (np.isinf(self._between).sum(axis=1) >= len(stay) - _FEWEST_KNOWN) & (len(stay) > _FEWEST_KNOWN)
        for index in np.flatnonzero(alone):
            self._measure(int(index))

    def losses(self, pair_ids: Sequence[int]) -> NDArray[np.float64]:
        """How unlike all other pairs each pair's least replaceable frame is, 0..1."""
        is_other = self._owners[:, None] != self._owners[None, :]
        to_others = np.where(is_other, self._between, 1.0).min(axis=1, initial=1.0)
        return np.array([to_others[self._owners == pair_id].max() for pair_id in pair_ids])

    def place_losses(self, pair_ids: Sequence[int], views: set[int]) -> NDArray[np.float64]:
        """How little each pair's place is shown by other pairs, 0..1; of pairs that are views of a place, else 0."""
        is_view = np.isin(self._owners, list(views))
        is_other = (self._owners[:, None] != self._owners[None, :]) & is_view[None, :]
        to_others = np.where(is_other, self._extents, 1.0).min(axis=1, initial=1.0)
        alone = np.clip((to_others - _ONE_PLACE) / (_TWO_PLACES - _ONE_PLACE), 0.0, 1.0) * is_view
        # The last frame is the one that was found to be a view; the one before it may be blurred.
        return np.array([alone[self._owners == pair_id][-1] for pair_id in pair_ids])

    def is_new_place(self, descriptor: Descriptor, views: set[int]) -> bool:
        """Whether no view that is kept shows that place."""
        known = [index for index, owner in enumerate(self._owners) if owner in views]
        likeliest = [self._descriptors[index] for index in self._likeliest(descriptor, known)]
        # The likeliest alone is mostly enough.
        parts = (likeliest[:1], likeliest[1:])
        return all(distances_and_extents(descriptor, part)[1].min(initial=1.0) > _TWO_PLACES for part in parts)


def _coarse(descriptor: Descriptor) -> NDArray[np.float32]:
    """A descriptor's values over large blocks, without the gain; flat."""
    side = CELLS // _BLOCKS
    blocks = descriptor.values.reshape(3, _BLOCKS, side, _BLOCKS, side).mean(axis=(2, 4)).reshape(3, -1)
    return np.asarray(blocks - blocks.mean(axis=1, keepdims=True), np.float32).ravel()


def _with_row(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix with a row and a column more, of which nothing is known yet."""
    larger = np.full((len(matrix) + 1, len(matrix) + 1), np.inf)
    larger[:-1, :-1] = matrix
    larger[-1, -1] = 0.0
    return larger


class StarMemory:
    """A bounded set of pairs that covers the past as well as it can, in what was seen and in when.

    When it is full, the pair goes whose loss costs the least coverage: the one most like another that stays, and near
    to it in time; more important ones stay a little longer. That may be the newcomer, and it is never simply the
    oldest: how it was at the start is worth something of its own. A provisional pair counts one frame but has room for
    two reserved, so completing it drops nothing. Protected pairs never leave; whoever protects them sees to it that
    they do not fill it.

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
        self._places: set[int] = set()  # pairs that are views of a place
        self._new_places: set[int] = set()  # those that came as the only one of it
        self._tracks: dict[int, list[Track]] = {}
        self._earlier: dict[int, tuple[float, str]] = {}  # what an earlier memory found late: what worth, and why

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
        """Tell how far an image is from all that is kept.

        Args:
            descriptor: The image's descriptor.

        Returns:
            Distance to the nearest of the kept frames most like it, 0..1, or to the first one found that is near enough
            to say that the image is not novel; infinite when none is kept.
        """
        return self._views.nearest(descriptor) if self._pairs else math.inf

    def is_new_place(self, descriptor: Descriptor) -> bool:
        """Whether no kept view shows that place."""
        return self._views.is_new_place(descriptor, self._places)

    def add_place(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> bool:
        """Take in a pair as the only view of a place; see `add`."""
        has_evicted = self.add(pair, descriptors)
        if self.contains(pair.id):
            self._new_places.add(pair.id)
        return has_evicted

    def judge(self, pair_id: int, tracks: Sequence[Track], *, is_view: bool) -> None:
        """Learn what a pair, which may come right after, is worth.

        Args:
            pair_id: The pair.
            tracks: The things that it shows best.
            is_view: Whether it shows a place.
        """
        if is_view:
            self._places.add(pair_id)
        known = self._tracks.setdefault(pair_id, [])
        known += [track for track in tracks if track not in known]

    def restore(self, kept: KeptPair, descriptors: Sequence[Descriptor]) -> None:
        """Take in a pair that an earlier memory held, with what that found late; see `add`.

        It counts as a view of its place unless something is in the way.
        """
        if self._max_pairs == 0:
            return
        self._earlier[kept.id] = (kept.deferred_score, kept.late_reason)
        self._places.add(kept.id)
        self.add(kept.pair, descriptors)

    def moment_value(self, pair_id: int) -> float:
        """What the things that a pair shows best are worth, 0..1."""
        moment = self._moment(pair_id)
        earlier, _ = self._earlier.get(pair_id, (0.0, ""))
        return max(earlier, moment.value if moment is not None else 0.0)

    def late_reason(self, pair_id: int) -> str:
        """What was found in a pair late, in a few words, as far as it is still worth a place; empty: nothing."""
        moment = self._moment(pair_id)
        if moment is not None and moment.value >= MIN_EVENT_VALUE:
            return "brief event" if moment.came_and_went else "new thing"
        _, earlier = self._earlier.get(pair_id, (0.0, ""))
        return "new place" if pair_id in self._new_places else earlier

    def _moment(self, pair_id: int) -> Track | None:
        """The thing most worth keeping of those that a pair shows best."""
        tracks = [track for track in self._tracks.get(pair_id, ()) if track.pair_id == pair_id]
        return max(tracks, key=lambda track: track.value, default=None)

    def forget_judgements(self, before: int) -> None:
        """Forget what is known of pairs that are not kept and older than one."""
        held = {pair.id for pair in self._pairs}
        self._earlier = {one: found for one, found in self._earlier.items() if one in held}
        self._places = {one for one in self._places if one in held or one >= before}
        self._new_places &= self._places
        self._tracks = {one: tracks for one, tracks in self._tracks.items() if one in held or one >= before}

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

    def evict_least_valuable(self, count: int, *, keep: FramePair) -> None:
        """Let pairs leave one after the other, each the one whose loss costs the least coverage then.

        Args:
            count: How many pairs; fewer leave when the others are protected. It holds more.
            besides: A pair that stays if it is kept.
        """
        for _ in range(count):
            self._drop_least_missed(keep)

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
        for descriptor in _standing_for(descriptors)[1:]:  # the first one's is known
            self._views.add(pair.id, descriptor)

    def _drop_least_missed(self, keep: FramePair | None = None) -> None:
        staying = self._protected if keep is None else {*self._protected, keep.id}
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
        coverage = weights * (appearance + _TIME_WEIGHT * _time_losses(self._pairs))
        pair_ids = [pair.id for pair in self._pairs]
        moments = np.array([self.moment_value(pair_id) for pair_id in pair_ids])
        # A thing in the way makes no ordinary view of a place: without one, every view of it would be novel.
        ordinary = {one for one, value in zip(pair_ids, moments, strict=True) if value < MIN_EVENT_VALUE}
        places = self._views.place_losses(pair_ids, self._places & ordinary)
        losses = moments + _PLACE_WEIGHT * places + _COVERAGE_WEIGHT * coverage
        if self._max_pairs > 1:  # the only pair must not be the first one for ever
            losses[0] += _START_WEIGHT
        return np.asarray(losses)


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
