"""Judging pictures late, when what came after them is known as well.

A thing that appears for a second among hours of the same, and a place that the camera has stayed at, are both easy to
tell from passing people, jolts and the way between two places once the moments after are known. So each picture is
judged again while its pair is about to leave Stream memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.memory.sketch import Sketch
from delayed_vlm_ros.memory.standouts import standouts
from delayed_vlm_ros.memory.tracks import Track, Tracker

if TYPE_CHECKING:
    from delayed_vlm_ros.memory.descriptor import Descriptor

# Pictures between a picture and the nearest one it is compared with: things that stay longer do not stand out.
_NEAREST, _BETWEEN, _FARTHEST = 8, 12, 16
_LEAST_LAG = 10
# A picture with less contrast, as the standard deviation of log luma, is dark or shows a wall.
_PLAIN = 0.08
_SHARP_FROM = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture that waits for its judgement.

    Attributes:
        pair_id: Its pair.
        look: Its descriptor.
        drawn: Its sketch.
    """

    pair_id: int
    look: Descriptor
    drawn: Sketch


@dataclass(frozen=True, slots=True, eq=False)
class LateJudgement:
    """What is known of a picture now that the moments after it are.

    Attributes:
        pair_id: Its pair.
        looks: Descriptors of that pair's pictures.
        is_view: Whether it is its pair's second and shows, sharply, a place that the camera stayed at.
        tracks: The things that stand out in it; what they are worth may change with what comes.
    """

    pair_id: int
    looks: tuple[Descriptor, ...]
    is_view: bool
    tracks: tuple[Track, ...]


class MomentFinder:
    """Judges each picture a few seconds after it came.

    Args:
        stream_pairs: Pairs that Stream memory holds at any time once it has been full. With too few of them nothing is
            ever judged.
    """

    def __init__(self, stream_pairs: int) -> None:
        # A pair whose second picture decides must still be there.
        self._lag = min(_FARTHEST, FRAMES_PER_PAIR * (stream_pairs - 2))
        self._seen: deque[Seen] = deque(maxlen=max(1, _FARTHEST + self._lag + 1))
        self._count = 0
        self._tracker = Tracker()

    @property
    def is_on(self) -> bool:
        """Whether Stream memory is long enough for it."""
        return self._lag >= _LEAST_LAG

    def add(self, seen: Seen) -> LateJudgement | None:
        """Take in the next picture.

        Returns:
            The judgement on the picture that is due; None where none is, as in the beginning.
        """
        self._seen.append(seen)
        self._count += 1
        place = len(self._seen) - 1 - self._lag
        if place < 0:
            return None
        due = self._seen[place]
        before = [self._seen[place - step].drawn for step in (_NEAREST, _BETWEEN, _FARTHEST) if step <= place]
        middle = (_NEAREST + self._lag) // 2
        after = [self._seen[place + step].drawn for step in (_NEAREST, middle, self._lag)]
        found = standouts(due.drawn, before, after)
        tracks = self._tracker.follow(self._count, due.pair_id, found)
        is_last = self._seen[place + 1].pair_id != due.pair_id  # once for each pair is enough
        is_plain = found.sharpness >= _SHARP_FROM and due.drawn.contrast >= _PLAIN
        neighbours = (self._seen[index] for index in (place - 1, place, place + 1) if index >= 0)
        looks = tuple(one.look for one in neighbours if one.pair_id == due.pair_id)
        return LateJudgement(due.pair_id, looks, is_last and found.sides > 0 and is_plain, tuple(tracks))
