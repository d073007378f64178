"""Camera streams of synthetic rooms, with questions at their end about the present, the past and the order of events.

The past that the questions ask about is not visible in the newest images. In a lively room objects come and go all the
time, as in the rooms that the embedded model was trained on. In a quiet room little happens, except that now and then
an object is present for two or three seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR
from delayed_vlm_ros.scenes import Episode, Scene, render
from delayed_vlm_ros.scenes.questions import TruthfulQuestion, draw_truthful_question
from delayed_vlm_ros.scenes.scene import GROUNDS, HOMES
from delayed_vlm_ros.scenes.sprites import COLOURS, SHAPES
from delayed_vlm_ros.scenes.truth import PairTruth, pair_truth, story_of

LIVE, BACKWARD, ORDER = "live", "backward", "order"
KINDS_OF = {
    LIVE: ("colour", "is_there", "how_many", "side", "where"),
    BACKWARD: ("was_there", "at_start", "left", "which_moved", "did_move", "how_long_ago"),
    ORDER: ("appeared_first", "appeared_last", "before"),
}
"""Kinds of questions with short answers, by group."""
LIVELY, QUIET = "lively", "quiet"
ROOMS = (LIVELY, QUIET)
IMAGE_SIZE = (120, 160)
"""Height and width of the images in pixels."""

_FRAME_SEC = 0.5  # the memory's default sampling period
_LATEST_START_SEC = 300.0
_VISIT_SEC = (1.5, 3.0)  # with 1.5 s, both frames of some pair show the visit
_VISIT_EVERY_SEC = 20.0
_MOST_VISITS = 12
_CHANGE = (0.3, 0.6)  # when the second lasting object comes or goes, as a share of the stream


@dataclass(frozen=True)
class RoomStream:
    """Some minutes of a room, sampled twice per second, and the questions at the end.

    Attributes:
        scene: The room.
        stamps: Stamps of the frames in seconds; frames 2n and 2n + 1 are pair n.
        truths: Ground truth of the pairs.
        questions: Questions by group.
    """

    scene: Scene
    stamps: tuple[float, ...]
    truths: tuple[PairTruth, ...]
    questions: dict[str, tuple[TruthfulQuestion, ...]]

    @cached_property
    def images(self) -> list[NDArray[np.uint8]]:
        """RGB images of the frames, each ``(*IMAGE_SIZE, 3)`` uint8."""
        return [render(self.scene, stamp, *IMAGE_SIZE) for stamp in self.stamps]

    def is_answerable_from(self, pairs: Sequence[int], asked: TruthfulQuestion) -> bool:
        """Return whether an observer who saw only these pairs, and misread none, answers correctly."""
        seen = story_of([self.truths[pair] for pair in pairs])
        return asked.answer_from(seen.strict) == asked.question.answer


def quiet_scene(seed: int, start_sec: float, stop_sec: float, until_sec: float) -> Scene:
    """Return a room where one object stays, one comes or goes, and others are present for two or three seconds each.

    Args:
        seed: Seed of the room and its events.
        start_sec: Start of the stream in seconds.
        stop_sec: End of the stream in seconds.
        until_sec: Time by which the last brief visit has ended, in seconds.
    """
    random = np.random.default_rng([seed, 21])
    lanes = [int(lane) for lane in random.permutation(len(GROUNDS))]
    homes = random.permutation(HOMES)
    colours = [str(colour) for colour in random.permutation(list(COLOURS))]
    change = start_sec + random.uniform(*_CHANGE) * (stop_sec - start_sec)
    stays = (start_sec, change) if random.integers(2) else (change, stop_sec + 1.0)
    spans = [(lanes[0], 0.0, stop_sec + 1.0, colours.pop()), (lanes[1], *stays, colours.pop())]
    shapes = [str(SHAPES[random.integers(len(SHAPES))]) for _ in spans]
    slots = np.linspace(start_sec, until_sec, 1 + _visits(until_sec - start_sec))
    names = [(colour, shape) for colour in colours for shape in SHAPES]
    for number, (begin, end) in enumerate(pairwise(slots.tolist())):
        length = random.uniform(*_VISIT_SEC)
        came = random.uniform(begin + 1.0, end - length)
        colour, shape = names.pop(random.integers(len(names)))
        spans.append((lanes[2 + number % 2], came, came + length, colour))
        shapes.append(shape)
    return Scene.from_script(
        seed,
        tuple(
            Episode(lane, came, went, colour, shape, home=float(homes[lane]))
            for (lane, came, went, colour), shape in zip(spans, shapes, strict=True)
        ),
    )


def _visits(seconds: float) -> int:
    return min(_MOST_VISITS, max(1, int(seconds // _VISIT_EVERY_SEC)))


def draw_stream(seed: int, room: str, minutes: float, newest_pairs: int, per_kind: int) -> RoomStream:
    """Return the stream that belongs to a seed.

    Args:
        seed: Seed of the room.
        room: One of ``ROOMS``.
        minutes: Length of the stream; raised to twice ``newest_pairs`` where it is shorter.
        newest_pairs: Number of newest pairs that do not show the answers to questions about the past.
        per_kind: Questions of each kind, as far as different ones are found.
    """
    random = np.random.default_rng([seed, 20])
    frames = FRAMES_PER_PAIR * max(2 * newest_pairs, round(minutes * 60.0 / (FRAMES_PER_PAIR * _FRAME_SEC)))
    stamps = random.uniform(0.0, _LATEST_START_SEC) + _FRAME_SEC * np.arange(frames)
    if room == LIVELY:
        scene = Scene.from_seed(seed)
    else:
        scene = quiet_scene(seed, float(stamps[0]), float(stamps[-1]), float(stamps[-FRAMES_PER_PAIR * newest_pairs]))
    truths = tuple(pair_truth(scene, *pair) for pair in stamps.reshape(-1, FRAMES_PER_PAIR).tolist())
    story, newest = story_of(truths), story_of(truths[-newest_pairs:]).strict
    questions = {}
    for group, kinds in KINDS_OF.items():
        glimpse = None if group == LIVE else newest
        drawn = [draw_truthful_question(kind, story, random, glimpse) for kind in kinds for _ in range(per_kind)]
        different = {one.question.text: one for one in drawn if one is not None}
        questions[group] = tuple(different.values())
    return RoomStream(scene, tuple(stamps.tolist()), truths, questions)
