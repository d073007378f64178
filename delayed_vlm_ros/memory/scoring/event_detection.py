"""Deferred scores: score images again once the images after them are known.

An object that appears for a second among hours of the same view, or a place where the camera has stayed, is easy to
distinguish from people passing, jolts and the path between two places once later images are known. Each pair is
therefore scored again some seconds after its arrival.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from delayed_vlm_ros.memory.scoring.background import Thumbnail
from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, is_cut
from delayed_vlm_ros.memory.scoring.foreground import Foreground, foreground
from delayed_vlm_ros.memory.scoring.tracks import Track, Tracker

# Distances in pairs to the pairs compared with: objects that stay longer are not foreground.
_NEAREST, _BETWEEN, _FARTHEST = 4, 6, 8
# Smallest contrast (standard deviation of log luma) of a view; below it the image is dark or shows a plain wall.
_MIN_CONTRAST = 0.08
_SHARP_FROM = 0.75  # relative sharpness


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """Features of one image.

    Attributes:
        descriptor: Coarse cell values.
        thumbnail: Fine cell values.
    """

    descriptor: Descriptor
    thumbnail: Thumbnail


@dataclass(frozen=True, slots=True, eq=False)
class PendingPair:
    """A pair that waits for its deferred score.

    Attributes:
        pair_id: Id of the pair.
        features: Features of its two images.
    """

    pair_id: int
    features: tuple[FrameFeatures, FrameFeatures]


@dataclass(frozen=True, slots=True, eq=False)
class DeferredScore:
    """The result for a pair once later images are known.

    Attributes:
        pair: The pair.
        is_view: Whether it is a sharp view of a place where the camera stayed.
        tracks: Tracks of the objects in it; their values may change with later images.
    """

    pair: PendingPair
    is_view: bool
    tracks: tuple[Track, ...]


class EventDetector:
    """Computes the deferred score of each pair a few seconds after its arrival.

    Args:
        stream_pairs: Smallest number of pairs in a Stream memory that has been full. A score waits for six later pairs,
            or for up to eight where Stream memory holds the pair that long.
    """

    def __init__(self, stream_pairs: int) -> None:
        # The pair whose score is due, and one more before it, are still in a larger Stream memory.
        self._lag = min(_FARTHEST, max(_BETWEEN, stream_pairs - 2))
        self._seen: deque[PendingPair] = deque(maxlen=_FARTHEST + self._lag + 1)
        self._count = 0
        self._tracker = Tracker()
        self._is_quiet = True

    @property
    def max_waiting_pairs(self) -> int:
        """Newest complete pairs that a score may be about: down to the one that is due, and one more before it."""
        return self._lag + 2

    def add(self, pair: PendingPair) -> DeferredScore | None:
        """Add the next pair; return the deferred score of the pair that is due, or None if none is due."""
        self._seen.append(pair)
        self._count += 1
        index = len(self._seen) - 1 - self._lag
        return self._score(index) if index >= 0 else None

    def _score(self, index: int) -> DeferredScore:
        """Score a pair by its second image, and by its first one if an object is or was just visible."""
        due = self._seen[index]
        second = self._foreground(index, 1)
        is_sharp = second.sharpness >= _SHARP_FROM
        tracks: list[Track] = []
        if second.blobs or not is_sharp or not self._is_quiet:
            tracks += self._tracker.follow(2 * self._count, due.pair_id, self._foreground(index, 0))
        tracks += self._tracker.follow(2 * self._count + 1, due.pair_id, second)
        self._is_quiet = not second.blobs
        shows_a_place = is_sharp and second.is_place_known and due.features[1].thumbnail.contrast >= _MIN_CONTRAST
        is_view = shows_a_place and not is_cut(*(features.descriptor for features in due.features))
        return DeferredScore(due, is_view, tuple(dict.fromkeys(tracks)))

    def _foreground(self, index: int, which: int) -> Foreground:
        """Return the foreground of the first (0) or second (1) image of a pair."""
        before = [index - step for step in (_NEAREST, _BETWEEN, _FARTHEST) if step <= index]
        steps = (_NEAREST, (_NEAREST + self._lag) // 2, self._lag)
        after = [index + step for step in dict.fromkeys(steps)]
        due, *others = (self._seen[one].features[which].thumbnail for one in (index, *before, *after))
        return foreground(due, others[: len(before)], others[len(before) :])
