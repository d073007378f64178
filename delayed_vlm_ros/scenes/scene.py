"""What stands where in the synthetic room, as a function of time.

Each object has a *lane*: a line on the floor at its own distance from the camera, with its own colours. A lane's time
is cut into episodes of equal length; the scene's seed, the lane and the episode's number decide what happens in it. So
the room never ends and never repeats, and any moment can be computed without the ones before it. A scene may also be
*scripted*: then its episodes are given one by one.

The room is laid out on an image of 4:3. Other shapes of image show the same room, stretched sideways, with
undistorted objects in it. All places are those in the image: what the camera's pan and shake do to them is in them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, PERSON_WIDTH, SHAPES

HORIZON = 0.42  # where the floor meets the wall, in image heights from the top
ASPECT = 4.0 / 3.0  # width to height of the image the room is laid out on
FULL_PAN = 0.08  # the farthest that pan and shake take the view sideways or up, in image widths or heights

# Both keep resting objects' middles away from the lines at fifths of the width and quarters of the height: there a
# image of 4:3 is cut into the embedded model's tokens, and it names what lies across such a line less reliably.
GROUNDS = (0.52, 0.69, 0.80, 0.98)  # where each lane's objects touch the floor, in image heights from the top
HOMES = (0.12, 0.31, 0.50, 0.69, 0.88)  # where objects rest, in image widths
_HOME_SPREAD = 0.025
_EPISODE_SEC = (14.0, 80.0)  # shortest and longest episode
_PRESENT = (0.06, 0.94)  # the part of an episode in which its object may be there
_CALM_SHARE = 0.4
_TRAVEL = 0.14  # the part of an episode that walking in or out takes
_STORIES = ("stay", "stay", "stay", "stay", "shift", "shift", "cross", "walker", "absent", "absent")
_CALM_STORIES = ("stay", "stay", "stay", "stay", "stay", "stay", "shift", "walker", "absent", "absent")
_WAYS = ("sudden", "rolling", "rolling", "carried")  # of coming and of going
_CALM_WAYS = ("sudden",)
_LONGEST_TRAVEL_SEC = 5.0
_PERSON_HEIGHT = 2.3  # in heights of a usual object at the same distance
_CARRIED_LIFT = 0.55  # how high a carried object is, in its own heights
_LEAST_SHOWN = 0.5  # an object hidden by more than the rest does not count as visible


@dataclass(frozen=True)
class CameraMotion:
    """How the camera moves.

    Attributes:
        pan: How far it swings to each side, in image widths.
        pan_period_sec: How long a swing there and back takes (s).
        shake: Standard deviation of its trembling, in image heights.
    """

    pan: float = 0.0
    pan_period_sec: float = 30.0
    shake: float = 0.0

    def offset(self, seed: int, time_sec: float) -> tuple[float, float]:
        """How far the view is moved: right in image widths, down in image heights."""
        right = self.pan * math.sin(2.0 * math.pi * time_sec / self.pan_period_sec + seed)
        if self.shake == 0.0:
            return right, 0.0
        random = np.random.default_rng([seed, 7, round(time_sec * 1e6)])
        trembling = np.clip(random.normal(0.0, self.shake, 2), -0.02, 0.02)
        return right + float(trembling[0]) / ASPECT, float(trembling[1])


@dataclass(frozen=True)
class Lane:
    """One line on the floor on which one object at a time stands or moves.

    Attributes:
        index: Number of the lane, 0 is the farthest from the camera.
        home: Where its objects rest, in image widths from the left.
        colours: The colours its objects may have.
        episode_sec: Length of an episode (s).
        offset_sec: How far into its first episode the lane is at time 0 (s).
    """

    index: int
    home: float
    colours: tuple[str, ...]
    episode_sec: float
    offset_sec: float


@dataclass(frozen=True)
class Episode:
    """What happens on a lane for a while.

    Attributes:
        lane: Number of the lane, 0 is the farthest from the camera.
        begin_sec: When its object (or person) may first be in the room (s).
        end_sec: When it is gone again (s).
        colour: The object's colour, one of ``COLOURS``.
        shape: The object's shape, one of ``SHAPES``.
        home: Where it rests, in image widths.
        story: ``stay``, ``shift`` (it rolls to ``target`` in the middle of its stay), ``cross`` (it rolls through the
            image) or ``walker`` (a person walks through, without an object).
        arrival: ``sudden``, ``rolling`` or ``carried`` in by a person, who leaves again.
        departure: Likewise.
        target: Where a shift ends, in image widths.
        side: From where it comes: -1 left, 1 right.
        travel_sec: How long coming in, going out and shifting take (s).
        scale: Its size beside the usual at its distance.
    """

    lane: int
    begin_sec: float
    end_sec: float
    colour: str
    shape: str
    home: float
    story: str = "stay"
    arrival: str = "sudden"
    departure: str = "sudden"
    target: float = 0.5
    side: float = -1.0
    travel_sec: float = 2.0
    scale: float = 1.0


@dataclass(frozen=True)
class Scene:
    """A synthetic room.

    Attributes:
        seed: The number it was made from; walls, light and noise follow from it, too.
        lanes: Its lanes, the farthest from the camera first; empty when it is scripted.
        calm: Whether things mostly come and go unseen, and rest meanwhile.
        script: Its episodes when it is scripted.
        camera: How the camera moves.
    """

    seed: int
    lanes: tuple[Lane, ...]
    calm: bool = False
    script: tuple[Episode, ...] = ()
    camera: CameraMotion = CameraMotion()

    @classmethod
    def from_seed(cls, seed: int) -> Scene:
        """Make the room that belongs to a seed.

        Args:
            seed: Any whole number from 0.

        Raises:
            ValueError: The seed is negative.
        """
        _check_seed(seed)
        random = np.random.default_rng([seed])
        homes = random.permutation(HOMES)
        colours = [str(colour) for colour in random.permutation(list(COLOURS))]
        each = len(colours) // len(GROUNDS)
        pace = float(np.exp(random.uniform(*np.log(_EPISODE_SEC))))
        lanes = []
        for index in range(len(GROUNDS)):
            length = float(np.clip(pace * random.uniform(0.75, 1.3), *_EPISODE_SEC))
            offset = float(random.uniform(0.2, 0.8)) * length
            own = tuple(colours[index * each : (index + 1) * each])
            lanes.append(Lane(index, float(homes[index]), own, length, offset))
        pans, shakes = random.random() < 1 / 3, random.random() < 1 / 3
        camera = CameraMotion(
            pan=float(random.uniform(0.02, 0.05)) if pans else 0.0,
            pan_period_sec=float(random.uniform(15.0, 60.0)),
            shake=float(random.uniform(0.001, 0.006)) if shakes else 0.0,
        )
        return cls(seed, tuple(lanes), calm=bool(random.random() < _CALM_SHARE), camera=camera)

    @classmethod
    def from_script(cls, seed: int, episodes: tuple[Episode, ...]) -> Scene:
        """Make a room in which just these things happen.

        Args:
            seed: Any whole number from 0: which room.
            episodes: In any order; those on one lane must not overlap in time.

        Raises:
            ValueError: The seed is negative, or an episode cannot be.
        """
        _check_seed(seed)
        for episode in episodes:
            if not (0 <= episode.lane < len(GROUNDS) and episode.begin_sec < episode.end_sec):
                raise ValueError(f"{episode} cannot be: its lane must be 0 to 3 and it must begin before it ends")
            if episode.colour not in COLOURS or episode.shape not in SHAPES:
                raise ValueError(f"{episode} cannot be: there is no {episode.colour} {episode.shape}")
        return cls(seed, (), script=episodes)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"the seed is {seed}; give a whole number from 0")


@dataclass(frozen=True)
class VisibleObject:
    """The truth about one object or person in the image.

    Attributes:
        colour: One of ``red green blue yellow orange purple white black``, unique among the objects of one moment
            (unless a script says otherwise); for a person, of the clothes.
        shape: One of ``SHAPES``, or ``person``.
        x: Its middle, in image widths from the left; 0..1 inside the image.
        y: Its middle, in image heights from the top; 0..1 inside the image.
        size: Its height, in image heights; objects are as wide as high.
        moving: Whether it is on its way.
        shown: How much of it is inside the image and not hidden by something nearer, by bounding boxes (0..1).
    """

    colour: str
    shape: str
    x: float
    y: float
    size: float
    moving: bool
    shown: float = 1.0

    @property
    def name(self) -> str:
        """What one calls it: ``red box``, ``person``."""
        return PERSON if self.shape == PERSON else f"{self.colour} {self.shape}"

    @property
    def width(self) -> float:
        """Its width, in image heights."""
        return self.size * (PERSON_WIDTH if self.shape == PERSON else 1.0)

    @property
    def half_width(self) -> float:
        """Half its width, in image widths."""
        return self.width / ASPECT / 2


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
    right, down = scene.camera.offset(scene.seed, time_sec)
    placed = [
        replace(thing, x=thing.x - right, y=thing.y - down)
        for episode in _episodes(scene, time_sec)
        for thing in _things(episode, time_sec)
    ]
    return [replace(thing, shown=_shown(thing, placed[index + 1 :])) for index, thing in enumerate(placed)]


def visible_objects(scene: Scene, time_sec: float) -> list[VisibleObject]:
    """What a person would say is in the image: middle inside it, and at most half hidden by something nearer.

    Args:
        scene: The room.
        time_sec: Time since the room began (s), from 0.

    Returns:
        The visible objects and persons, the farthest from the camera first.

    Raises:
        ValueError: The time is negative or no number.
    """
    return [
        thing
        for thing in placed_objects(scene, time_sec)
        if 0.0 <= thing.x <= 1.0 and 0.0 <= thing.y <= 1.0 and thing.shown >= _LEAST_SHOWN
    ]


def _episodes(scene: Scene, time_sec: float) -> list[Episode]:
    """The episodes that go on, the farthest lane first."""
    if not scene.lanes:
        return sorted(
            (one for one in scene.script if one.begin_sec <= time_sec <= one.end_sec), key=lambda one: one.lane
        )
    numbered = [(lane, int((time_sec + lane.offset_sec) // lane.episode_sec)) for lane in scene.lanes]
    drawn = [_draw(scene.seed, scene.calm, lane, number) for lane, number in numbered]
    return [one for one in drawn if one is not None and one.begin_sec <= time_sec <= one.end_sec]


@lru_cache(maxsize=256)
def _draw(seed: int, calm: bool, lane: Lane, number: int) -> Episode | None:  # noqa: FBT001  part of the cache's key
    """What happens in a lane's episode of this number; None: nothing."""
    random = np.random.default_rng([seed, lane.index + 1, number])
    stories, ways = (_CALM_STORIES, _CALM_WAYS) if calm else (_STORIES, _WAYS)
    story = stories[random.integers(len(stories))]
    if story == "absent":
        return None
    started = number * lane.episode_sec - lane.offset_sec
    home = lane.home + float(random.uniform(-_HOME_SPREAD, _HOME_SPREAD))
    others = [place for place in HOMES if abs(place - lane.home) > 2 * _HOME_SPREAD]
    return Episode(
        lane=lane.index,
        begin_sec=started + _PRESENT[0] * lane.episode_sec,
        end_sec=started + _PRESENT[1] * lane.episode_sec,
        colour=lane.colours[random.integers(len(lane.colours))],
        shape=SHAPES[random.integers(len(SHAPES))],
        home=home,
        story=story,
        arrival=ways[random.integers(len(ways))],
        departure=ways[random.integers(len(ways))],
        target=float(others[random.integers(len(others))]),
        side=-1.0 if lane.home < random.uniform(0.3, 0.7) else 1.0,
        travel_sec=min(_TRAVEL * lane.episode_sec, _LONGEST_TRAVEL_SEC),
        scale=float(random.uniform(0.92, 1.08)),
    )


