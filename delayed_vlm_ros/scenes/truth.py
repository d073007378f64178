"""Ground truth of a sequence of frame pairs: the position of every object in every pair.

Whether an object counts as present is ambiguous while another object or the image border hides half of it. Each history
therefore has two versions. The strict one holds clearly visible objects; the lenient one also holds partly visible
ones. A question is fair where both versions lead to the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from delayed_vlm_ros.scenes.scene import Scene, placed_objects
from delayed_vlm_ros.scenes.sprites import PERSON

_CLEARLY_SHOWN = 0.6
_CLEARLY_INSIDE = 0.02  # distance from the image border, in image widths


@dataclass(frozen=True)
class View:
    """The content of the image at one time.

    Attributes:
        stamp: Time of the view, in seconds.
        positions: Horizontal position of each object and person by name (``red box``, ``person``), in image widths
            from the left.
    """

    stamp: float
    positions: Mapping[str, float]

    @cached_property
    def objects(self) -> dict[str, float]:
        """Positions of the objects without people, from left to right."""
        return {name: x for name, x in sorted(self.positions.items(), key=lambda item: item[1]) if name != PERSON}


History = Sequence[View]
"""Views in time order; the last one is the current view."""


@dataclass(frozen=True)
class PairTruth:
    """Ground truth of one pair of frames.

    Attributes:
        strict: Objects clearly visible in both frames. Several people share one name; none of them is included.
        lenient: Objects at least partly visible in one of the frames.
    """

    strict: View
    lenient: View


def pair_truth(scene: Scene, first_sec: float, second_sec: float) -> PairTruth:
    """Return the ground truth of a pair of frames.

    Args:
        scene: The scene.
        first_sec: Time of the first frame, in seconds.
        second_sec: Time of the second frame, in seconds; equal to ``first_sec`` for a provisional pair.
    """
    seen: dict[str, list[tuple[int, float, bool]]] = {}
    times = (first_sec, second_sec)
    for number, time_sec in enumerate(times):
        for item in placed_objects(scene, time_sec):
            if -item.half_width < item.x < 1.0 + item.half_width:
                is_clear = item.shown >= _CLEARLY_SHOWN and _CLEARLY_INSIDE <= item.x <= 1.0 - _CLEARLY_INSIDE
                seen.setdefault(item.name, []).append((number, item.x, is_clear))
    middle = {name: sum(x for _, x, _ in sights) / len(sights) for name, sights in seen.items()}
    clear = {
        name
        for name, sights in seen.items()
        if [number for number, _, _ in sights] == list(range(len(times))) and all(ok for *_, ok in sights)
    }
    strict = {name: x for name, x in middle.items() if name in clear}
    return PairTruth(View(first_sec, strict), View(first_sec, middle))


@dataclass(frozen=True)
class Story:
    """A sequence of pairs in both versions.

    Attributes:
        strict: Clearly visible objects of each pair.
        lenient: At least partly visible objects of each pair.
    """

    strict: History
    lenient: History


def story_of(truths: Sequence[PairTruth]) -> Story:
    """Return the story of at least one pair in time order.

    An object that is hidden for a while, and clearly visible before and after, has not left: it stays in the strict
    history. This does not apply to people: the later person may be another one.
    """
    lenient = [truth.lenient for truth in truths]
    strict = [dict(truth.strict.positions) for truth in truths]
    for name in {name for positions in strict for name in positions} - {PERSON}:
        clear = [number for number, positions in enumerate(strict) if name in positions]
        for before, after in pairwise(clear):
            between = range(before + 1, after)
            if all(name in lenient[number].positions for number in between):
                strict[before + 1 : after] = [
                    {**strict[number], name: lenient[number].positions[name]} for number in between
                ]
    views = [View(truth.strict.stamp, positions) for truth, positions in zip(truths, strict, strict=True)]
    return Story(views, lenient)


def sightings(history: History, name: str) -> Iterator[int]:
    """Yield the numbers of the views that hold an object."""
    return (number for number, view in enumerate(history) if name in view.positions)


def names_seen(history: History) -> list[str]:
    """Return every object of the history, in alphabetical order."""
    return sorted({name for view in history for name in view.objects})
