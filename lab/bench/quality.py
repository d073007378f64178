"""How many questions about synthetic scenes an engine answers right, by kind, number of pairs and spacing in time."""

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
"""Height and width of the images that the engine gets, in pixels."""

_LONGEST_ANSWER = 64


@dataclass(frozen=True)
class Judged:
    """One question with the answer it got.

    Attributes:
        question: With its right answer.
        answer: The engine's.
        native: The library's own inference with our positions; None where it was not asked.
        native_stock: The same with the library's own positions.
    """

    question: SceneQuestion
    answer: str
    native: str | None = None
    native_stock: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether the answer is the right one, to the letter."""
        return self.answer == self.question.answer


@dataclass
class Cell:
    """What was judged at one number of pairs and one spacing.

    Attributes:
        pairs: Pairs in memory.
        spacing: ``even`` or ``uneven``.
        clips: Scenes looked at.
        judged: All questions.
    """

    pairs: int
    spacing: str
    clips: int = 0
    judged: list[Judged] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[Judged]:
        """The questions of one kind."""
        return [one for one in self.judged if one.question.kind == kind]


def judge(
    model: Any,
    processor: Any,
    seeds: Sequence[int],
    pairs: int,
    spacing: str,
    per_kind: int,
    stock: int = 0,
) -> Iterator[Cell]:
    """Ask about scene after scene until every kind has been asked often enough.

    Args:
        model: The library's model.
        processor: Its processor.
        seeds: Which scenes, at the most.
        pairs: Pairs in memory.
        spacing: One of ``SPACINGS``.
        per_kind: Questions of each kind.
        stock: How many questions the library's own inference answers as well.

    Yields:
        The same cell, after each scene.
    """
    cell = Cell(pairs, spacing)
    asked: Counter[str] = Counter()
    for seed in seeds:
        missing = [kind for kind in (*KINDS, *SENTENCE_KINDS) if asked[kind] < per_kind]
        if not missing:
            return
        random = np.random.default_rng([seed, pairs, spacing == "even"])
        scene = Scene.from_seed(seed)
        times = draw_scene_times(spacing, pairs, random)
        story = story_of([pair_truth(scene, *moments) for moments in times])
        drawn = (draw_question(kind, story, random) for kind in missing)
        questions = [question for question in drawn if question is not None]
        cell.clips += 1
        if not questions:
            continue
        engine = DelayedBatchInferenceEngine(model, processor, frame_manager=keep_everything())
        for moment in times.reshape(-1):
            engine.add_frame(render(scene, float(moment), *IMAGE_SIZE), float(moment))
        for question in questions:
            with_stock = sum(one.native is not None for one in cell.judged) < stock
            cell.judged.append(_judge_one(engine, question, with_stock=with_stock))
            asked[question.kind] += 1
        yield cell


def _judge_one(engine: DelayedBatchInferenceEngine, question: SceneQuestion, *, with_stock: bool) -> Judged:
    request = AskRequest(question.text, max_new_tokens=_LONGEST_ANSWER)
    answer = engine.answer(request).answer
    if not with_stock:
        return Judged(question, answer)
    native = native_answer(engine.model, engine.processor, engine.snapshot(), request)
    native_stock = native_answer(engine.model, engine.processor, engine.snapshot(), request, stock_positions=True)
    return Judged(question, answer, native.text, native_stock.text)


def accuracy(judged: Sequence[Judged]) -> float:
    """Share of right answers."""
    return sum(one.is_right for one in judged) / max(1, len(judged))


def majority(judged: Sequence[Judged]) -> float:
    """Share that one would get right by always giving the most frequent right answer."""
    counts = Counter(one.question.answer for one in judged)
    return max(counts.values(), default=0) / max(1, len(judged))


def facts(sentence: str) -> frozenset[str]:
    """The single statements of a listing: ``a red box on the left``, ``a person came by``."""
    parts = sentence.replace(" and ", ", ").split(", ")
    return frozenset(part.strip() for part in parts if part.strip())


def things(sentence: str) -> frozenset[str]:
    """The things that a description names, without their places."""

    def without_place(fact: str) -> str:
        for region in REGIONS.values():
            fact = fact.removesuffix(region)
        return fact.strip()

    return frozenset(map(without_place, facts(sentence)))


def sentence_scores(judged: Sequence[Judged], statements: Callable[[str], frozenset[str]] = facts) -> dict[str, float]:
    """Share of the true statements that were made, and share of the made ones that are not true.

    Args:
        judged: Questions of a sentence kind.
        statements: What a sentence says, such as ``facts`` or ``things``.
    """
    pairs = [(statements(one.question.answer), statements(one.answer)) for one in judged]
    true, made = sum(len(truth) for truth, _ in pairs), sum(len(said) for _, said in pairs)
    both = sum(len(truth & said) for truth, said in pairs)
    return {"named": both / max(1, true), "invented": 1.0 - both / max(1, made)}


def cell_json(cell: Cell) -> dict[str, Any]:
    """One cell as ``delayed-vlm bench quality --json`` prints it."""
    kinds = {kind: cell.of_kind(kind) for kind in KINDS}
    by_kind = {
        kind: {"asked": len(judged), "accuracy": accuracy(judged), "majority": majority(judged)}
        for kind, judged in kinds.items()
        if judged
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
    """All cells together: by kind, sentences by their content, and the library's own inference beside the engine's."""
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for cell in cells:
        for one in cell.judged:
            by_kind[one.question.kind].append(one)
    known = [kind for kind in KINDS if by_kind[kind]]
    compared = [one for cell in cells for one in cell.judged if one.native is not None]
    return {
        "macro": sum(accuracy(by_kind[kind]) for kind in known) / max(1, len(known)),
        "lowest": min((cell_json(cell)["lowest"] for cell in cells), default=0.0),
        "majority_macro": sum(majority(by_kind[kind]) for kind in known) / max(1, len(known)),
        "kinds": {kind: accuracy(by_kind[kind]) for kind in known},
        "sentences": {
            "objects_in_descriptions": sentence_scores(by_kind["describe"], things),
            "descriptions_with_places": sentence_scores(by_kind["describe"]),
            "events_in_what_happened": sentence_scores(by_kind["happened"]),
        },
        "stock": {
            "asked": len(compared),
            "same_with_our_positions": sum(one.native == one.answer for one in compared),
            "changed_with_the_librarys_positions": sum(one.native_stock != one.answer for one in compared),
        },
    }
