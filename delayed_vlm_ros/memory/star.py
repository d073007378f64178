"""Star memory: key frames of the whole past."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR, FramePair, KeptPair
from delayed_vlm_ros.memory.scoring.descriptor import (
    CELLS,
    Descriptor,
    distance,
    distances,
    distances_and_extents,
    is_cut,
)
from delayed_vlm_ros.memory.scoring.tracks import Track

# Weights relative to a brief event of clear contrast, which has the value 1.
_COVERAGE_WEIGHT = 0.25  # of coverage of appearance and time
_PLACE_WEIGHT = 0.5  # of the only view of a place
_START_WEIGHT = 0.4  # of the oldest pair: no later pair shows the start
# Weight of even coverage over time relative to appearance: time decides among pairs that look alike.
_TIME_WEIGHT = 0.3
# Share of the image that differs: at most this between views of one place, at least that between two places.
_ONE_PLACE, _TWO_PLACES = 0.25, 0.5

# Blocks per side of the coarse comparison, and the number of frames compared in full after it.
_BLOCKS = 6
_CANDIDATES = 8
# Minimum number of known distances per frame.
_MIN_KNOWN = 4
# A known distance up to this value needs no further comparison.
_NEAR_ENOUGH = 0.2

MIN_EVENT_VALUE = 0.25
"""Minimum value of an event for its pair to enter Star memory late."""


class _Views:
    """Descriptors of the kept frames and the distances between them, each computed once."""

    def __init__(self) -> None:
        self._descriptors: list[Descriptor] = []
        self._owners: NDArray[np.int64] = np.empty(0, np.int64)  # pair id of each descriptor
        self._between: NDArray[np.float64] = np.empty((0, 0))
        self._extents: NDArray[np.float64] = np.empty((0, 0))
        self._coarse: NDArray[np.float32] = np.empty((0, 3 * _BLOCKS**2), np.float32)

    def nearest(self, descriptor: Descriptor) -> float:
        first, *others = [self._descriptors[index] for index in self._candidates(descriptor, range(len(self._owners)))]
        near = distance(descriptor, first)
        return near if near < _NEAR_ENOUGH else float(distances(descriptor, others).min(initial=near))

    def _candidates(self, descriptor: Descriptor, indices: Sequence[int]) -> Sequence[int]:
        """Return the frames most similar in a coarse comparison, most similar first.

        Most frames need no full comparison.
        """
        chosen = np.fromiter(indices, np.int64)
        coarse_distances = np.abs(self._coarse[chosen] - _coarse(descriptor)).sum(axis=1)
        return [int(index) for index in chosen[np.argsort(coarse_distances)[:_CANDIDATES]]]

    def add(self, pair_id: int, descriptor: Descriptor) -> None:
        self._between, self._extents = (_with_row(matrix) for matrix in (self._between, self._extents))
        self._descriptors.append(descriptor)
        self._coarse = np.vstack([self._coarse, _coarse(descriptor)])
        self._owners = np.append(self._owners, pair_id)
        self._measure(len(self._owners) - 1)

    def _measure(self, index: int) -> None:
        """Compare a frame with the most similar candidates; the others count as infinitely far away."""
        descriptor = self._descriptors[index]
        others = [one for one in range(len(self._owners)) if one != index]
        candidates = self._candidates(descriptor, others)
        near, extents = distances_and_extents(descriptor, [self._descriptors[one] for one in candidates])
        for matrix, values in ((self._between, near), (self._extents, extents)):
            matrix[index, candidates] = matrix[candidates, index] = values

    def drop(self, pair_id: int) -> None:
        stay = np.flatnonzero(self._owners != pair_id)
        self._between = self._between[np.ix_(stay, stay)]
        self._extents = self._extents[np.ix_(stay, stay)]
        self._coarse = self._coarse[stay]
        self._descriptors = [self._descriptors[index] for index in stay]
        self._owners = self._owners[stay]
        # A frame that has lost its similar frames may resemble others that it was not compared with.
        isolated = (np.isinf(self._between).sum(axis=1) >= len(stay) - _MIN_KNOWN) & (len(stay) > _MIN_KNOWN)
        for index in np.flatnonzero(isolated):
            self._measure(int(index))

    def losses(self, pair_ids: Sequence[int]) -> NDArray[np.float64]:
        """Return how much each pair's least replaceable frame differs from all other pairs, 0..1."""
        is_other = self._owners[:, None] != self._owners[None, :]
        to_others = np.where(is_other, self._between, 1.0).min(axis=1, initial=1.0)
        return np.array([to_others[self._owners == pair_id].max() for pair_id in pair_ids])

    def place_losses(self, pair_ids: Sequence[int], views: set[int]) -> NDArray[np.float64]:
        """Return how little other pairs show each pair's place, 0..1; 0 for a pair that is not a view of a place."""
        is_view = np.isin(self._owners, list(views))
        is_other = (self._owners[:, None] != self._owners[None, :]) & is_view[None, :]
        to_others = np.where(is_other, self._extents, 1.0).min(axis=1, initial=1.0)
        uniqueness = np.clip((to_others - _ONE_PLACE) / (_TWO_PLACES - _ONE_PLACE), 0.0, 1.0) * is_view
        # The last frame was found to be a view; the first one may be blurred.
        return np.array([uniqueness[self._owners == pair_id][-1] for pair_id in pair_ids])

    def is_new_place(self, descriptor: Descriptor, views: set[int]) -> bool:
        """Return whether no kept view shows the place in the image."""
        known = [index for index, owner in enumerate(self._owners) if owner in views]
        candidates = [self._descriptors[index] for index in self._candidates(descriptor, known)]
        # The most similar one alone usually decides.
        parts = (candidates[:1], candidates[1:])
        return all(distances_and_extents(descriptor, part)[1].min(initial=1.0) > _TWO_PLACES for part in parts)


