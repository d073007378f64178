"""Judging images late, when what came after them is known as well.

A thing that appears for a second among hours of the same, and a place that the camera has stayed at, are both easy to
tell from passing people, jolts and the way between two places once the moments after are known. So each image is
judged again while its pair is about to leave Stream memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, is_cut
from delayed_vlm_ros.memory.scoring.foreground import Foreground, foreground
from delayed_vlm_ros.memory.scoring.tracks import Track, Tracker

if TYPE_CHECKING:
    from delayed_vlm_ros.memory.scoring.background import Thumbnail

# Pairs between a pair and those that it is compared with: things that stay longer do not stand out.
_NEAREST, _BETWEEN, _FARTHEST = 4, 6, 8
_LEAST_LAG = 5
# An image with less contrast, as the standard deviation of log luma, is dark or shows a wall.
_PLAIN = 0.08
_SHARP_FROM = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """What an image looks like.

    Attributes:
        descriptor: Coarsely.
        sketch: More finely.
    """

    descriptor: Descriptor
    downsample: Thumbnail


@dataclass(frozen=True, slots=True, eq=False)
class PendingPair:
    """A pair that waits for its judgement.

    Attributes:
        pair_id: The pair.
        looks: What its images look like.
    """

    pair_id: int
    looks: tuple[FrameFeatures, FrameFeatures]


@dataclass(frozen=True, slots=True, eq=False)
class DeferredScore:
    """What is known of a pair now that the moments after it are.

    Attributes:
        pair: The pair.
        is_view: Whether it shows, sharply, a place that the camera stayed at.
        tracks: The things that stand out in it; what they are worth may change with what comes.
    """

    pair: PendingPair
    is_view: bool
    tracks: tuple[Track, ...]


class EventDetector:
    """Judges each pair a few seconds after it came.

    Args:
        stream_pairs: Pairs that Stream memory holds at any time once it has been full. With too few of them nothing is
            ever judged.
    """

    def __init__(self, stream_pairs: int) -> None:
        # A pair whose second image decides must still be there.
        self._lag = min(_FARTHEST, stream_pairs - 2)
        self._is_on = self._lag >= _LEAST_LAG
        self._seen: deque[PendingPair] = deque(maxlen=_FARTHEST + max(self._lag, 0) + 1)
        self._count = 0
        self._tracker = Tracker()
        self._is_quiet = True

    def add(self, seen: PendingPair) -> DeferredScore | None:
        """Take in the next pair.

        Returns:
            The judgement on the pair that is due; None where none is, as in the beginning.
        """
        if not self._is_on:
            return None
        self._seen.append(seen)
        self._count += 1
        place = len(self._seen) - 1 - self._lag
        return self._judge(place) if place >= 0 else None

    def _judge(self, place: int) -> DeferredScore:
        """Judge a pair by its second image, and by its first where something is, or just was, to be seen."""
        due = self._seen[place]
        second = self._standouts(place, 1)
        is_sharp = second.sharpness >= _SHARP_FROM
        tracks: list[Track] = []
        if second.blobs or not is_sharp or not self._is_quiet:
            tracks += self._tracker.follow(2 * self._count, due.pair_id, self._standouts(place, 0))
        tracks += self._tracker.follow(2 * self._count + 1, due.pair_id, second)
        self._is_quiet = not second.blobs
        shows_a_place = is_sharp and second.is_place_known and due.looks[1].downsample.contrast >= _PLAIN
        is_view = shows_a_place and not is_cut(*(look.descriptor for look in due.looks))
        return DeferredScore(due, is_view, tuple(dict.fromkeys(tracks)))

    def _standouts(self, place: int, which: int) -> Foreground:
        """What stands out in one of a pair's images."""
        before = [place - step for step in (_NEAREST, _BETWEEN, _FARTHEST) if step <= place]
        steps = (_NEAREST, (_NEAREST + self._lag) // 2, self._lag)
        after = [place + step for step in dict.fromkeys(steps)]
        due, *around = (self._seen[index].looks[which].downsample for index in (place, *before, *after))
        return foreground(due, around[: len(before)], around[len(before) :])
