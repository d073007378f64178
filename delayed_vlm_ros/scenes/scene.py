"""Objects and people in the synthetic room, as a function of time.

Each object moves on a *lane*: a line on the floor at a fixed distance from the camera, with its own colours. A lane's
time is divided into episodes of equal length. Seed, lane and episode number determine what happens in an episode, so
the room never ends or repeats, and every time can be computed independently. A *scripted* scene lists its episodes
instead.

The room is laid out on a 4:3 image. Other aspect ratios show the same room, stretched sideways, with undistorted
objects. All positions are image positions and include the camera's pan and shake.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, PERSON_WIDTH, SHAPES

HORIZON = 0.42  # border between wall and floor, in image heights from the top
ASPECT = 4.0 / 3.0  # width ÷ height of the image on which the room is laid out
FULL_PAN = 0.08  # maximum shift of the view by pan and shake, in image widths or heights

# Both keep the centres of resting objects away from the fifths of the width and the quarters of the height: at these
# lines the embedded model divides a 4:3 image into tokens, and it is less reliable for objects across them.
GROUNDS = (0.52, 0.69, 0.80, 0.98)  # height at which a lane's objects touch the floor, in image heights from the top
HOMES = (0.12, 0.31, 0.50, 0.69, 0.88)  # resting positions, in image widths
_HOME_SPREAD = 0.025
_EPISODE_SEC = (14.0, 80.0)  # range of episode lengths
_PRESENT = (0.06, 0.94)  # share of an episode during which its object is present: from and to
_CALM_SHARE = 0.4
_TRAVEL = 0.14  # duration of arrival and departure, as a share of the episode
_STORIES = ("stay", "stay", "stay", "stay", "shift", "shift", "cross", "walker", "absent", "absent")
_CALM_STORIES = ("stay", "stay", "stay", "stay", "stay", "stay", "shift", "walker", "absent", "absent")
_TRANSITIONS = ("sudden", "rolling", "rolling", "carried")  # for arrival and departure
_CALM_TRANSITIONS = ("sudden",)
_MAX_TRAVEL_SEC = 5.0
_PERSON_HEIGHT = 2.3  # in heights of an average object at the same distance
_CARRIED_LIFT = 0.55  # lift of a carried object, in its own heights
_MIN_SHOWN = 0.5  # share of an object that must be visible


@dataclass(frozen=True)
class CameraMotion:
    """Motion of the camera.

    Attributes:
        pan: Amplitude of the pan, in image widths.
        pan_period_sec: Period of the pan, in seconds.
        shake: Standard deviation of the shake, in image heights.
    """

    pan: float = 0.0
    pan_period_sec: float = 30.0
    shake: float = 0.0

    def offset(self, seed: int, time_sec: float) -> tuple[float, float]:
        """Return the shift of the view: right in image widths, down in image heights."""
        right = self.pan * math.sin(2.0 * math.pi * time_sec / self.pan_period_sec + seed)
        if self.shake == 0.0:
            return right, 0.0
        random = np.random.default_rng([seed, 7, round(time_sec * 1e6)])
        shake = np.clip(random.normal(0.0, self.shake, 2), -0.02, 0.02)
        return right + float(shake[0]) / ASPECT, float(shake[1])


@dataclass(frozen=True)
class Lane:
    """A line on the floor on which one object at a time rests or moves.

    Attributes:
        index: Number of the lane; 0 is the farthest from the camera.
        home: Resting position of its objects, in image widths from the left.
        colours: Possible colours of its objects.
        episode_sec: Length of an episode, in seconds.
        offset_sec: Time elapsed in the first episode at scene time 0, in seconds.
    """

    index: int
    home: float
    colours: tuple[str, ...]
    episode_sec: float
    offset_sec: float


@dataclass(frozen=True)
class Episode:
    """A period on a lane with one object or one person.

    Attributes:
        lane: Number of the lane; 0 is the farthest from the camera.
        begin_sec: Earliest time at which the object or person is in the room, in seconds.
        end_sec: Time at which the object or person has left, in seconds.
        colour: Colour of the object, one of ``COLOURS``.
        shape: Shape of the object, one of ``SHAPES``.
        home: Resting position, in image widths.
        story: ``stay``, ``shift`` (the object rolls to ``target`` halfway through), ``cross`` (the object rolls through
            the image) or ``walker`` (a person walks through, without an object).
        arrival: ``sudden``, ``rolling`` or ``carried`` (a person brings the object and leaves).
        departure: ``sudden``, ``rolling`` or ``carried`` (a person fetches the object).
        target: Final position of a shift, in image widths.
        side: Side from which the object or person comes: -1 left, 1 right.
        travel_sec: Duration of arrival, departure and shift, in seconds.
        scale: Size relative to the average at this distance.
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
        seed: Seed of the scene; it also determines walls, light and noise.
        lanes: Lanes, the farthest from the camera first; empty for a scripted scene.
        calm: Whether most objects appear and disappear suddenly and rest in between.
        script: Episodes of a scripted scene.
        camera: Motion of the camera.
    """

    seed: int
    lanes: tuple[Lane, ...]
    calm: bool = False
    script: tuple[Episode, ...] = ()
    camera: CameraMotion = CameraMotion()

    @classmethod
    def from_seed(cls, seed: int) -> Scene:
        """Return the scene of a seed.

        Args:
            seed: Integer; not negative.

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
        """Return a scripted scene.

        Args:
            seed: Integer that selects the room; not negative.
            episodes: Episodes in any order; episodes on one lane must not overlap in time.

        Raises:
            ValueError: The seed is negative, or an episode is invalid.
        """
        _check_seed(seed)
        for episode in episodes:
            if not (0 <= episode.lane < len(GROUNDS) and episode.begin_sec < episode.end_sec):
                raise ValueError(f"invalid {episode}: lane must be 0 to 3, and begin_sec less than end_sec")
            if episode.colour not in COLOURS or episode.shape not in SHAPES:
                raise ValueError(f"invalid {episode}: unknown colour or shape '{episode.colour} {episode.shape}'")
        return cls(seed, (), script=episodes)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"'seed' must be 0 or more, got {seed}")


