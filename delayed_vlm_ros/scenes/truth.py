"""The truth about a sequence of frame pairs: what was where, as far as a fair judge could say.

Whether a thing that is half behind another, or half outside the image, "is there" is not for a question to decide.
So a history comes in two versions: a strict one, with only what is plain to see, and a lenient one, with all that could
be meant. A question is fair where both give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from delayed_vlm_ros.scenes.scene import Scene, placed_objects
from delayed_vlm_ros.scenes.sprites import PERSON

_PLAINLY_SHOWN = 0.6
_PLAINLY_INSIDE = 0.02  # of the image's width from its edge


@dataclass(frozen=True)
class View:
    """What is in the image at one time.

    Attributes:
        stamp: When (s).
        positions: Where each thing is, by name (``red box``, ``person``), in image widths from the left.
    """

    stamp: float
    positions: Mapping[str, float]

    @cached_property
    def objects(self) -> dict[str, float]:
        """The places of the things that are no person, the leftmost first."""
        return {name: x for name, x in sorted(self.positions.items(), key=lambda item: item[1]) if name != PERSON}


History = Sequence[View]
"""Views in time order, the last one is now."""


@dataclass(frozen=True)
class PairTruth:
    """The truth about one pair of frames.

    Attributes:
        strict: What is plain to see in both frames; of several people at once, who have one name, none.
        lenient: What could be meant to be there in one of them.
    """

    strict: View
    lenient: View


def pair_truth(scene: Scene, first_sec: float, second_sec: float) -> PairTruth:
    """The truth about a pair of frames.

    Args:
        scene: The room.
        first_sec: Time of the pair's first frame (s).
        second_sec: Time of its second frame (s); the same for a provisional pair.
    """
    seen: dict[str, list[tuple[int, float, bool]]] = {}
    moments = (first_sec, second_sec)
    for number, moment in enumerate(moments):
        for thing in placed_objects(scene, moment):
            if -thing.half_width < thing.x < 1.0 + thing.half_width:
                plain = thing.shown >= _PLAINLY_SHOWN and _PLAINLY_INSIDE <= thing.x <= 1.0 - _PLAINLY_INSIDE
                seen.setdefault(thing.name, []).append((number, thing.x, plain))
    middle = {name: sum(x for _, x, _ in sights) / len(sights) for name, sights in seen.items()}
    plain = {
        name
        for name, sights in seen.items()
        if [number for number, _, _ in sights] == list(range(len(moments))) and all(ok for *_, ok in sights)
    }
    strict = {name: x for name, x in middle.items() if name in plain}
    return PairTruth(View(first_sec, strict), View(first_sec, middle))


@dataclass(frozen=True)
class Story:
    """A sequence of pairs, told twice.

    Attributes:
        strict: What is plain to see in each pair.
        lenient: What could be meant to be there in each pair.
    """

    strict: History
    lenient: History


def story_of(truths: Sequence[PairTruth]) -> Story:
    """The story of pairs in time order, at least one.

    A thing that is hidden for a while and plain to see before and after has not left: it is in the strict history all
    along. Of people that cannot be said, since the one after may be another.
    """
    lenient = [truth.lenient for truth in truths]
    strict = [dict(truth.strict.positions) for truth in truths]
    for name in {name for places in strict for name in places} - {PERSON}:
        plain = [number for number, places in enumerate(strict) if name in places]
        for before, after in pairwise(plain):
            between = range(before + 1, after)
            if all(name in lenient[number].positions for number in between):
                strict[before + 1 : after] = [
                    {**strict[number], name: lenient[number].positions[name]} for number in between
                ]
    plainly = [View(truth.strict.stamp, places) for truth, places in zip(truths, strict, strict=True)]
    return Story(plainly, lenient)


def sightings(history: History, name: str) -> Iterator[int]:
    """Numbers of the views in which a thing is."""
    return (number for number, view in enumerate(history) if name in view.positions)


def names_seen(history: History) -> list[str]:
    """Every object ever in the history, in alphabetical order."""
    return sorted({name for view in history for name in view.objects})
