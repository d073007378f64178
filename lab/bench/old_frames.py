"""Accuracy of answers when key frames are hours and days old, so that the time between pairs is compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.questions import SceneQuestion, draw_question
from delayed_vlm_ros.scenes.truth import pair_truth, story_of
from lab.bench.asked_scenes import bootstrap_weights, engine_with
from lab.bench.room_streams import BACKWARD, IMAGE_SIZE, KINDS_OF, LIVE, ORDER

_HOUR_SEC = 3600.0
RECENT = "recent"
AGES_SEC = {RECENT: 0.0, "6 hours": 6 * _HOUR_SEC, "3 days": 72 * _HOUR_SEC, "30 days": 720 * _HOUR_SEC}
"""Time that is added between the key frames and the newest pairs, in seconds, by name."""
SPREAD, TOGETHER = "spread", "together"
SHAPES = (SPREAD, TOGETHER)
"""Key frames at equal distances over the whole time, or all of them at its start."""

_KEY_PAIRS = 10
_NEWEST_PAIRS = 10
_NEWEST_GAP_SEC = 1.0
_FRAME_GAP_SEC = 0.5
_LONGEST_GAP_SEC = 12.0  # between key frames before time is added
_LATEST_START_SEC = 300.0
_PER_KIND = 2
_LONGEST_ANSWER = 32
_KINDS_OF = {
    LIVE: KINDS_OF[LIVE],
    ORDER: KINDS_OF[ORDER],
    BACKWARD: tuple(kind for kind in KINDS_OF[BACKWARD] if kind != "how_long_ago"),  # durations are not kept
}


@dataclass(frozen=True)
class Layout:
    """Where key frames lie in time.

    Attributes:
        age: A key of ``AGES_SEC``.
        shape: One of ``SHAPES``.
    """

    age: str
    shape: str

    def stamps(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the stamps of frames taken at ``times``, both of shape ``(pairs, 2)``, in seconds."""
        earlier = np.zeros(len(times))
        earlier[:_KEY_PAIRS] = 1.0 if self.shape == TOGETHER else np.linspace(1.0, 0.0, _KEY_PAIRS, endpoint=False)
        return times - AGES_SEC[self.age] * earlier[:, None]


LAYOUTS = (Layout(RECENT, SPREAD), *(Layout(age, shape) for age in AGES_SEC if age != RECENT for shape in SHAPES))

Correct = Mapping[Layout, Mapping[str, tuple[bool, ...]]]
"""Whether each question of a scene was answered correctly, by layout and group."""


def ask_scene(engine: DelayedBatchInferenceEngine, seed: int) -> Correct:
    """Ask the same questions about the same frames of a scene, with the stamps of every layout.

    Args:
        engine: Engine with the model that answers.
        seed: Seed of the scene.
    """
    random = np.random.default_rng([seed, 31])
    scene = Scene.from_seed(seed)
    times = _draw_times(random)
    images = [render(scene, time_sec, *IMAGE_SIZE) for time_sec in times.reshape(-1).tolist()]
    story = story_of([pair_truth(scene, *pair) for pair in times.tolist()])
    questions: dict[str, list[SceneQuestion]] = {}
    for group, kinds in _KINDS_OF.items():
        drawn = [draw_question(kind, story, random) for kind in kinds for _ in range(_PER_KIND)]
        questions[group] = list({one.text: one for one in drawn if one is not None}.values())
    return {layout: _grade(engine, images, layout.stamps(times), questions) for layout in LAYOUTS}


def _draw_times(random: np.random.Generator) -> NDArray[np.float64]:
    gaps = np.exp(random.uniform(0.0, np.log(_LONGEST_GAP_SEC), _KEY_PAIRS))
    first = np.cumsum([random.uniform(0.0, _LATEST_START_SEC), *gaps, *[_NEWEST_GAP_SEC] * (_NEWEST_PAIRS - 1)])
    return np.stack([first, first + _FRAME_GAP_SEC], axis=1)


def _grade(
    engine: DelayedBatchInferenceEngine,
    images: Sequence[NDArray[np.uint8]],
    stamps: NDArray[np.float64],
    questions: Mapping[str, Sequence[SceneQuestion]],
) -> dict[str, tuple[bool, ...]]:
    holding = engine_with(engine, images, stamps.reshape(-1).tolist())
    return {
        group: tuple(
            holding.answer(AskRequest(one.text, max_new_tokens=_LONGEST_ANSWER)).answer == one.answer for one in some
        )
        for group, some in questions.items()
    }


def old_frames_json(runs: Sequence[Correct], seed: int = 0) -> list[dict[str, Any]]:
    """Return the accuracy of each layout and group, and its difference from recent key frames.

    Args:
        runs: Answers about each scene.
        seed: Seed of the bootstrap.
    """
    weights = bootstrap_weights(len(runs), seed)
    return [
        {
            "age": layout.age,
            "key_frames": layout.shape,
            "groups": {group: _figures(runs, layout, group, weights) for group in _KINDS_OF},
        }
        for layout in LAYOUTS
    ]


def _figures(runs: Sequence[Correct], layout: Layout, group: str, weights: NDArray[np.int64]) -> dict[str, float]:
    """Return figures with the 95 % bootstrap interval over scenes."""
    questions = np.array([len(run[layout][group]) for run in runs])
    correct = np.array([sum(run[layout][group]) for run in runs])
    recent = np.array([sum(run[LAYOUTS[0]][group]) for run in runs])
    differences = weights @ (correct - recent) / (weights @ questions)
    low, high = np.quantile(differences, [0.025, 0.975])
    return {
        "questions": int(questions.sum()),
        "accuracy": round(float(correct.sum() / questions.sum()), 4),
        "over_recent": round(float((correct - recent).sum() / questions.sum()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }
