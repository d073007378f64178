"""Images of a patrol, at the size of a memory's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.benchmark.patrol import FRAME_SEC, TRANSIT, Event, Patrol, Visit, Walker
from delayed_vlm_ros.scenes.room import room
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON_WIDTH, STRIDES, person, sprite

HEIGHT, WIDTH = 144, 192
"""Height and width of the images, in pixels."""

_MARGIN_Y, _MARGIN_X = 12, 60  # pixels around the view, for a moving camera
_NOISE_SIGMA = 3.0  # sensor noise, in grey levels of 255
_NOISE_MARGIN = 64
_MIN_CONTRAST = 40.0  # of an event against its background, in grey levels: mean over its pixels, largest channel
_MIN_CHANGE = 25.0  # of a covered pixel, in grey levels
_SPRITE_SIZE = 96
_TRANSIT_BLUR, _SHAKE_BLUR = 31, 13  # pixels
_BLACK = 0.03
_ROLL_DEG = 0.25  # standard deviation of the roll of a shaking camera
_FURNITURE = (7, 12)
_CYLINDER_SHARE = 0.25  # of the furniture
_SHADOW_DEPTH = 0.35
_SHADOW_PERIOD_SEC = 40.0

_Image = NDArray[np.uint8]
_Plane = NDArray[np.float32]
_Actor = TypeVar("_Actor", Walker, Event)


@dataclass(frozen=True)
class PatrolImages:
    """Renders the frames of a patrol, in any order.

    Attributes:
        patrol: The patrol to render.
    """

    patrol: Patrol

    def frame(self, number: int) -> _Image:
        """Return one frame; it is a pure function of patrol and number.

        Returns:
            New array ``(HEIGHT, WIDTH, 3)`` uint8, RGB.
        """
        patrol = self.patrol
        image = self._view(number)
        for walker in self._walkers_at[number]:
            _draw_walker(image, walker, number)
        for event in self._events_at[number]:
            _draw_event(image, event, self._cut_outs[event], number)
        if patrol.place[number] == TRANSIT:
            image = np.asarray(cv2.blur(image, (_TRANSIT_BLUR, 1)), np.uint8)
        elif patrol.blurred[number]:
            image = np.asarray(cv2.blur(image, (_SHAKE_BLUR, 5)), np.uint8)
        if patrol.plan.moving_shadows:
            image = _shaded(image, number)
        lit = cv2.convertScaleAbs(image, alpha=_BLACK if patrol.dark[number] else float(patrol.gain[number]))
        return np.asarray(cv2.add(lit, self._noise(number), dtype=cv2.CV_8U), np.uint8)

    def without_events(self, number: int) -> _Image:
        """Return the same frame without events."""
        bare = PatrolImages(self.patrol)
        bare.__dict__["_events_at"] = [()] * self.patrol.frames
        return bare.frame(number)

    def _view(self, number: int) -> _Image:
        """Return the camera's view of the place, or of two places in transit, as a copy."""
        visit = self.patrol.visits[int(np.searchsorted(self._starts, number, side="right")) - 1]
        if number < visit.stop:
            return self._place_view(visit.place, number)
        following = self._following(visit)
        share = (number - visit.stop + 1) / (following.start - visit.stop + 1)
        both = np.hstack([self._place_view(visit.place, number), self._place_view(following.place, number)])
        left = round(share * WIDTH)
        view: _Image = both[:, left : left + WIDTH].copy()
        return view

    def _following(self, visit: Visit) -> Visit:
        visits = self.patrol.visits
        index = visits.index(visit) + 1
        return visits[index] if index < len(visits) else Visit(visit.place, self.patrol.frames, self.patrol.frames)

    def _place_view(self, place: int, number: int) -> _Image:
        right, down, roll = self._offsets[number]
        wide = _place(self.patrol.plan.seed, place)
        transform = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), float(roll), 1.0)
        transform[:, 2] += (_MARGIN_X + right, _MARGIN_Y + down)
        return np.asarray(
            cv2.warpAffine(wide, transform, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.uint8
        )

    def _noise(self, number: int) -> NDArray[np.int16]:
        top, left = self._noise_offsets[number]
        return _noise_tile()[top : top + HEIGHT, left : left + WIDTH]

    @cached_property
    def _starts(self) -> list[int]:
        return [visit.start for visit in self.patrol.visits]

    @cached_property
    def _offsets(self) -> NDArray[np.float64]:
        """Shift right and down (pixels) and roll (degrees) of the view in each frame, ``(frames, 3)``."""
        plan, frames = self.patrol.plan, self.patrol.frames
        shake = np.clip(np.random.default_rng([plan.seed, 10]).standard_normal((frames, 3)), -2.5, 2.5)
        offsets = shake * (plan.shake * WIDTH, plan.shake * WIDTH, _ROLL_DEG if plan.shake else 0.0)
        swing = 2.0 * np.pi * np.arange(frames) * FRAME_SEC / plan.pan_period_sec
        offsets[:, 0] += np.clip(plan.pan * WIDTH * np.sin(swing), -0.25 * WIDTH, 0.25 * WIDTH)
        return offsets

    @cached_property
    def _noise_offsets(self) -> NDArray[np.int64]:
        random = np.random.default_rng([self.patrol.plan.seed, 11])
        return random.integers(0, _NOISE_MARGIN, (self.patrol.frames, 2))

    @cached_property
    def _walkers_at(self) -> list[tuple[Walker, ...]]:
        return _present(self.patrol.walkers, self.patrol.frames)

    @cached_property
    def _events_at(self) -> list[tuple[Event, ...]]:
        return _present(self.patrol.events, self.patrol.frames)

    @cached_property
    def _cut_outs(self) -> dict[Event, _Plane]:
        """Sprite of each event, in the first of its colours with enough contrast to the background."""
        return {event: self._cut_out(event) for event in self.patrol.events}

    def _cut_out(self, event: Event) -> _Plane:
        background = self._place_view(int(self.patrol.place[event.start]), event.start)
        contrasts = {}
        for colour in event.colours:
            cut_out = _scaled_event(event.shape, colour, event.area)
            painted = background.copy()
            _draw_event(painted, event, cut_out, event.start)
            different = np.abs(painted.astype(np.int16) - background).max(axis=-1)
            covered = event.area * HEIGHT * WIDTH
            contrasts[colour] = float(different.sum()) / covered
            if contrasts[colour] >= _MIN_CONTRAST and (different > _MIN_CHANGE).sum() > 0.7 * covered:
                return cut_out
        return _scaled_event(event.shape, max(contrasts, key=contrasts.__getitem__), event.area)


def _present(actors: Sequence[_Actor], frames: int) -> list[tuple[_Actor, ...]]:
    """Return the walkers or events in each frame."""
    present: list[list[_Actor]] = [[] for _ in range(frames)]
    for actor in actors:
        for number in range(actor.start, min(actor.stop, frames)):
            present[number].append(actor)
    return [tuple(some) for some in present]


def _scaled_event(shape: str, colour: str, area: float) -> _Plane:
    """Return an event's sprite, scaled to cover this share of the image."""
    whole = sprite(shape, colour, _SPRITE_SIZE)
    side = round(float(np.sqrt(area * HEIGHT * WIDTH / whole[..., 3].mean())))
    return np.asarray(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _draw_event(image: _Image, event: Event, cut_out: _Plane, number: int) -> None:
    x = event.x + event.drift * (number - event.start)
    _paste(image, cut_out, round(x * WIDTH) - cut_out.shape[1] // 2, round(event.y * HEIGHT) - cut_out.shape[0] // 2)


def _draw_walker(image: _Image, walker: Walker, number: int) -> None:
    share = (number - walker.start) / (walker.stop - walker.start)
    x = share if walker.moves_right else 1.0 - share
    rows = round(walker.height * HEIGHT)
    cut_out = person(walker.clothes, rows, number % STRIDES)
    wide = WIDTH + PERSON_WIDTH * rows
    _paste(image, cut_out, round(x * wide - PERSON_WIDTH * rows), round(walker.feet * HEIGHT) - rows)


def _paste(image: _Image, cut_out: _Plane, left: int, top: int) -> None:
    """Draw a sprite over the image, clipped to the image."""
    first_x, first_y = max(0, -left), max(0, -top)
    region = image[max(0, top) : max(0, top + cut_out.shape[0]), max(0, left) : max(0, left + cut_out.shape[1])]
    patch = cut_out[first_y : first_y + region.shape[0], first_x : first_x + region.shape[1]]
    region[...] = region * (1.0 - patch[..., 3:]) + patch[..., :3] + 0.5


def _shaded(image: _Image, number: int) -> _Image:
    """Return the image with a wide soft shadow that moves back and forth."""
    middle = 0.5 + 0.6 * np.sin(2.0 * np.pi * number * FRAME_SEC / _SHADOW_PERIOD_SEC)
    columns = (np.arange(WIDTH) + 0.5) / WIDTH
    light = 1.0 - _SHADOW_DEPTH * np.exp(-(((columns - middle) / 0.12) ** 2))
    return np.asarray(image * light[None, :, None], np.uint8)


@lru_cache(maxsize=64)
def _place(seed: int, place: int) -> _Image:
    """Return a furnished room with margins for a moving camera. Shared and read-only."""
    own_seed = 10_000 * (seed + 1) + place
    random = np.random.default_rng([own_seed, 1])
    painted = room(own_seed, HEIGHT, WIDTH, _MARGIN_Y, _MARGIN_X).copy()
    for _ in range(int(random.integers(*_FURNITURE))):
        _furnish(painted, random)
    tint = random.uniform(0.82, 1.12, 3)
    tinted: _Image = np.clip(painted * tint, 0.0, 255.0).astype(np.uint8)
    tinted.setflags(write=False)
    return tinted


def _furnish(painted: _Image, random: np.random.Generator) -> None:
    """Draw one piece of furniture: a patterned box or a cylinder."""
    rows, columns = painted.shape[:2]
    high, wide = int(random.uniform(0.12, 0.4) * HEIGHT), int(random.uniform(0.08, 0.3) * WIDTH)
    left, top = int(random.integers(-wide // 2, columns - wide // 2)), int(random.integers(rows // 8, rows - high // 2))
    if random.random() < _CYLINDER_SHARE:
        colour = sorted(COLOURS)[random.integers(len(COLOURS))]
        _paste(painted, np.asarray(cv2.resize(sprite("cylinder", colour, 64), (high, high)), np.float32), left, top)
        return
    base = random.uniform(40.0, 200.0, 3)
    grain = cv2.resize(random.normal(0.0, 22.0, (5, 4, 3)), (wide, high), interpolation=cv2.INTER_NEAREST)
    stripes = 12.0 * np.sign(np.sin(np.arange(wide) * random.uniform(0.3, 1.0)))[None, :, None]
    box = np.clip(base + grain + stripes, 0.0, 255.0).astype(np.float32)
    _paste(painted, np.dstack([box, np.ones((high, wide), np.float32)]), left, top)


@lru_cache(maxsize=1)
def _noise_tile() -> NDArray[np.int16]:
    random = np.random.default_rng(0)
    shape = (HEIGHT + _NOISE_MARGIN, WIDTH + _NOISE_MARGIN, 3)
    return np.rint(random.normal(0.0, _NOISE_SIGMA, shape)).astype(np.int16)