def _things(episode: Episode, time_sec: float) -> Iterator[VisibleObject]:
    """The person and the object of an episode, as far as they are there, the person behind the object."""
    ground = GROUNDS[episode.lane]
    usual = 0.15 + 0.19 * (ground - HORIZON) / (1.0 - HORIZON)
    size = usual * episode.scale
    height = usual * _PERSON_HEIGHT
    outside = 0.5 + episode.side * (0.5 + height / 2)
    clothes = ("grey", "brown", "teal")[int(episode.begin_sec) % 3]
    person = _person_x(episode, outside, time_sec)
    if person is not None:
        yield VisibleObject(clothes, PERSON, person, ground - height / 2, height, moving=True)
    if episode.story == "walker":
        return
    x = _object_x(episode, outside, time_sec)
    carried = _is_carried(episode, time_sec)
    lift = _CARRIED_LIFT * size if carried else 0.0
    moving = carried or _object_x(episode, outside, min(time_sec + 0.05, episode.end_sec)) != x
    yield VisibleObject(episode.colour, episode.shape, x, ground - size / 2 - lift, size, moving)


def _since(episode: Episode, time_sec: float) -> float:
    """Travel times since the beginning, below 1 while it comes."""
    return (time_sec - episode.begin_sec) / episode.travel_sec