@dataclass(frozen=True)
class VisibleObject:
    """Ground truth of one object or person in the image.

    Attributes:
        colour: Colour, one of ``red green blue yellow orange purple white black``; for a person, colour of the clothes.
            Objects present at the same time have different colours unless a script says otherwise.
        shape: Shape, one of ``SHAPES``, or ``person``.
        x: Centre, in image widths from the left; 0..1 inside the image.
        y: Centre, in image heights from the top; 0..1 inside the image.
        size: Height, in image heights; objects are as wide as they are high.
        moving: Whether it moves.
        shown: Share inside the image and not hidden by a nearer object, computed from bounding boxes (0..1).
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
        """Name in questions and answers: ``red box``, ``person``."""
        return PERSON if self.shape == PERSON else f"{self.colour} {self.shape}"

    @property
    def width(self) -> float:
        """Width, in image heights."""
        return self.size * (PERSON_WIDTH if self.shape == PERSON else 1.0)

    @property
    def half_width(self) -> float:
        """Half the width, in image widths."""
        return self.width / ASPECT / 2


def placed_objects(scene: Scene, time_sec: float) -> list[VisibleObject]:
    """Return all objects and people in the room, visible or not, the farthest from the camera first.

    Args:
        scene: The scene.
        time_sec: Time since the start of the scene, in seconds; not negative.

    Raises:
        ValueError: The time is negative or not finite.
    """
    if not (math.isfinite(time_sec) and time_sec >= 0.0):
        raise ValueError(f"'time_sec' must be finite and not negative, got {time_sec}")
    right, down = scene.camera.offset(scene.seed, time_sec)
    placed = [
        replace(item, x=item.x - right, y=item.y - down)
        for episode in _episodes(scene, time_sec)
        for item in _present(episode, time_sec)
    ]
    return [replace(item, shown=_shown(item, placed[index + 1 :])) for index, item in enumerate(placed)]


def visible_objects(scene: Scene, time_sec: float) -> list[VisibleObject]:
    """Return the objects and people whose centre is in the image and that are at most half hidden.

    Args:
        scene: The scene.
        time_sec: Time since the start of the scene, in seconds; not negative.

    Returns:
        The visible objects and people, the farthest from the camera first.

    Raises:
        ValueError: The time is negative or not finite.
    """
    return [
        item
        for item in placed_objects(scene, time_sec)
        if 0.0 <= item.x <= 1.0 and 0.0 <= item.y <= 1.0 and item.shown >= _MIN_SHOWN
    ]


def _episodes(scene: Scene, time_sec: float) -> list[Episode]:
    """Return the active episodes, the farthest lane first."""
    if not scene.lanes:
        return sorted(
            (one for one in scene.script if one.begin_sec <= time_sec <= one.end_sec), key=lambda one: one.lane
        )
    numbered = [(lane, int((time_sec + lane.offset_sec) // lane.episode_sec)) for lane in scene.lanes]
    drawn = [_draw(scene.seed, scene.calm, lane, number) for lane, number in numbered]
    return [one for one in drawn if one is not None and one.begin_sec <= time_sec <= one.end_sec]


@lru_cache(maxsize=256)
def _draw(seed: int, calm: bool, lane: Lane, number: int) -> Episode | None:  # noqa: FBT001  cache key
    """Return a lane's episode of this number; None if it is empty."""
    random = np.random.default_rng([seed, lane.index + 1, number])
    stories, transitions = (_CALM_STORIES, _CALM_TRANSITIONS) if calm else (_STORIES, _TRANSITIONS)
    story = stories[random.integers(len(stories))]
    if story == "absent":
        return None
    started = number * lane.episode_sec - lane.offset_sec
    home = lane.home + float(random.uniform(-_HOME_SPREAD, _HOME_SPREAD))
    others = [other for other in HOMES if abs(other - lane.home) > 2 * _HOME_SPREAD]
    return Episode(
        lane=lane.index,
        begin_sec=started + _PRESENT[0] * lane.episode_sec,
        end_sec=started + _PRESENT[1] * lane.episode_sec,
        colour=lane.colours[random.integers(len(lane.colours))],
        shape=SHAPES[random.integers(len(SHAPES))],
        home=home,
        story=story,
        arrival=transitions[random.integers(len(transitions))],
        departure=transitions[random.integers(len(transitions))],
        target=float(others[random.integers(len(others))]),
        side=-1.0 if lane.home < random.uniform(0.3, 0.7) else 1.0,
        travel_sec=min(_TRAVEL * lane.episode_sec, _MAX_TRAVEL_SEC),
        scale=float(random.uniform(0.92, 1.08)),
    )


