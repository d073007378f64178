"""What stands where in the synthetic room, as a function of time.

Each object has a *lane*: a line on the floor at its own distance from the camera, with its own colours. A lane's time
is cut into episodes of equal length; the scene's seed, the lane and the episode's number decide what happens in it. So
the room never ends and never repeats, and any moment can be computed without the ones before it.

The room is laid out on a picture of 4:3. Other shapes of picture show the same room, stretched sideways, with
undistorted objects in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from delayed_vlm_ros.simulation.sprites import SHAPES

HORIZON = 0.42  # where the floor meets the wall, in picture heights from the top
ASPECT = 4.0 / 3.0  # width to height of the picture the room is laid out on

_LANES = (  # ground line in picture heights from the top, colours; no two lanes share a colour
    (0.60, ("white", "purple")),
    (0.71, ("red", "green")),
    (0.82, ("yellow", "blue")),
    (0.95, ("orange", "black")),
)
_HOMES = (0.16, 0.39, 0.62, 0.85)  # where a lane's object stands, in picture widths
_EPISODE_SEC = (24.0, 45.0)  # shortest and longest episode
_PRESENT = (0.06, 0.94)  # the part of an episode in which its object may be there
_TRAVEL = 0.14  # the part of an episode that walking in or out takes
_STORIES = ("rest", "rest", "visit", "visit", "wander", "wander", "cross", "absent")
_LEAST_SHOWN = 0.5  # an object hidden by more than the rest does not count as visible


@dataclass(frozen=True)
class Lane:
    """One line on the floor on which one object at a time stands or moves.

    Attributes:
        index: Number of the lane, 0 is the farthest from the camera.
        ground: Where its objects touch the floor, in picture heights from the top.
        home: Where its objects rest, in picture widths from the left.
        colours: The colours its objects may have.
        episode_sec: Length of an episode (s).
        offset_sec: How far into its first episode the lane is at time 0 (s).
    """

    index: int
    ground: float
    home: float
    colours: tuple[str, ...]
    episode_sec: float
    offset_sec: float


@dataclass(frozen=True)
class Scene:
    """A synthetic room; all about it follows from its seed.

    Attributes:
        seed: The number the room was made from.
        lanes: Its lanes, the farthest from the camera first.
    """

    seed: int
    lanes: tuple[Lane, ...]

    @classmethod
    def from_seed(cls, seed: int) -> Scene:
        """Make the room that belongs to a seed.

        Args:
            seed: Any whole number from 0.

        Raises:
            ValueError: The seed is negative.
        """
        if seed < 0:
            raise ValueError(f"the seed is {seed}; give a whole number from 0")
        random = np.random.default_rng([seed])
        homes = random.permutation(_HOMES)
        lanes = []
        for index, (ground, colours) in enumerate(_LANES):
            length = float(random.uniform(*_EPISODE_SEC))
            offset = float(random.uniform(0.2, 0.8)) * length
            lanes.append(Lane(index, ground, float(homes[index]), colours, length, offset))
        return cls(seed, tuple(lanes))


@dataclass(frozen=True)
class VisibleObject:
    """The truth about one object in the picture.

    Attributes:
        colour: One of ``red green blue yellow orange purple white black``; unique among the visible objects.
        shape: One of ``box ball cylinder cone``.
        x: Its middle, in picture widths from the left (0..1).
        y: Its middle, in picture heights from the top (0..1).
        size: Its height and width, in picture heights.
        moving: Whether it is on its way.
    """

    colour: str
    shape: str
    x: float
    y: float
    size: float
    moving: bool

    @property
    def name(self) -> str:
        """What a person calls it: ``red box``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class _Episode:
    story: str
    colour: str
    shape: str
    size: float
    side: float  # from where it comes: -1 left, 1 right


def placed_objects(scene: Scene, time_sec: float) -> list[VisibleObject]:
    """Everything in the room, in or out of sight, the farthest from the camera first.

    Args:
        scene: The room.
        time_sec: Time since the room began (s), from 0.

    Raises:
        ValueError: The time is negative or no number.
    """
    if not (math.isfinite(time_sec) and time_sec >= 0.0):
        raise ValueError(f"the time is {time_sec}; give seconds since the scene began, from 0")
    placed = (_placed(scene.seed, lane, time_sec) for lane in scene.lanes)
    return [thing for thing in placed if thing is not None]


def visible_objects(scene: Scene, time_sec: float) -> list[VisibleObject]:
    """What a person would say is in the picture: middle inside it, and at most half hidden by something nearer.

    Args:
        scene: The room.
        time_sec: Time since the room began (s), from 0.

    Returns:
        The visible objects, the farthest from the camera first.

    Raises:
        ValueError: The time is negative or no number.
    """
    placed = placed_objects(scene, time_sec)
    return [
        thing
        for index, thing in enumerate(placed)
        if 0.0 <= thing.x <= 1.0 and _shown(thing, placed[index + 1 :]) >= _LEAST_SHOWN
    ]


def _placed(seed: int, lane: Lane, time_sec: float) -> VisibleObject | None:
    number, phase = divmod((time_sec + lane.offset_sec) / lane.episode_sec, 1.0)
    episode = _episode(seed, lane, int(number))
    spot = _spot(episode, lane.home, phase)
    if spot is None:
        return None
    x, moving = spot
    return VisibleObject(episode.colour, episode.shape, x, lane.ground - episode.size / 2, episode.size, moving)


@lru_cache(maxsize=256)
def _episode(seed: int, lane: Lane, number: int) -> _Episode:
    random = np.random.default_rng([seed, lane.index + 1, number])
    nearness = (lane.ground - HORIZON) / (1.0 - HORIZON)
    return _Episode(
        story=_STORIES[random.integers(len(_STORIES))],
        colour=lane.colours[random.integers(len(lane.colours))],
        shape=SHAPES[random.integers(len(SHAPES))],
        size=float((0.15 + 0.19 * nearness) * random.uniform(0.92, 1.08)),
        side=-1.0 if lane.home < random.uniform(0.3, 0.7) else 1.0,
    )


def _spot(episode: _Episode, home: float, phase: float) -> tuple[float, bool] | None:
    """Where the episode's object is at ``phase`` (0..1): x in picture widths, whether it moves; None when away."""
    begin, end = _PRESENT
    if episode.story == "absent" or not begin <= phase <= end:
        return None
    outside = 0.5 + episode.side * (0.5 + episode.size)
    if episode.story == "visit":
        away = max(begin + _TRAVEL - phase, phase - (end - _TRAVEL), 0.0) / _TRAVEL
        return home + (outside - home) * away, away > 0.0
    if episode.story == "wander":
        return home + 0.09 * math.sin(6.0 * math.pi * (phase - begin) / (end - begin)), True
    if episode.story == "cross":
        return outside + (1.0 - 2.0 * outside) * (phase - begin) / (end - begin), True
    return home, False


def _shown(thing: VisibleObject, nearer: list[VisibleObject]) -> float:
    """How much of an object nothing nearer hides, by its bounding box, at least (0..1)."""
    hidden = 0.0
    for other in nearer:
        reach = (thing.size + other.size) / 2
        wide = min(thing.size, other.size, max(0.0, reach - abs(thing.x - other.x) * ASPECT))
        high = min(thing.size, other.size, max(0.0, reach - abs(thing.y - other.y)))
        hidden += wide * high / thing.size**2
    return max(0.0, 1.0 - hidden)
