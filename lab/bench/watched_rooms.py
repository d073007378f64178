"""Camera streams of synthetic rooms with standing questions, and the times at which their answer is yes.

Whether an object is present is ambiguous while another object or the image border hides half of it, as in
``scenes.truth``. A *visit* is a time in which it is at least partly visible. A visit is an *event* if the object is
clearly visible for three seconds or longer, so that an alert is due; in any other visit an alert is neither due nor
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.scenes import Episode, Scene, render
from delayed_vlm_ros.scenes.answers import matching
from delayed_vlm_ros.scenes.phrasing import PHRASINGS
from delayed_vlm_ros.scenes.scene import GROUNDS, HOMES
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from delayed_vlm_ros.scenes.truth import PairTruth, pair_truth

LIVELY, VISITS = "lively", "visits"
ROOMS = (LIVELY, VISITS)
"""Objects come and go all the time; objects are present for three to ten seconds each."""
IMAGE_SIZE = (120, 160)
"""Height and width of the images in pixels."""
FRAME_SEC = 0.5
"""Seconds between frames, the memory's default."""
MIN_EVENT_SEC = 3.0
"""Time for which the object of an event is clearly visible, in seconds."""

_LATEST_START_SEC = 300.0
_MERGED_SEC = 3.0  # two visits that are closer are one
_VISIT_SEC = (3.5, 10.0)
_TRAVEL_SEC = 1.0
_PAUSE_SEC = (4.0, 10.0)  # between the visits on one lane
_VISIT_LANES = 2
_TRANSITIONS = ("sudden", "rolling", "carried")
_PHRASINGS = tuple(text for text in PHRASINGS["is_there"] if "still" not in text)
_PRESENT_WATCHES = 14
_ABSENT_WATCHES = 6
_SHAPE_SHARE, _COLOUR_SHARE = 0.2, 0.15  # of the watches that name only a shape or a colour


@dataclass(frozen=True)
class Visit:
    """A time in which an object is at least partly visible.

    Attributes:
        begin: Stamp of the first frame, in seconds.
        end: Stamp of the last frame, in seconds.
        clear_from: Stamp of the first frame of the first three seconds in which it is clearly visible; None: there are
            no such seconds.
    """

    begin: float
    end: float
    clear_from: float | None

    @property
    def is_event(self) -> bool:
        """Whether an alert is due."""
        return self.clear_from is not None


@dataclass(frozen=True)
class WatchedObject:
    """A standing question with its truth.

    Attributes:
        wanted: Words of the names of matching objects: a colour, a shape, both, or ``person``.
        question: Text of the question.
        visits: Visits of matching objects, in time order.
        truths: By stamp of a frame, in seconds, whether a matching object is present; None where it is ambiguous.
    """

    wanted: str
    question: str
    visits: tuple[Visit, ...]
    truths: Mapping[float, bool | None]


@dataclass(frozen=True)
class WatchedRoom:
    """Some minutes of a room, sampled twice per second, with its standing questions.

    Attributes:
        scene: The room.
        stamps: Stamps of the frames in seconds.
        watched: The questions.
    """

    scene: Scene
    stamps: tuple[float, ...]
    watched: tuple[WatchedObject, ...]

    @cached_property
    def images(self) -> list[NDArray[np.uint8]]:
        """RGB images of the frames, each ``(*IMAGE_SIZE, 3)`` uint8."""
        return [render(self.scene, stamp, *IMAGE_SIZE) for stamp in self.stamps]


def draw_room(seed: int, room: str, minutes: float) -> WatchedRoom:
    """Return the room of a seed, with questions about objects that come and about similar ones that never come.

    Args:
        seed: Seed of the room.
        room: One of ``ROOMS``.
        minutes: Length in minutes.
    """
    random = np.random.default_rng([seed, 22])
    start = round(random.uniform(0.0, _LATEST_START_SEC), 3)
    stamps = tuple(round(start + FRAME_SEC * number, 3) for number in range(round(minutes * 60.0 / FRAME_SEC)))
    scene = Scene.from_seed(seed) if room == LIVELY else visits_scene(seed, stamps[0], stamps[-1])
    truths = [pair_truth(scene, stamp, stamp) for stamp in stamps]
    watched = tuple(_watched(truths, wanted, _question(wanted, random)) for wanted in _wanted(truths, random))
    return WatchedRoom(scene, stamps, watched)


