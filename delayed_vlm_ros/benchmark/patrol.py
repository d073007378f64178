"""A camera's patrol through rooms for hours, with rare events, and the truth about every sampled frame of it.

A patrol is drawn from its plan alone, so the same plan always gives the same one. Nothing is painted here: the images
are made by ``memory_images``. Frames are numbered as a memory samples them, twice a second; frames 2n and 2n + 1 are
pair n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.scenes.sprites import CLOTHES, COLOURS, SHAPES

FRAME_SEC = 0.5
"""Seconds from frame to frame: the memory's usual rate."""
TRANSIT = -1
"""The place of frames on the way from one place to the next."""
DESIGN_SEEDS = range(100)
"""Patrols to look at while a strategy is designed."""
REPORT_SEEDS = range(1000, 1100)
"""Patrols to report figures of; nothing is ever fitted to them."""

_TRANSIT_FRAMES = (4, 8)
_WALK_SEC = (5.0, 14.0)
_BLACKOUT_SEC = (3.0, 15.0)
_EVENT_MARGIN_FRAMES = 2  # from a visit's begin and end
_END_MARGIN_FRAMES = 60  # events are over by then: what is still in Stream is no question of remembering
_BLURRED_SHARE = 0.04  # of the frames, by sudden shake
_TRIES = 1000


@dataclass(frozen=True)
class PatrolPlan:
    """What a patrol is drawn from; areas are shares of the image, ranges are from and to.

    Attributes:
        seed: Of everything that is drawn.
        hours: How long it is.
        places: Rooms that are visited in turn, in a new order each time round.
        events: Things that appear and are gone again.
        event_sec: For how long (s).
        event_area: How much of the image each covers.
        dwell_sec: How long the camera stays at a place (s).
        walkers_per_minute: People crossing the image.
        shake: Standard deviation of the camera's trembling, in image widths.
        pan: How far the camera swings to each side, in image widths; at most 0.25.
        pan_period_sec: How long a swing there and back takes (s).
        exposure_jumps_per_minute: Sudden changes of gain, by up to a quarter.
        blackouts_per_hour: Times of darkness, of 3 to 15 s.
        flicker: Standard deviation of the light from frame to frame, as a share.
        daylight: Slow change of light over hours, as a share to each side.
        moving_shadows: Whether wide shadows wander through the image.
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
    """A stay at a place.

    Attributes:
        place: Its number, from 0.
        start: First frame.
        stop: The frame after the last; the way to the next place begins with it.
    """

    place: int
    start: int
    stop: int


@dataclass(frozen=True)
class Event:
    """A thing that appears and is gone again.

    Attributes:
        start: First frame that shows it.
        stop: The frame after the last.
        area: The share of the image that it covers.
        shape: One of ``SHAPES``.
        colours: Its colour, and others to take instead where that one would not stand out.
        x: Its middle, in image widths.
        y: Its middle, in image heights.
        drift: How far it moves to the right in a frame, in image widths.
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
        """For how long it is there."""
        return (self.stop - self.start) * FRAME_SEC


@dataclass(frozen=True)
class Walker:
    """A person who crosses the image.

    Attributes:
        start: First frame.
        stop: The frame after the last.
        clothes: One of ``CLOTHES``.
        height: In image heights.
        feet: Where they touch the floor, in image heights.
        to_the_right: Which way.
    """

    start: int
    stop: int
    clothes: str
    height: float
    feet: float
    to_the_right: bool


@dataclass(frozen=True)
class Patrol:
    """A patrol from begin to end.

    Attributes:
        plan: What it was drawn from.
        visits: In time order.
        events: In time order.
        walkers: In time order.
        dark: For each frame, whether it is black; shape (frames,), bool.
        blurred: For each frame, whether shake blurs it; shape (frames,), bool.
        gain: For each frame, the factor of exposure and light; shape (frames,), float64.
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
        """How many frames it has."""
        return len(self.gain)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """For each frame the place it shows, or ``TRANSIT``."""
        places = np.full(self.frames, TRANSIT)
        for visit in self.visits:
            places[visit.start : visit.stop] = visit.place
        return places

    @cached_property
    def sharp(self) -> NDArray[np.bool_]:
        """For each frame whether it shows a place plainly: neither on the way, nor blurred, nor black."""
        return (self.place != TRANSIT) & ~self.blurred & ~self.dark

    def events_in(self, pair: int) -> frozenset[int]:
        """Numbers of the events that at least one sharp frame of a pair shows."""
        frames = [frame for frame in (2 * pair, 2 * pair + 1) if frame < self.frames and self.sharp[frame]]
        return frozenset(
            number for number, event in enumerate(self.events) if any(event.start <= f < event.stop for f in frames)
        )

    def places_in(self, pair: int) -> frozenset[int]:
        """The places that at least one sharp frame of a pair shows."""
        frames = [frame for frame in (2 * pair, 2 * pair + 1) if frame < self.frames and self.sharp[frame]]
        return frozenset(int(self.place[frame]) for frame in frames)


def draw_patrol(plan: PatrolPlan) -> Patrol:
    """Draw a patrol.

    Raises:
        ValueError: The plan's events find no room in it.
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
    """All places in a new order, which does not begin with the last one."""
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
    return gain * levels[np.cumsum(jumps)] * (1.0 + plan.flicker * random.standard_normal(frames))


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
    """Frames for one more event: within a visit, apart from other events, and one of them sharp."""
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
        f"{plan.events} events of {plan.event_sec[0]:g} to {plan.event_sec[1]:g} s find no room in {plan.hours:g} "
        f"hours with stays of {plan.dwell_sec[0]:g} to {plan.dwell_sec[1]:g} s: give fewer or "
        "shorter events, or longer stays"
    )
