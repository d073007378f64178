"""Accuracy of models that are given the time of a pair in different ways, on the same frames and questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.questions import draw_question
from delayed_vlm_ros.scenes.schedule import SPACINGS, draw_scene_times
from delayed_vlm_ros.scenes.truth import pair_truth, story_of
from lab.bench.asked_scenes import bootstrap_weights, engine_with
from lab.bench.room_streams import BACKWARD, IMAGE_SIZE, KINDS_OF, LIVE, ORDER

DURATION = "duration"
_HOW_LONG_AGO = "how_long_ago"
GROUPS = {
    LIVE: KINDS_OF[LIVE],
    ORDER: KINDS_OF[ORDER],
    BACKWARD: tuple(kind for kind in KINDS_OF[BACKWARD] if kind != _HOW_LONG_AGO),
    DURATION: (_HOW_LONG_AGO,) * 2,  # has no answer in many scenes
}
"""Kinds of questions, by group."""

_PER_KIND = 2
LONGEST_ANSWER = 32
"""Length limit of an answer in tokens."""


@dataclass(frozen=True)
class SceneAnswers:
    """Answers of all models to the same questions about one scene.

    Attributes:
        groups: Group of each question.
        expected: Correct answer to each question.
        correct: Whether a model's answer equals the correct one exactly, ``(models, questions)`` bool.
    """

    groups: tuple[str, ...]
    expected: tuple[str, ...]
    correct: NDArray[np.bool_]


@dataclass(frozen=True)
class AskedScene:
    """Frames of a scene, with questions about them.

    Attributes:
        images: RGB images, two of each pair.
        stamps: Stamp of each image in seconds.
        questions: Group and correct answer by question.
    """

    images: tuple[NDArray[np.uint8], ...]
    stamps: tuple[float, ...]
    questions: Mapping[str, tuple[str, str]]


def draw_asked_scene(seed: int, spacing: str, pairs: int) -> AskedScene:
    """Return the frames and questions that belong to a seed.

    Args:
        seed: Seed of the scene.
        spacing: One of ``SPACINGS``.
        pairs: Number of pairs.
    """
    random = np.random.default_rng([seed, 41, SPACINGS.index(spacing)])
    scene = Scene.from_seed(seed)
    times = draw_scene_times(spacing, pairs, random)
    story = story_of([pair_truth(scene, *pair) for pair in times.tolist()])
    questions = {}
    for group, kinds in GROUPS.items():
        for one in (draw_question(kind, story, random) for kind in kinds for _ in range(_PER_KIND)):
            if one is not None:
                questions[one.text] = (group, one.answer)
    stamps = tuple(times.reshape(-1).tolist())
    return AskedScene(tuple(render(scene, stamp, *IMAGE_SIZE) for stamp in stamps), stamps, questions)


def ask_scene(engines: Sequence[DelayedBatchInferenceEngine], seed: int, spacing: str, pairs: int) -> SceneAnswers:
    """Ask every model the same questions about the same frames of a scene.

    Args:
        engines: An engine with each model.
        seed: Seed of the scene.
        spacing: One of ``SPACINGS``.
        pairs: Number of pairs.
    """
    asked = draw_asked_scene(seed, spacing, pairs)
    correct = []
    for engine in engines:
        holding = engine_with(engine, asked.images, asked.stamps)
        answers = [holding.answer(AskRequest(text, max_new_tokens=LONGEST_ANSWER)).answer for text in asked.questions]
        correct.append([said == true for said, (_, true) in zip(answers, asked.questions.values(), strict=True)])
    groups, expected = zip(*asked.questions.values(), strict=True)
    return SceneAnswers(groups, expected, np.array(correct))


def time_text_json(runs: Sequence[SceneAnswers], models: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Return the accuracy of each group of questions and model, with 95 % bootstrap intervals over scenes.

    Args:
        runs: Answers about each scene.
        models: Name of each model; the others are compared with the first.
        seed: Seed of the bootstrap.
    """
    weights = bootstrap_weights(len(runs), seed)
    asked = {group for run in runs for group in run.groups}  # few scenes may draw no question of a group
    return {group: _group_json(runs, models, group, weights) for group in GROUPS if group in asked}


def _group_json(
    runs: Sequence[SceneAnswers], models: Sequence[str], group: str, weights: NDArray[np.int64]
) -> dict[str, Any]:
    chosen = [np.array([one == group for one in run.groups]) for run in runs]
    questions = np.array([mine.sum() for mine in chosen])
    correct = np.array([run.correct[:, mine].sum(1) for run, mine in zip(runs, chosen, strict=True)])
    expected = Counter(
        answer for run in runs for answer, one in zip(run.expected, run.groups, strict=True) if one == group
    )
    return {
        "questions": int(questions.sum()),
        "most_frequent": round(max(expected.values()) / int(questions.sum()), 4),
        "models": {
            name: {
                "accuracy": _figure(correct[:, number], questions, weights),
                "over_first": _figure(correct[:, number] - correct[:, 0], questions, weights),
            }
            for number, name in enumerate(models)
        },
    }


def _figure(values: NDArray[np.int64], questions: NDArray[np.int64], weights: NDArray[np.int64]) -> Mapping[str, float]:
    asked = weights @ questions
    low, high = np.quantile((weights @ values)[asked > 0] / asked[asked > 0], [0.025, 0.975])
    mean = values.sum() / questions.sum()
    return {name: round(float(value), 4) for name, value in (("mean", mean), ("low", low), ("high", high))}