def visits_scene(seed: int, start_sec: float, stop_sec: float) -> Scene:
    """Return a room in which two objects rest, and others are present for three to ten seconds each.

    Args:
        seed: Seed of the room and its events.
        start_sec: Start of the stream in seconds.
        stop_sec: End of the stream in seconds.
    """
    random = np.random.default_rng([seed, 23])
    lanes = [int(lane) for lane in random.permutation(len(GROUNDS))]
    homes = [float(home) for home in random.permutation(HOMES)]
    colours = [str(colour) for colour in random.permutation(list(COLOURS))]
    episodes = []
    for lane in lanes[_VISIT_LANES:]:
        shape = SHAPES[random.integers(len(SHAPES))]
        episodes.append(Episode(lane, 0.0, stop_sec + 1.0, colours.pop(), shape, homes[lane]))
    for number, lane in enumerate(lanes[:_VISIT_LANES]):
        own = colours[number::_VISIT_LANES]  # objects that are present together have different colours
        begin = start_sec + random.uniform(*_PAUSE_SEC)
        while begin + 2 * _TRAVEL_SEC + _VISIT_SEC[1] < stop_sec:
            visit = _visit(random, lane, begin, own, homes[lane])
            episodes.append(visit)
            begin = visit.end_sec + random.uniform(*_PAUSE_SEC)
    return Scene.from_script(seed, tuple(episodes))


def _visit(random: np.random.Generator, lane: int, begin: float, colours: Sequence[str], home: float) -> Episode:
    arrival, departure = (_TRANSITIONS[random.integers(len(_TRANSITIONS))] for _ in range(2))
    travels = sum(one != "sudden" for one in (arrival, departure))
    return Episode(
        lane,
        begin,
        begin + random.uniform(*_VISIT_SEC) + travels * _TRAVEL_SEC,
        colours[int(random.integers(len(colours)))],
        SHAPES[random.integers(len(SHAPES))],
        home,
        arrival=arrival,
        departure=departure,
        side=-1.0 if home < random.uniform(0.3, 0.7) else 1.0,
        travel_sec=_TRAVEL_SEC,
    )


def _watched(truths: Sequence[PairTruth], wanted: str, question: str) -> WatchedObject:
    stamps = [truth.strict.stamp for truth in truths]
    partly = [bool(matching(dict(truth.lenient.positions), wanted)) for truth in truths]
    clearly = [bool(matching(dict(truth.strict.positions), wanted)) for truth in truths]
    known = [some if some == clear else None for some, clear in zip(partly, clearly, strict=True)]
    return WatchedObject(wanted, question, visits_of(stamps, partly, clearly), dict(zip(stamps, known, strict=True)))


def visits_of(stamps: Sequence[float], partly: Sequence[bool], clearly: Sequence[bool]) -> tuple[Visit, ...]:
    """Return the visits of an object.

    Args:
        stamps: Stamp of each frame in seconds, in time order.
        partly: Whether it is at least partly visible in each frame.
        clearly: Whether it is clearly visible in each frame.
    """
    merged: list[tuple[int, int]] = []
    for first, last in _runs(partly):
        is_near = bool(merged) and stamps[first] - stamps[merged[-1][1]] < _MERGED_SEC
        merged.append((merged.pop()[0] if is_near else first, last))
    visits = []
    for first, last in merged:
        clear = (one for one, other in _runs(clearly[first : last + 1]) if (other - one) * FRAME_SEC >= MIN_EVENT_SEC)
        begin = next(clear, None)
        visits.append(Visit(stamps[first], stamps[last], None if begin is None else stamps[first + begin]))
    return tuple(visits)


def _runs(flags: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last index of each run of true values."""
    edges = [0, *(number + 1 for number, (a, b) in enumerate(pairwise(flags)) if a != b), len(flags)]
    return ((first, after - 1) for first, after in pairwise(edges) if first < after and flags[first])


def _wanted(truths: Sequence[PairTruth], random: np.random.Generator) -> list[str]:
    """Return what the questions are about: objects that come, similar ones that never come, and people."""
    seen = sorted({name for truth in truths for name in truth.lenient.objects})
    chosen = [_shortened(str(name), random) for name in random.permutation(seen)[:_PRESENT_WATCHES]]
    similar = {f"{colour} {shape}" for colour in COLOURS for shape in SHAPES} - {*seen}
    similar = {name for name in similar if any({*name.split()} & {*other.split()} for other in seen)}
    chosen += [str(name) for name in random.permutation(sorted(similar))[:_ABSENT_WATCHES]]
    return list(dict.fromkeys([*chosen, PERSON]))


def _shortened(name: str, random: np.random.Generator) -> str:
    chance = random.random()
    colour, shape = name.split()
    return shape if chance < _SHAPE_SHARE else colour if chance < _SHAPE_SHARE + _COLOUR_SHARE else name


def _question(wanted: str, random: np.random.Generator) -> str:
    phrasings = PHRASINGS["is_there_person"] if wanted == PERSON else _PHRASINGS
    thing = f"{wanted} object" if wanted in COLOURS else wanted
    text = phrasings[random.integers(len(phrasings))].format(thing=thing).replace(" a orange", " an orange")
    return text[0].upper() + text[1:]
