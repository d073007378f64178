"""Weights of attention heads for the ranking of pairs, fitted on synthetic scenes with known evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.evidence import TOKEN_GROUPS
from lab.bench.evidence import draw_cases, engine_of, observe, visit_rooms

_L2 = 1e-3  # of the weights for features of unit variance
_STEPS = 200
_DIGITS = 3
_SCENES_PER_PATROL = 3


def fit_heads(
    engine: DelayedBatchInferenceEngine, seeds: Sequence[int], on_scene: Callable[[], object] = lambda: None
) -> dict[str, Any]:
    """Return the field ``pair_evidence`` of a checkpoint's config.

    Of each question that the model answers right, the pairs that show what it is about should have the largest scores.

    Args:
        engine: Engine with the model.
        seeds: Seeds of the scenes.
        on_scene: Called after each scene.
    """
    examples: list[tuple[torch.Tensor, list[int]]] = []
    for seed in seeds:
        scene, times, cases = draw_cases(seed)
        holding = engine_of(engine, scene, times) if cases else engine
        for case in cases:
            answer, features = _observe(holding, case.asked.question.text)
            if answer == case.asked.question.answer:
                examples.append((features, sorted(case.shown)))
        on_scene()
    return _fit([*examples, *patrol_examples(engine, seeds[: len(seeds) // _SCENES_PER_PATROL])])


def patrol_examples(engine: DelayedBatchInferenceEngine, seeds: Sequence[int]) -> list[tuple[torch.Tensor, list[int]]]:
    """Return features and evidence of the questions on patrols that the model answers right.

    Args:
        engine: Engine with the model.
        seeds: Seeds of the patrols.
    """
    examples = []
    for seed in seeds:
        holding, questions = visit_rooms(engine, seed)
        for one in questions:
            answer, features = _observe(holding, one.text)
            if answer.endswith(one.answer_end):
                examples.append((features, sorted(one.shown)))
    return examples


def _observe(engine: DelayedBatchInferenceEngine, question: str) -> tuple[str, torch.Tensor]:
    answer, shares = observe(engine, question)
    return answer, torch.stack([shares[group] for group in TOKEN_GROUPS]).cpu()


def _fit(examples: Sequence[tuple[torch.Tensor, list[int]]]) -> dict[str, Any]:
    """Return the weights with the largest likelihood of the evidence.

    Args:
        examples: Features of each question, shape (groups, layers, heads, pairs), and the numbers of its evidence.
    """
    groups, layers, heads, _ = examples[0][0].shape
    most = max(features.shape[-1] for features, _ in examples)
    features = torch.zeros(len(examples), groups * layers * heads, most)
    is_pair, is_evidence = (torch.zeros(len(examples), most, dtype=torch.bool) for _ in range(2))
    for number, (one, shown) in enumerate(examples):
        features[number, :, : one.shape[-1]] = one.flatten(0, 2)
        is_pair[number, : one.shape[-1]] = True
        is_evidence[number, shown] = True
    spread = features.transpose(1, 2)[is_pair].std(0).clamp(min=1e-4)
    scaled = features / spread[:, None]
    weights = torch.zeros(features.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        scores = torch.einsum("f,nfp->np", weights, scaled).masked_fill(~is_pair, -torch.inf)
        missed = scores.logsumexp(-1) - scores.masked_fill(~is_evidence, -torch.inf).logsumexp(-1)
        total = missed.mean() + _L2 * weights.square().sum()
        total.backward()
        return float(total.detach())

    optimizer.step(loss)
    fitted = (weights.detach() / spread).view(groups, layers, heads)
    return {
        "layers": list(range(layers)),
        **{
            group: [[round(float(weight), _DIGITS) for weight in layer] for layer in of_group]
            for group, of_group in zip(TOKEN_GROUPS, fitted, strict=True)
        },
    }
