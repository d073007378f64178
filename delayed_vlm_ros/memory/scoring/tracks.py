"""Track foreground objects from image to image and compute their value."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.scoring.foreground import Blob, Foreground

_MAX_GAP = 2  # images in which a tracked object may be missing, for example by motion blur
_MAX_STEP = 9.0  # largest motion from one image to the next, in cells
_MAX_COLOUR_STEP = 0.5  # largest colour change from one image to the next, as a log difference
# Largest number of images of a brief event; longer ones lose value with this power of their length.
_BRIEF_IMAGES = 7
_LENGTH_POWER = 0.5
# Motion per image that counts as jitter, in cells. Each further cell lowers the value of a passing object, in full once
# this number of past objects were passing.
_JITTER = 1.5
_USUAL_PASSING = 8
# Factor for an object in a single image, which may be a reflection or a jolt. It keeps the value below the minimum for
# Star memory, which a blinking light would fill otherwise.
_UNCONFIRMED = 0.2
# Relative sharpness below which an image counts as blurred, and the factor for objects in it.
_SHARP_FROM = 0.75
_BLURRED = 0.5
# Factor for an object that came to stay, or that is known on one side in time only.
_ONE_SIDED = 0.6
# Number of past objects to compare with, and how close similar ones are in colour (log difference) and size (ratio).
_MAX_PAST = 128
_SAME_COLOUR = 0.2
_SAME_SIZE = 1.6
# Recurrence per similar past object: longer ones, such as people passing, count more than brief ones.
_LONG_RECURRENCE, _BRIEF_RECURRENCE = 0.15, 0.1
_FULL_WEIGHT = 0.45  # weight of an object of value 1


@dataclass(slots=True)
class MotionStats:
    """Statistics of past objects; shared by all tracks of a tracker.

    Attributes:
        passing: Number of stored past objects that were passing.
    """

    passing: int = 0


@dataclass(slots=True, eq=False)
class Track:
    """One object over time.

    Attributes:
        first: Number of the first image that shows it.
        last: Number of the last image that shows it so far.
        seen: Number of images that show it.
        x: Last position, in cells from the left.
        y: Last position, in cells from the top.
        path_length: Total motion, in cells.
        colour: Last colour, as in ``Blob.colour``.
        weight: Weight in its best image.
        pair_id: Id of the pair with the best image.
        came_and_went: Whether the object is known to be absent before and after its best image.
        area: Share of its best image that it covers, 0..1.
        recurrence: How common similar past objects are; 0 for the first of its kind.
        motion: Statistics shared by all tracks.
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
    motion: MotionStats

    @property
    def length(self) -> int:
        """Number of images from the first to the last that shows it."""
        return self.last - self.first + 1

    @property
    def pace(self) -> float:
        """Motion per image beyond jitter, in cells."""
        return max(0.0, self.path_length / max(1, self.last - self.first) - _JITTER)

    @property
    def value(self) -> float:
        """Value of keeping the object, 0..1; it changes as this and other objects are seen."""
        brevity = min(1.0, _BRIEF_IMAGES / self.length) ** _LENGTH_POWER
        confirmed = 1.0 if self.seen > 1 else _UNCONFIRMED
        usual = self.recurrence + self.pace * min(1.0, self.motion.passing / _USUAL_PASSING)
        return float(min(1.0, self.weight / _FULL_WEIGHT) * brevity * confirmed / (1.0 + usual))


class Tracker:
    """Links the foreground of successive images. Its memory of present and past objects is bounded."""

    def __init__(self) -> None:
        self._present: list[Track] = []
        self._past: deque[Track] = deque(maxlen=_MAX_PAST)
        self._motion = MotionStats()

    def follow(self, number: int, pair_id: int, found: Foreground) -> list[Track]:
        """Add the foreground of the next image.

        Args:
            number: Number of the image, in increasing order.
            pair_id: Id of the pair that contains the image.
            found: Foreground of the image.

        Returns:
            The tracks of the objects in the image; later calls may change them.
        """
        self._finish(number)
        touched: list[Track] = []
        for blob in found.blobs:
            weight = blob.weight * (1.0 if found.sharpness >= _SHARP_FROM else _BLURRED)
            weight *= 1.0 if blob.came_and_went else _ONE_SIDED
            track = self._nearest(blob, number, touched)
            if track is None:
                track = self._start(number, pair_id, blob)
            if weight > track.weight:
                track.weight, track.pair_id, track.area = weight, pair_id, blob.area
                track.came_and_went = blob.came_and_went
            track.path_length += float(np.hypot(track.x - blob.x, track.y - blob.y))
            track.last, track.x, track.y, track.colour = number, blob.x, blob.y, blob.colour
            track.seen += 1
            touched.append(track)
        return touched

    def _start(self, number: int, pair_id: int, blob: Blob) -> Track:
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
            motion=self._motion,
        )
        self._present.append(track)
        return track

    def _nearest(self, blob: Blob, number: int, taken: Sequence[Track]) -> Track | None:
        """Return the track that the blob continues."""
        best, best_distance = None, 1.0
        for track in self._present:
            if track in taken:
                continue
            step = np.hypot(track.x - blob.x, track.y - blob.y) / (_MAX_STEP * (number - track.last))
            colour = float(np.linalg.norm(track.colour - blob.colour)) / _MAX_COLOUR_STEP
            distance = max(float(step), colour)
            if distance < best_distance:
                best, best_distance = track, distance
        return best

    def _finish(self, number: int) -> None:
        finished = [track for track in self._present if number - track.last > _MAX_GAP + 1]
        if not finished:
            return
        self._past.extend(track for track in finished if track.seen > 1)
        self._present = [track for track in self._present if track not in finished]
        self._motion.passing = sum(track.pace > 0.0 for track in self._past)

    def _recurrence(self, blob: Blob) -> float:
        similar = [track for track in self._past if float(np.linalg.norm(track.colour - blob.colour)) < _SAME_COLOUR]
        brief = sum(
            track.length <= _BRIEF_IMAGES and max(track.area / blob.area, blob.area / track.area) < _SAME_SIZE
            for track in similar
        )
        return _LONG_RECURRENCE * sum(track.length > _BRIEF_IMAGES for track in similar) + _BRIEF_RECURRENCE * brief
