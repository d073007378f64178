"""Accuracy of answers about synthetic scenes, by kind of question, number of pairs and spacing of the stamps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.replay.compare import keep_everything
from delayed_vlm_ros.replay.native import native_answer
from delayed_vlm_ros.scenes import Scene, render
from delayed_vlm_ros.scenes.answers import REGIONS
from delayed_vlm_ros.scenes.questions import KINDS, SENTENCE_KINDS, SceneQuestion, draw_question
from delayed_vlm_ros.scenes.schedule import draw_scene_times
from delayed_vlm_ros.scenes.truth import pair_truth, story_of

IMAGE_SIZE = (240, 320)
"""Height and width of the images that the engine receives, in pixels."""

_LONGEST_ANSWER = 64


@dataclass(frozen=True)
class GradedAnswer:
    """A question and the answers to it.

    Attributes:
        question: The question with its correct answer.
        answer: The engine's answer.
        native: Answer of unmodified Hugging Face inference with this project's position ids; None if it was not asked.
        native_default: The same with Hugging Face's default position ids.
    """

    question: SceneQuestion
    answer: str
    native: str | None = None
    native_default: str | None = None

    @property
    def is_correct(self) -> bool:
        """Whether the answer equals the correct one exactly."""
        return self.answer == self.question.answer


@dataclass
class Cell:
    """Answers at one number of pairs and one spacing.

    Attributes:
        pairs: Pairs in memory.
        spacing: ``even`` or ``uneven``.
        clips: Scenes shown so far.
        answers: Answers so far.
    """

    pairs: int
    spacing: str
    clips: int = 0
    answers: list[GradedAnswer] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[GradedAnswer]:
        """Return the answers to questions of one kind."""
        return [one for one in self.answers if one.question.kind == kind]


def evaluate(
    model: Any,
    processor: Any,
    seeds: Sequence[int],
    pairs: int,
    spacing: str,
    per_kind: int,
    native: int = 0,
) -> Iterator[Cell]:
    """Ask about one scene after the other, until every kind has enough questions.

    Args:
        model: Hugging Face model.
        processor: The model's processor.
        seeds: Seeds of the scenes, used in this order.
        pairs: Pairs in memory.
        spacing: One of ``SPACINGS``.
        per_kind: Questions of each kind.
        native: Number of questions that unmodified Hugging Face inference answers as well.

    Yields:
        The cell, always the same object, after each scene.
    """
    cell = Cell(pairs, spacing)
    counts: Counter[str] = Counter()
    for seed in seeds:
        missing = [kind for kind in (*KINDS, *SENTENCE_KINDS) if counts[kind] < per_kind]
        if not missing:
            return
        random = np.random.default_rng([seed, pairs, spacing == "even"])
        scene = Scene.from_seed(seed)
        times = draw_scene_times(spacing, pairs, random)
        story = story_of([pair_truth(scene, *pair) for pair in times])
        drawn = (draw_question(kind, story, random) for kind in missing)
        questions = [question for question in drawn if question is not None]
        cell.clips += 1
        if not questions:
            continue
        engine = DelayedBatchInferenceEngine(model, processor, frame_manager=keep_everything())
        for time_sec in times.reshape(-1):
            engine.add_frame(render(scene, float(time_sec), *IMAGE_SIZE), float(time_sec))
        for question in questions:
            with_native = sum(one.native is not None for one in cell.answers) < native
            cell.answers.append(_answer(engine, question, with_native=with_native))
            counts[question.kind] += 1
        yield cell


def _answer(engine: DelayedBatchInferenceEngine, question: SceneQuestion, *, with_native: bool) -> GradedAnswer:
    request = AskRequest(question.text, max_new_tokens=_LONGEST_ANSWER)
    answer = engine.answer(request).answer
    if not with_native:
        return GradedAnswer(question, answer)
    native = native_answer(engine.model, engine.processor, engine.snapshot(), request)
    default = native_answer(engine.model, engine.processor, engine.snapshot(), request, stock_positions=True)
    return GradedAnswer(question, answer, native.text, default.text)


def accuracy(answers: Sequence[GradedAnswer]) -> float:
    """Return the share of correct answers; 0 for no answers."""
    return sum(one.is_correct for one in answers) / max(1, len(answers))


def majority(answers: Sequence[GradedAnswer]) -> float:
    """Return the accuracy of always giving the most frequent correct answer; 0 for no answers."""
    counts = Counter(one.question.answer for one in answers)
    return max(counts.values(), default=0) / max(1, len(answers))


def statements(sentence: str) -> frozenset[str]:
    """Return the statements of a listing, such as ``a red box on the left`` and ``a person came by``."""
    parts = sentence.replace(" and ", ", ").split(", ")
    return frozenset(part.strip() for part in parts if part.strip())


def objects(sentence: str) -> frozenset[str]:
    """Return the objects that a description names, without their regions."""

    def without_region(statement: str) -> str:
        for region in REGIONS.values():
            statement = statement.removesuffix(region)
        return statement.strip()

    return frozenset(map(without_region, statements(sentence)))


def sentence_scores(
    answers: Sequence[GradedAnswer], split: Callable[[str], frozenset[str]] = statements
) -> dict[str, float]:
    """Return the share of true statements that were ``named``, and the share of statements that were ``invented``.

    Args:
        answers: Answers to questions of a sentence kind.
        split: Function that returns the statements of a sentence, such as ``statements`` or ``objects``.
    """
    pairs = [(split(one.question.answer), split(one.answer)) for one in answers]
    true, made = sum(len(truth) for truth, _ in pairs), sum(len(said) for _, said in pairs)
    both = sum(len(truth & said) for truth, said in pairs)
    return {"named": both / max(1, true), "invented": 1.0 - both / max(1, made)}


def cell_json(cell: Cell) -> dict[str, Any]:
    """Return the figures of one cell, as ``bench quality --json`` prints them."""
    kinds = {kind: cell.of_kind(kind) for kind in KINDS}
    by_kind = {
        kind: {"questions": len(answers), "accuracy": accuracy(answers), "majority": majority(answers)}
        for kind, answers in kinds.items()
        if answers
    }
    values = [float(one["accuracy"]) for one in by_kind.values()]
    return {
        "pairs": cell.pairs,
        "spacing": cell.spacing,
        "clips": cell.clips,
        "macro": sum(values) / len(values),
        "lowest": min(values),
        "majority_macro": sum(float(one["majority"]) for one in by_kind.values()) / len(values),
        "kinds": by_kind,
    }


def summary_json(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the figures of all cells together: kinds, sentences by their statements, and native inference."""
    by_kind: dict[str, list[GradedAnswer]] = defaultdict(list)
    for cell in cells:
        for one in cell.answers:
            by_kind[one.question.kind].append(one)
    known = [kind for kind in KINDS if by_kind[kind]]
    compared = [one for cell in cells for one in cell.answers if one.native is not None]
    return {
        "macro": sum(accuracy(by_kind[kind]) for kind in known) / max(1, len(known)),
        "lowest": min((cell_json(cell)["lowest"] for cell in cells), default=0.0),
        "majority_macro": sum(majority(by_kind[kind]) for kind in known) / max(1, len(known)),
        "kinds": {kind: accuracy(by_kind[kind]) for kind in known},
        "sentences": {
            "objects_in_descriptions": sentence_scores(by_kind["describe"], objects),
            "descriptions_with_regions": sentence_scores(by_kind["describe"]),
            "events_in_what_happened": sentence_scores(by_kind["happened"]),
        },
        "native": {
            "questions": len(compared),
            "equal_with_our_positions": sum(one.native == one.answer for one in compared),
            "changed_with_default_positions": sum(one.native_default != one.answer for one in compared),
        },
    }
