"""A camera patrol through rooms for hours, with rare events, and the ground truth of every sampled frame.

A patrol is a pure function of its plan. ``patrol_images`` renders its images. Frames are numbered as a memory samples
them, at 2 fps; frames 2n and 2n + 1 form pair n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.scenes.sprites import CLOTHES, COLOURS, SHAPES

FRAME_SEC = 0.5
"""Seconds between frames, at the memory's default rate."""
TRANSIT = -1
"""Place number of frames between two places."""
DESIGN_SEEDS = range(100)
"""Seeds of the patrols used to design a strategy."""
REPORT_SEEDS = range(1000, 1100)
"""Seeds of the patrols used for reported figures; nothing is tuned on them."""

_TRANSIT_FRAMES = (4, 8)
_WALK_SEC = (5.0, 14.0)
_BLACKOUT_SEC = (3.0, 15.0)
_EVENT_MARGIN_FRAMES = 2  # distance from the start and end of a visit
_END_MARGIN_FRAMES = 60  # no events in the last frames: Stream still holds these without any selection
_BLURRED_SHARE = 0.04  # share of the frames blurred by sudden shake
_TRIES = 1000


@dataclass(frozen=True)
class PatrolPlan:
    """Parameters of a patrol. Ranges are (minimum, maximum).

    Attributes:
        seed: Random seed of the patrol.
        hours: Duration, in hours.
        places: Number of rooms; each round visits all of them in a new order.
        events: Number of objects that appear briefly.
        event_sec: Duration of an event, in seconds.
        event_area: Area of an event, as a share of the image.
        dwell_sec: Duration of a visit to a room, in seconds.
        walkers_per_minute: Mean rate of people crossing the image, per minute.
        shake: Standard deviation of the camera's shake, in image widths.
        pan: Amplitude of the camera's pan, in image widths; at most 0.25.
        pan_period_sec: Period of the pan, in seconds.
        exposure_jumps_per_minute: Mean rate of sudden gain changes of up to 25 %, per minute.
        blackouts_per_hour: Mean rate of dark periods of 3 to 15 s, per hour.
        flicker: Standard deviation of the brightness between frames, as a share.
        daylight: Amplitude of the slow change of brightness over hours, as a share.
        moving_shadows: Whether a wide shadow moves through the image.
    """

    seed: int
    hours: float = 2.0
    places: int = 4
    events: int = 5
    event_sec: tuple[float, float] = (1.0, 3.0)
    event_area: tuple[float, float] = (0.03, 0.10)
    dwell_sec: tuple[float, float] = (60.0, 240.0)
    walkers_per_minute: float = 1.0
    shake: float = 0.005
    pan: float = 0.04
    pan_period_sec: float = 90.0
    exposure_jumps_per_minute: float = 0.5
    blackouts_per_hour: float = 2.0
    flicker: float = 0.01
    daylight: float = 0.15
    moving_shadows: bool = False


@dataclass(frozen=True)
class Visit:
    """A visit to a place.

    Attributes:
        place: Number of the place, from 0.
        start: First frame.
        stop: Frame after the last one; the transit to the next place starts with it.
    """

    place: int
    start: int
    stop: int


@dataclass(frozen=True)
class Event:
    """An object that appears briefly.

    Attributes:
        start: First frame that shows the object.
        stop: Frame after the last one.
        area: Area of the object, as a share of the image.
        shape: Shape of the object, one of ``SHAPES``.
        colours: Colours in order of preference; the first one with enough contrast is used.
        x: Centre, in image widths.
        y: Centre, in image heights.
        drift: Motion to the right per frame, in image widths.
    """

    start: int
    stop: int
    area: float
    shape: str
    colours: tuple[str, ...]
    x: float
    y: float
    drift: float

    @property
    def seconds(self) -> float:
        """Duration, in seconds."""
        return (self.stop - self.start) * FRAME_SEC