def _until(episode: Episode, time_sec: float) -> float:
    """Travel times until the end, below 1 while it goes."""
    return (episode.end_sec - time_sec) / episode.travel_sec


def _is_carried(episode: Episode, time_sec: float) -> bool:
    if episode.story == "cross":
        return False
    comes = episode.arrival == "carried" and _since(episode, time_sec) < 1.0
    goes = episode.departure == "carried" and _until(episode, time_sec) < 1.0
    return comes or goes


def _person_x(episode: Episode, outside: float, time_sec: float) -> float | None:
    """Where the episode's person is; None while there is none."""
    if episode.story == "walker":
        done = (time_sec - episode.begin_sec) / (episode.end_sec - episode.begin_sec)
        return outside + (1.0 - 2.0 * outside) * done
    if episode.story == "cross":
        return None
    rest = episode.target if episode.story == "shift" else episode.home
    for way, travels, place in (
        (episode.arrival, _since(episode, time_sec), episode.home),
        (episode.departure, _until(episode, time_sec), rest),
    ):
        if way == "carried" and travels < 2.0:
            return place + (outside - place) * abs(travels - 1.0)
    return None


def _object_x(episode: Episode, outside: float, time_sec: float) -> float:
    since, until = _since(episode, time_sec), _until(episode, time_sec)
    if episode.story == "cross":
        return outside + (1.0 - 2.0 * outside) * since / (since + until)
    middle = (episode.end_sec - episode.begin_sec) / (2.0 * episode.travel_sec)
    shifted = min(1.0, max(0.0, since - middle + 0.5)) if episode.story == "shift" else 0.0
    rest = episode.home + (episode.target - episode.home) * shifted
    if episode.arrival != "sudden" and since < 1.0:
        return rest + (outside - rest) * (1.0 - since)
    if episode.departure != "sudden" and until < 1.0:
        return rest + (outside - rest) * (1.0 - until)
    return rest


def _shown(thing: VisibleObject, nearer: list[VisibleObject]) -> float:
    """How much of a thing lies in the image and behind nothing, by bounding boxes, at least (0..1)."""
    half = thing.half_width
    inside_x = min(1.0, thing.x + half) - max(0.0, thing.x - half)
    inside_y = min(1.0, thing.y + thing.size / 2) - max(0.0, thing.y - thing.size / 2)
    if inside_x <= 0.0 or inside_y <= 0.0:
        return 0.0
    inside = (inside_x / (2 * half)) * (inside_y / thing.size)
    hidden = 0.0
    for other in nearer:
        wide = min(
            thing.width, other.width, max(0.0, (thing.width + other.width) / 2 - abs(thing.x - other.x) * ASPECT)
        )
        high = min(thing.size, other.size, max(0.0, (thing.size + other.size) / 2 - abs(thing.y - other.y)))
        hidden += wide * high / (thing.width * thing.size)
    return min(1.0, max(0.0, inside - hidden))
