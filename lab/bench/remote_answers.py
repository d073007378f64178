"""Answers of a model server, compared with those of the same checkpoint on this machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.remote.connection import ServerConnection
from delayed_vlm_ros.inference.remote.engine import RemoteEngine
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from lab.bench.asked_scenes import engine_with
from lab.bench.time_text import LONGEST_ANSWER, draw_asked_scene

_MOST_EXAMPLES = 5


@dataclass(frozen=True)
class ComparedAnswer:
    """Answers to one question.

    Attributes:
        question: The question.
        expected: The correct answer.
        local: Answer of the model on this machine.
        remote: Answer of the server.
        warnings: Limitations that the server's answer states.
    """

    question: str
    expected: str
    local: str
    remote: str
    warnings: tuple[str, ...]


def compare_scene(
    engine: DelayedBatchInferenceEngine,
    connection: ServerConnection,
    settings: RemoteSettings,
    seed: int,
    spacing: str,
    pairs: int,
) -> list[ComparedAnswer]:
    """Ask both engines all questions about the same kept frames of a scene.

    Args:
        engine: Engine with the model on this machine.
        connection: Connection to the server.
        settings: Settings of the remote engine.
        seed: Seed of the scene.
        spacing: One of ``SPACINGS``.
        pairs: Number of pairs.
    """
    asked = draw_asked_scene(seed, spacing, pairs)
    local = engine_with(engine, asked.images, asked.stamps)
    remote = RemoteEngine(local.frame_manager, connection, settings)
    compared = []
    for text, (_, expected) in asked.questions.items():
        request = AskRequest(text, max_new_tokens=LONGEST_ANSWER)
        here, there = local.answer(request), remote.answer(request)
        compared.append(ComparedAnswer(text, expected, here.answer, there.answer, there.metrics.warnings))
    return compared


def compared_json(answers: Sequence[ComparedAnswer]) -> Mapping[str, Any]:
    """Return the share of equal answers, the accuracy of both engines, and examples of different answers."""
    different = [one for one in answers if one.local != one.remote]
    return {
        "questions": len(answers),
        "equal": round(1.0 - len(different) / len(answers), 4),
        "correct_local": _share(one.local == one.expected for one in answers),
        "correct_remote": _share(one.remote == one.expected for one in answers),
        "different": [
            {"question": one.question, "expected": one.expected, "local": one.local, "remote": one.remote}
            for one in different[:_MOST_EXAMPLES]
        ],
        "warnings": dict(Counter(warning for one in answers for warning in one.warnings)),
    }


def _share(flags: Iterable[bool]) -> float:
    counted = list(flags)
    return round(sum(counted) / len(counted), 4)
