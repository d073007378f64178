"""Things that stand out, followed from image to image, and what each of them is worth keeping."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from delayed_vlm_ros.memory.scoring.foreground import Blob, Foreground

# Images within which a thing may be missing, under blur, and still be the same.
_LONGEST_GAP = 2
# How far a thing may go from one image to the next, in cells.
_FARTHEST_STEP = 9.0
# And by how much its colour may change, as a log difference.
_COLOUR_STEP = 0.5
# Images up to which a thing counts as brief; longer ones are worth less.
_BRIEF = 7
_LENGTH_POWER = 0.5
# Cells an image by which a thing may tremble; what moves more is passing, and worth less by each further cell where
# so many of the things remembered were passing, too.
_TREMBLING = 1.5
_USUALLY_PASSING = 8
# A thing seen in a single image may be a reflex or a jolt: it counts, but alone it is never worth a place, or a light
# that blinks would fill Star.
_UNCONFIRMED = 0.2
# A blurred image shows a thing less well.
_SHARP_FROM = 0.75
_BLURRED = 0.5
# A thing that came to stay, or of which it is known on one side only whether it was there: it may be no news.
_ONE_SIDED = 0.6
# Past things that are remembered, and how near in colour (log difference) and size (ratio) another one is alike.
_MOST_PAST = 128
_SAME_COLOUR = 0.2
_SAME_SIZE = 1.6
# What each past thing alike takes off: those who stayed longer, as people passing do, more than brief ones.
_LONG_RECURS, _BRIEF_RECURS = 0.15, 0.1
# The weight of a thing that is worth 1.
_FULL_WEIGHT = 0.45


@dataclass(slots=True)
class MotionStats:
    """What is usual, as far as is known by now.

    Attributes:
        passing: How many of the things remembered were passing.
    """

    passing: int = 0


@dataclass(slots=True, eq=False)
class Track:
    """One thing over time.

    Attributes:
        first: Number of the first image that shows it.
        last: Number of the last one so far.
        seen: How many images show it.
        x: Where it was last, in cells from the left.
        y: The same from the top.
        way: How far it has gone in all, in cells.
        colour: What colour it was last.
        weight: Of its best image.
        pair_id: The pair of that image.
        came_and_went: Whether it came and went, as seen in that image; else it came to stay, or that is not known.
        area: The share of the image it covered where it was best.
        recurrence: How usual such a thing is by what has been before it; 0 for the first.
        habits: What is usual; shared by all tracks.
    """

    first: int
    last: int
    seen: int
    x: float
    y: float
    path_length: float
    colour: NDArray[np.float32]
    weight: float
    pair_id: int
    came_and_went: bool
    area: float
    recurrence: float
    habits: MotionStats

    @property
    def length(self) -> int:
        """Images from the first to the last that shows it."""
        return self.last - self.first + 1

    @property
    def pace(self) -> float:
        """How far it goes from image to image beyond trembling, in cells."""
        return max(0.0, self.path_length / max(1, self.last - self.first) - _TREMBLING)

    @property
    def value(self) -> float:
        """What it is worth keeping, 0..1; it changes while more of it is seen, and of others."""
        brevity = min(1.0, _BRIEF / self.length) ** _LENGTH_POWER
        confirmed = 1.0 if self.seen > 1 else _UNCONFIRMED
        usual = self.recurrence + self.pace * min(1.0, self.habits.passing / _USUALLY_PASSING)
        return float(min(1.0, self.weight / _FULL_WEIGHT) * brevity * confirmed / (1.0 + usual))


class Tracker:
    """Links what stands out in successive images. Bounded: it knows the present things, and some past ones."""

    def __init__(self) -> None:
        self._present: list[Track] = []
        self._past: deque[Track] = deque(maxlen=_MOST_PAST)
        self._habits = MotionStats()

    def follow(self, number: int, pair_id: int, found: Foreground) -> list[Track]:
        """Take in what stands out in the next image.

        Args:
            number: The image's number; images come in order.
            pair_id: The pair it belongs to.
            found: What stands out in it.

        Returns:
            The tracks that it belongs to, which a later call may change.
        """
        self._finish(number)
        touched: list[Track] = []
        for blob in found.blobs:
            weight = blob.weight * (1.0 if found.sharpness >= _SHARP_FROM else _BLURRED)
            weight *= 1.0 if blob.came_and_went else _ONE_SIDED
            track = self._nearest(blob, number, touched)
            if track is None:
                track = self._begun(number, pair_id, blob)
            if weight > track.weight:
                track.weight, track.pair_id, track.area = weight, pair_id, blob.area
                track.came_and_went = blob.came_and_went
            track.path_length += float(np.hypot(track.x - blob.x, track.y - blob.y))
            track.last, track.x, track.y, track.colour = number, blob.x, blob.y, blob.colour
            track.seen += 1
            touched.append(track)
        return touched

    def _begun(self, number: int, pair_id: int, blob: Blob) -> Track:
        track = Track(
            first=number,
            last=number,
            seen=0,
            x=blob.x,
            y=blob.y,
            path_length=0.0,
            colour=blob.colour,
            weight=0.0,
            pair_id=pair_id,
            came_and_went=blob.came_and_went,
            area=blob.area,
            recurrence=self._recurrence(blob),
            habits=self._habits,
        )
        self._present.append(track)
        return track

    def _nearest(self, blob: Blob, number: int, taken: Sequence[Track]) -> Track | None:
        """The track that goes on with a blob."""
        best, best_distance = None, 1.0
        for track in self._present:
            if track in taken:
                continue
            apart = np.hypot(track.x - blob.x, track.y - blob.y) / (_FARTHEST_STEP * (number - track.last))
            colour = float(np.linalg.norm(track.colour - blob.colour)) / _COLOUR_STEP
            distance = max(float(apart), colour)
            if distance < best_distance:
                best, best_distance = track, distance
        return best

    def _finish(self, number: int) -> None:
        over = [track for track in self._present if number - track.last > _LONGEST_GAP + 1]
        if not over:
            return
        self._past.extend(track for track in over if track.seen > 1)
        self._present = [track for track in self._present if track not in over]
        self._habits.passing = sum(track.pace > 0.0 for track in self._past)

    def _recurrence(self, blob: Blob) -> float:
        alike = [track for track in self._past if float(np.linalg.norm(track.colour - blob.colour)) < _SAME_COLOUR]
        brief = sum(
            track.length <= _BRIEF and max(track.area / blob.area, blob.area / track.area) < _SAME_SIZE
            for track in alike
        )
        return _LONG_RECURS * sum(track.length > _BRIEF for track in alike) + _BRIEF_RECURS * brief