@dataclass(frozen=True)
class Walker:
    """A person who crosses the image.

    Attributes:
        start: First frame.
        stop: Frame after the last one.
        clothes: Colour of the clothes, one of ``CLOTHES``.
        height: Height of the person, in image heights.
        feet: Position of the feet, in image heights from the top.
        moves_right: Whether the person walks to the right.
    """

    start: int
    stop: int
    clothes: str
    height: float
    feet: float
    moves_right: bool


@dataclass(frozen=True)
class Patrol:
    """A complete patrol.

    Attributes:
        plan: Parameters of the patrol.
        visits: Visits in time order.
        events: Events in time order.
        walkers: Walkers in time order.
        dark: Whether each frame is black, ``(frames,)`` bool.
        blurred: Whether shake blurs each frame, ``(frames,)`` bool.
        gain: Brightness factor of each frame, ``(frames,)`` float64.
    """

    plan: PatrolPlan
    visits: tuple[Visit, ...]
    events: tuple[Event, ...]
    walkers: tuple[Walker, ...]
    dark: NDArray[np.bool_]
    blurred: NDArray[np.bool_]
    gain: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.gain)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """Place number of each frame, or ``TRANSIT``; ``(frames,)`` int64."""
        places = np.full(self.frames, TRANSIT)
        for visit in self.visits:
            places[visit.start : visit.stop] = visit.place
        return places

    @cached_property
    def sharp(self) -> NDArray[np.bool_]:
        """Whether each frame clearly shows a place: not in transit, blurred or black; ``(frames,)`` bool."""
        sharp: NDArray[np.bool_] = (self.place != TRANSIT) & ~self.blurred & ~self.dark
        return sharp

    def events_in(self, pair: int) -> frozenset[int]:
        """Return the numbers of the events that at least one sharp frame of a pair shows."""
        frames = [frame for frame in (2 * pair, 2 * pair + 1) if frame < self.frames and self.sharp[frame]]
        return frozenset(
            number for number, event in enumerate(self.events) if any(event.start <= f < event.stop for f in frames)
        )

    def places_in(self, pair: int) -> frozenset[int]:
        """Return the places that at least one sharp frame of a pair shows."""
        frames = [frame for frame in (2 * pair, 2 * pair + 1) if frame < self.frames and self.sharp[frame]]
        return frozenset(int(self.place[frame]) for frame in frames)


def draw_patrol(plan: PatrolPlan) -> Patrol:
    """Return the patrol of a plan.

    Raises:
        ValueError: The plan has no room for its events.
    """
    frames = round(plan.hours * 3600.0 / FRAME_SEC)
    visits = _draw_visits(plan, frames)
    dark = _draw_dark(plan, frames)
    blurred = np.random.default_rng([plan.seed, 3]).random(frames) < (_BLURRED_SHARE if plan.shake else 0.0)
    patrol = Patrol(plan, visits, (), _draw_walkers(plan, frames), dark, blurred, _draw_gain(plan, frames))
    events = _draw_events(plan, patrol)
    return Patrol(plan, visits, events, patrol.walkers, dark, blurred, patrol.gain)


def _draw_visits(plan: PatrolPlan, frames: int) -> tuple[Visit, ...]:
    random = np.random.default_rng([plan.seed, 1])
    if plan.places == 1:
        return (Visit(0, 0, frames),)
    visits: list[Visit] = []
    start = 0
    while start < frames:
        for place in _next_round(random, plan.places, visits[-1].place if visits else -1):
            stop = min(frames, start + round(random.uniform(*plan.dwell_sec) / FRAME_SEC))
            if stop > start:
                visits.append(Visit(place, start, stop))
            start = stop + int(random.integers(*_TRANSIT_FRAMES))
    return tuple(visits)


def _next_round(random: np.random.Generator, places: int, last: int) -> list[int]:
    """Return all places in a new order that does not start with the last one."""
    order = [int(place) for place in random.permutation(places)]
    return order[1:] + order[:1] if order[0] == last else order


