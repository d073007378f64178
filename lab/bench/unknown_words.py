"""Yes/no questions with words that the embedded model does not know: neither yes nor no must be likely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.yes_no import YesNo
from delayed_vlm_ros.memory import MemoryConfig
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.watches import Watch
from lab.bench.watched_rooms import FRAME_SEC, IMAGE_SIZE

QUESTIONS = (
    "Is the door open?",
    "Is the door closed?",
    "Is the kettle boiling?",
    "Is the light on?",
    "Is the window broken?",
    "Is the charger free?",
    "Is the corridor blocked?",
    "Is the floor wet?",
    "Is the lid closed?",
    "Is the tank empty?",
    "Is the shelf full?",
    "Is the conveyor running?",
    "Is the gripper holding the part?",
    "Is the drawer open?",
    "Is the tap running?",
    "Is the stove on?",
    "Is the bed made?",
    "Is the dog asleep?",
    "Is there a dog?",
    "Is there a cat on the sofa?",
    "Is there a forklift?",
    "Is there smoke?",
    "Is there a fire?",
    "Is there a puddle on the floor?",
    "Is there a cable on the floor?",
    "Is there a pallet in the aisle?",
    "Is there a child near the stairs?",
    "Do you see a screwdriver?",
    "Do you see a red car?",
    "Can you see a blue chair in the room?",
    "Is a helmet visible?",
    "Is the green bottle still there?",
    "Is somebody lying on the floor?",
    "Is anyone wearing gloves?",
    "Does the person carry a bag?",
    "Is the person sitting?",
    "Is the red box open?",
    "Is the blue ball heavy?",
    "Has the parcel arrived?",
    "Did the elevator move?",
)
"""Forty questions as users would ask them, each with at least one word outside the vocabulary."""

_PAIRS = 6


@dataclass(frozen=True)
class UnknownWordOutcome:
    """The outcome of one question about one scene.

    Attributes:
        question: The question.
        score: The outcome.
    """

    question: str
    score: YesNo


def score_unknown_words(engine: DelayedBatchInferenceEngine, seeds: Sequence[int]) -> Iterator[UnknownWordOutcome]:
    """Yield the outcomes of all questions about each scene.

    Args:
        engine: Engine with the model.
        seeds: Seeds of the scenes.
    """
    for seed in seeds:
        start = float(np.random.default_rng([seed, 24]).uniform(0.0, 300.0))
        scene = Scene.from_seed(seed)
        memory = DelayedBatchInferenceEngine(engine.model, engine.processor, frame_manager=MemoryConfig().build())
        for number in range(2 * _PAIRS):
            stamp = start + FRAME_SEC * number
            memory.add_frame(render(scene, stamp, *IMAGE_SIZE), stamp)
        scores = memory.score(QUESTIONS, window_sec=Watch.last_sec).scores
        yield from (UnknownWordOutcome(*one) for one in zip(QUESTIONS, scores, strict=True))


def unknown_words_json(outcomes: Sequence[UnknownWordOutcome]) -> dict[str, Any]:
    """Return the share of unclear outcomes, and the questions with clear ones."""
    clear = [one for one in outcomes if one.score.is_clear]
    by_question = {question: [one for one in clear if one.question == question] for question in QUESTIONS if clear}
    return {
        "questions": len(QUESTIONS),
        "outcomes": len(outcomes),
        "unknown_share": round(1.0 - len(clear) / len(outcomes), 4),
        "clear_questions": {
            question: {
                "share": round(len(some) * len(QUESTIONS) / len(outcomes), 3),
                "yes": sum(one.score.p_yes >= Watch.threshold for one in some),
                "mass": round(float(np.mean([one.score.mass for one in some])), 3),
            }
            for question, some in by_question.items()
            if some
        },
    }