def _coarse(descriptor: Descriptor) -> NDArray[np.float32]:
    """Return the descriptor's values averaged over large blocks, without the gain, as a flat array."""
    side = CELLS // _BLOCKS
    blocks = descriptor.values.reshape(3, _BLOCKS, side, _BLOCKS, side).mean(axis=(2, 4)).reshape(3, -1)
    return np.asarray(blocks - blocks.mean(axis=1, keepdims=True), np.float32).ravel()


def _with_row(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix with one more row and column of unknown (infinite) distances."""
    larger = np.full((len(matrix) + 1, len(matrix) + 1), np.inf)
    larger[:-1, :-1] = matrix
    larger[-1, -1] = 0.0
    return larger


class StarMemory:
    """A bounded set of pairs that covers the past in appearance and time.

    When it is full, it evicts the pair whose loss costs least: in events, in only views of a place, in coverage of
    appearance and time, and of the start. Important pairs stay slightly longer. The evicted pair may be the new one.
    The oldest pair has a bonus, because only it shows the start. A provisional pair counts one frame but reserves space
    for two, so completing it evicts nothing. Protected pairs are never evicted; the caller must not let them fill the
    memory.

    Args:
        memory_size: Maximum number of frames; 0 disables the memory, an odd number is rounded down.

    Raises:
        ConfigurationError: ``memory_size`` is negative or 1.
    """

    def __init__(self, memory_size: int) -> None:
        if memory_size < 0 or memory_size == 1:
            raise ConfigurationError(
                f"star_memory_size must be 0 (disabled) or at least {FRAMES_PER_PAIR} frames, got {memory_size}"
            )
        self._max_pairs = memory_size // FRAMES_PER_PAIR
        self._pairs: list[FramePair] = []
        self._protected: set[int] = set()
        self._views = _Views()
        self._places: set[int] = set()  # ids of pairs that are views of a place
        self._new_places: set[int] = set()  # those added as the only view of their place
        self._tracks: dict[int, list[Track]] = {}
        self._restored: dict[int, tuple[float, str]] = {}  # deferred score and reason from an earlier run

    @property
    def pairs(self) -> tuple[FramePair, ...]:
        """Kept pairs in time order."""
        return tuple(self._pairs)

    @property
    def frame_count(self) -> int:
        """Number of kept frames; a provisional pair counts one."""
        return sum(pair.frame_count for pair in self._pairs)

    @property
    def is_full(self) -> bool:
        """Whether adding a pair would evict one; False if the memory is disabled."""
        return len(self._pairs) == self._max_pairs > 0

    def contains(self, pair_id: int) -> bool:
        """Return whether a pair is kept."""
        return any(pair.id == pair_id for pair in self._pairs)

    def novelty(self, descriptor: Descriptor) -> float:
        """Return the distance of an image to the most similar kept frame.

        Args:
            descriptor: Descriptor of the image.

        Returns:
            Distance 0..1, infinite if no frame is kept. The search ends at the first frame that is near enough to show
            that the image is not novel.
        """
        return self._views.nearest(descriptor) if self._pairs else math.inf

    def is_new_place(self, descriptor: Descriptor) -> bool:
        """Return whether no kept view shows the place in the image."""
        return self._views.is_new_place(descriptor, self._places)

    def add_place(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> bool:
        """Add a pair as the only view of a place; return whether another pair was evicted, as ``add`` does."""
        has_evicted = self.add(pair, descriptors)
        if self.contains(pair.id):
            self._new_places.add(pair.id)
        return has_evicted

    def set_score(self, pair_id: int, tracks: Sequence[Track], *, is_view: bool) -> None:
        """Store the deferred score of a pair, which may be added later.

        Args:
            pair_id: Id of the pair.
            tracks: Tracks whose best image is in the pair.
            is_view: Whether the pair is a sharp view of a place.
        """
        if is_view:
            self._places.add(pair_id)
        known = self._tracks.setdefault(pair_id, [])
        known += [track for track in tracks if track not in known]

    def restore(self, kept: KeptPair, descriptors: Sequence[Descriptor]) -> None:
        """Add a pair of an earlier run with its deferred score.

        The pair counts as a view of its place unless it shows an event.
        """
        if self._max_pairs == 0:
            return
        self._restored[kept.id] = (kept.deferred_score, kept.deferred_reason)
        self._places.add(kept.id)
        self.add(kept.pair, descriptors)

    def event_value(self, pair_id: int) -> float:
        """Return the value of the best event in a pair, 0..1."""
        event = self._event(pair_id)
        restored, _ = self._restored.get(pair_id, (0.0, ""))
        return max(restored, event.value if event is not None else 0.0)

    def deferred_reason(self, pair_id: int) -> str:
        """Return a short reason for the deferred score; empty if the score is too low to keep the pair for it."""
        event = self._event(pair_id)
        if event is not None and event.value >= MIN_EVENT_VALUE:
            return "brief event" if event.came_and_went else "new thing"
        _, restored = self._restored.get(pair_id, (0.0, ""))
        return "new place" if pair_id in self._new_places else restored

    def _event(self, pair_id: int) -> Track | None:
        """Return the most valuable of the tracks that the pair shows best."""
        tracks = [track for track in self._tracks.get(pair_id, ()) if track.pair_id == pair_id]
        return max(tracks, key=lambda track: track.value, default=None)

    def drop_scores(self, *, before: int) -> None:
        """Drop the scores of pairs that are not kept and have ids below ``before``."""
        held = {pair.id for pair in self._pairs}
        self._restored = {one: score for one, score in self._restored.items() if one in held}
        self._places = {one for one in self._places if one in held or one >= before}
        self._new_places &= self._places
        self._tracks = {one: tracks for one, tracks in self._tracks.items() if one in held or one >= before}

    def add(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> bool:
        """Add a pair; evict the least valuable one if the memory is full.

        Args:
            pair: Pair that is not kept; its id defines its position in time.
            descriptors: Descriptors of its one or two frames.

        Returns:
            Whether another pair was evicted; False if there was space or the new pair itself was the least valuable.
        """
        if self._max_pairs == 0:
            return False
        was_full = self.is_full
        insort(self._pairs, pair, key=lambda held: held.id)
        self._add_views(pair, descriptors)
        if was_full:
            self._evict_least_valuable()
        return was_full and self.contains(pair.id)

    def evict_least_valuable(self, count: int, *, keep: FramePair) -> None:
        """Evict pairs one after the other, each time the one whose loss costs least.

        Args:
            count: Number of pairs, below the number of kept ones; fewer are evicted if the others are protected.
            keep: Pair that is not evicted.
        """
        for _ in range(count):
            self._evict_least_valuable(keep)

    def protect(self, pair_id: int) -> None:
        """Never evict a pair, which may be added later, until it is released."""
        self._protected.add(pair_id)

    def release(self, pair_id: int) -> None:
        """Allow eviction of a protected pair again."""
        self._protected.discard(pair_id)

    def update(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        """Replace a provisional pair with the completed one of the same id.

        Args:
            pair: Complete pair.
            descriptors: Descriptors of its two frames.

        Raises:
            ValueError: The pair is not kept.
        """
        if not self.contains(pair.id):
            raise ValueError(f"pair {pair.id} is not in Star memory")
        self._pairs = [pair if kept.id == pair.id else kept for kept in self._pairs]
        for descriptor in _representative(descriptors)[1:]:  # the first one is known
            self._views.add(pair.id, descriptor)

    def _evict_least_valuable(self, keep: FramePair | None = None) -> None:
        excluded = self._protected if keep is None else {*self._protected, keep.id}
        losses = np.where([pair.id in excluded for pair in self._pairs], math.inf, self._losses())
        index = int(np.argmin(losses))
        if math.isinf(losses[index]):
            return
        self._views.drop(self._pairs.pop(index).id)

    def _add_views(self, pair: FramePair, descriptors: Sequence[Descriptor]) -> None:
        for descriptor in _representative(descriptors):
            self._views.add(pair.id, descriptor)

    def _losses(self) -> NDArray[np.float64]:
        """Return the cost of losing each pair."""
        weights = np.array([0.5 + 0.5 * pair.importance for pair in self._pairs])
        appearance = self._views.losses([pair.id for pair in self._pairs])
        coverage = weights * (appearance + _TIME_WEIGHT * _time_losses(self._pairs))
        pair_ids = [pair.id for pair in self._pairs]
        events = np.array([self.event_value(pair_id) for pair_id in pair_ids])
        # An event hides part of its place. A place needs an ordinary view, else every later view of it would be novel.
        ordinary = {one for one, value in zip(pair_ids, events, strict=True) if value < MIN_EVENT_VALUE}
        places = self._views.place_losses(pair_ids, self._places & ordinary)
        losses = events + _PLACE_WEIGHT * places + _COVERAGE_WEIGHT * coverage
        if self._max_pairs > 1:  # a memory of one pair must not keep the oldest forever
            losses[0] += _START_WEIGHT
        return np.asarray(losses)


def _time_losses(pairs: Sequence[FramePair]) -> NDArray[np.float64]:
    """Return how large a gap in time the loss of each pair leaves, 0..1; 0.5 for evenly spaced pairs.

    The geometric mean of the gaps before and after a pair is large only if both are: a close neighbour on either side
    covers for the pair. No other pair covers the time before the oldest one; Stream memory covers the time after the
    newest.
    """
    gaps = np.diff([pair.first.stamp for pair in pairs])
    if not gaps.size:
        return np.ones(1)
    relative_gaps = np.sqrt(np.append(np.inf, gaps) * np.append(gaps, gaps[-1])) / gaps.mean()
    return np.asarray(1.0 - 1.0 / (1.0 + relative_gaps))


def _representative(descriptors: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the descriptors of the frames that a pair represents.

    A pair is encoded as one patch. A cut between its frames blends two scenes, so the pair does not count as a view of
    the second scene: the next pair, which shows only that scene, must still be novel.
    """
    first, *rest = descriptors
    return (first, *(second for second in rest if not is_cut(first, second)))