def _draw_dark(plan: PatrolPlan, frames: int) -> NDArray[np.bool_]:
    random = np.random.default_rng([plan.seed, 2])
    dark = np.zeros(frames, dtype=bool)
    for _ in range(random.poisson(plan.blackouts_per_hour * plan.hours)):
        start = int(random.integers(frames))
        dark[start : start + round(random.uniform(*_BLACKOUT_SEC) / FRAME_SEC)] = True
    return dark


def _draw_walkers(plan: PatrolPlan, frames: int) -> tuple[Walker, ...]:
    random = np.random.default_rng([plan.seed, 4])
    clothes = sorted(CLOTHES)
    walkers = []
    for start in sorted(random.integers(0, frames, random.poisson(plan.walkers_per_minute * plan.hours * 60.0))):
        stop = int(start) + round(random.uniform(*_WALK_SEC) / FRAME_SEC)
        height, feet = random.uniform(0.35, 0.75), random.uniform(0.7, 0.98)
        walkers.append(
            Walker(int(start), stop, clothes[random.integers(len(clothes))], height, feet, bool(random.integers(2)))
        )
    return tuple(walkers)


def _draw_gain(plan: PatrolPlan, frames: int) -> NDArray[np.float64]:
    random = np.random.default_rng([plan.seed, 5])
    seconds = np.arange(frames) * FRAME_SEC
    gain = 1.0 + plan.daylight * np.sin(2.0 * np.pi * (seconds / 5400.0 + random.random()))
    jumps = random.random(frames) < plan.exposure_jumps_per_minute * FRAME_SEC / 60.0
    levels = np.append(1.0, random.uniform(0.75, 1.2, int(jumps.sum())))
    gain = gain * levels[np.cumsum(jumps)] * (1.0 + plan.flicker * random.standard_normal(frames))
    return np.asarray(gain, np.float64)


def _draw_events(plan: PatrolPlan, patrol: Patrol) -> tuple[Event, ...]:
    random = np.random.default_rng([plan.seed, 6])
    names = sorted(COLOURS)
    events: list[Event] = []
    for _ in range(plan.events):
        start, stop = _free_time(plan, patrol, random, events)
        area = random.uniform(*plan.event_area)
        colours = tuple(names[index] for index in random.permutation(len(names)))
        shape = SHAPES[random.integers(len(SHAPES))]
        drift = random.uniform(-0.012, 0.012) if random.integers(2) else 0.0
        x, y = random.uniform(0.25, 0.75), random.uniform(0.3, 0.72)
        drift = float(np.clip(drift, -0.15 / (stop - start), 0.15 / (stop - start)))
        events.append(Event(start, stop, area, shape, colours, x, y, drift))
    return tuple(sorted(events, key=lambda event: event.start))


def _free_time(plan: PatrolPlan, patrol: Patrol, random: np.random.Generator, others: list[Event]) -> tuple[int, int]:
    """Return the frame range of one more event: within a visit, apart from other events, with a sharp frame."""
    for _ in range(_TRIES):
        length = max(2, round(random.uniform(*plan.event_sec) / FRAME_SEC))
        start = int(random.integers(0, max(1, patrol.frames - length - _END_MARGIN_FRAMES)))
        stop = start + length
        before, after = max(0, start - _EVENT_MARGIN_FRAMES), stop + _EVENT_MARGIN_FRAMES
        around = patrol.place[before:after]
        if around[0] == TRANSIT or (around != around[0]).any() or not patrol.sharp[start:stop].any():
            continue
        if all(stop + _EVENT_MARGIN_FRAMES <= other.start or other.stop <= before for other in others):
            return start, stop
    raise ValueError(
        f"cannot fit {plan.events} events of {plan.event_sec[0]:g} to {plan.event_sec[1]:g} s into {plan.hours:g} h "
        f"with visits of {plan.dwell_sec[0]:g} to {plan.dwell_sec[1]:g} s: use fewer or shorter events, or longer "
        "visits"
    )