def _present(episode: Episode, time_sec: float) -> Iterator[VisibleObject]:
    """Yield the person and the object of an episode that are present, the farther one first."""
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
    """Return the time since the start in units of the travel time; below 1 during arrival."""
    return (time_sec - episode.begin_sec) / episode.travel_sec


def _until(episode: Episode, time_sec: float) -> float:
    """Return the time until the end in units of the travel time; below 1 during departure."""
    return (episode.end_sec - time_sec) / episode.travel_sec


def _is_carried(episode: Episode, time_sec: float) -> bool:
    if episode.story == "cross":
        return False
    comes = episode.arrival == "carried" and _since(episode, time_sec) < 1.0
    goes = episode.departure == "carried" and _until(episode, time_sec) < 1.0
    return comes or goes


def _person_x(episode: Episode, outside: float, time_sec: float) -> float | None:
    """Return the position of the episode's person; None while absent."""
    if episode.story == "walker":
        done = (time_sec - episode.begin_sec) / (episode.end_sec - episode.begin_sec)
        return outside + (1.0 - 2.0 * outside) * done
    if episode.story == "cross":
        return None
    rest = episode.target if episode.story == "shift" else episode.home
    for transition, travels, position in (
        (episode.arrival, _since(episode, time_sec), episode.home),
        (episode.departure, _until(episode, time_sec), rest),
    ):
        if transition == "carried" and travels < 2.0:
            return position + (outside - position) * abs(travels - 1.0)
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


def _shown(item: VisibleObject, nearer: list[VisibleObject]) -> float:
    """Return a lower bound of the visible share, from bounding boxes (0..1)."""
    half = item.half_width
    inside_x = min(1.0, item.x + half) - max(0.0, item.x - half)
    inside_y = min(1.0, item.y + item.size / 2) - max(0.0, item.y - item.size / 2)
    if inside_x <= 0.0 or inside_y <= 0.0:
        return 0.0
    inside = (inside_x / (2 * half)) * (inside_y / item.size)
    hidden = 0.0
    for other in nearer:
        wide = min(item.width, other.width, max(0.0, (item.width + other.width) / 2 - abs(item.x - other.x) * ASPECT))
        high = min(item.size, other.size, max(0.0, (item.size + other.size) / 2 - abs(item.y - other.y)))
        hidden += wide * high / (item.width * item.size)
    return min(1.0, max(0.0, inside - hidden))
