"""Which kept pairs an answer rests on: ranked pairs against the truth of synthetic scenes, and baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.evidence import (
    FITTED_WEIGHTS,
    AttentionRecorder,
    HeadWeights,
    attention_log_shares,
    grouped_shares,
    visual_token_indices,
)
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.memory import Snapshot
from delayed_vlm_ros.scenes import Episode, Scene, render
from delayed_vlm_ros.scenes.answers import with_article
from delayed_vlm_ros.scenes.questions import TruthfulQuestion, draw_truthful_question
from delayed_vlm_ros.scenes.scene import GROUNDS, HOMES
from delayed_vlm_ros.scenes.schedule import draw_scene_times
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from delayed_vlm_ros.scenes.truth import History, PairTruth, pair_truth, story_of
from lab.bench.asked_scenes import bootstrap_weights, engine_with
from lab.bench.room_streams import BACKWARD, KINDS_OF, ORDER

EVIDENCE, UNFITTED = "evidence", "equal weights, last token"
NEWEST, IMPORTANCE, RANDOM = "newest", "highest importance", "random"
MASKED, LEFT_OUT = "pair masked (offline)", "pair left out (offline)"

_IMAGE_SIZE = (240, 320)
_PAIRS = (10, 15, 20, 20)
_NEWEST_PAIRS = 5  # the question cannot be answered from these
_NAME_WORDS = frozenset({*COLOURS, *SHAPES, PERSON})
_LONGEST_ANSWER = 32
_REPEATS = 3
_TOP = 3
_ROOMS = 4  # of a patrol, each with one object
_PAIRS_PER_ROOM = 5
_PAIR_SEC, _FRAME_SEC = 1.0, 0.5
_ROOM_SEC = 12.0  # between the first images of two rooms


@dataclass(frozen=True)
class Case:
    """A question about a scene whose evidence is known.

    Attributes:
        seed: Seed of the scene.
        asked: The question.
        shown: Numbers of the pairs that show what the question is about; never empty.
        pairs: Number of pairs in the memory.
    """

    seed: int
    asked: TruthfulQuestion
    shown: frozenset[int]
    pairs: int


@dataclass(frozen=True)
class Ranked:
    """The rankings of one question.

    Attributes:
        case: The question.
        is_right: Whether the model's answer equals the correct one.
        strength: Relevance of the best pair.
        best: Numbers of the best pairs by method, best first.
        costs: Cost by method, as a share of the question without a ranking.
    """

    case: Case
    is_right: bool
    strength: float
    best: Mapping[str, Sequence[int]]
    costs: Mapping[str, float]


def shown_pairs(asked: TruthfulQuestion, history: History) -> frozenset[int]:
    """Return the numbers of the views that show what a question is about; empty if there is no such thing.

    For a question about the start, these are the views before the first change; for one that names objects, the views
    with one of them; for others, the views with the object of the correct answer.

    Args:
        asked: A question about the past or the order of events.
        history: What is clearly visible in each pair.
    """
    kind, answer = asked.question.kind, asked.question.answer
    if kind == "at_start":
        changed = (number for number, view in enumerate(history) if set(view.objects) != set(history[0].objects))
        return frozenset(range(next(changed, len(history))))
    if kind == "was_there":
        return frozenset(n for n, view in enumerate(history) if answer == "yes" and asked.answer_from([view]) == answer)
    wanted = [_NAME_WORDS & set(name.split()) for name in asked.names or (answer,)]
    return frozenset(
        number
        for number, view in enumerate(history)
        if any(words and words <= set(name.split()) for words in wanted for name in view.positions)
    )


def draw_cases(seed: int) -> tuple[Scene, NDArray[np.float64], list[Case]]:
    """Return a scene, the times of its pairs, ``(pairs, 2)``, and questions that its newest pairs cannot answer."""
    random = np.random.default_rng([seed, 24])
    scene = Scene.from_seed(seed)
    times = draw_scene_times("uneven", int(random.choice(_PAIRS)), random)
    truths: list[PairTruth] = [pair_truth(scene, *pair) for pair in times]
    story, newest = story_of(truths), story_of(truths[-_NEWEST_PAIRS:]).strict
    drawn = [draw_truthful_question(kind, story, random, newest) for kind in (*KINDS_OF[BACKWARD], *KINDS_OF[ORDER])]
    cases = [
        Case(seed, asked, shown, len(times))
        for asked in drawn
        if asked is not None and (shown := shown_pairs(asked, story.strict))
    ]
    return scene, times, cases


def engine_of(engine: DelayedBatchInferenceEngine, scene: Scene, times: NDArray[Any]) -> DelayedBatchInferenceEngine:
    """Return an engine with the same model that keeps these pairs of a scene, already encoded."""
    stamps = [float(time_sec) for time_sec in times.reshape(-1)]
    holding = engine_with(engine, [render(scene, stamp, *_IMAGE_SIZE) for stamp in stamps], stamps)
    holding.precompute(prefill=True)
    return holding


def observe(engine: DelayedBatchInferenceEngine, question: str) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the answer, and by group of tokens the logarithms of the pairs' shares of attention of every head."""
    layers = tuple(range(len(engine.model.model.language_model.layers)))
    snapshot = engine.snapshot()
    prompt, layout = build_prompt(engine.processor, question), lay_out(engine.model.config, engine.processor, snapshot)
    with AttentionRecorder(engine.model, HeadWeights(layers)) as recorder:
        answer = engine.answer(AskRequest(question, max_new_tokens=_LONGEST_ANSWER)).answer
    cache = engine.kept_prefix()
    assert cache is not None  # noqa: S101  for the type checker
    shares = attention_log_shares(recorder, prompt, layout, cache, AskControl())
    return answer, grouped_shares(shares, recorder.question_tokens)


def rank_scene(engine: DelayedBatchInferenceEngine, seed: int, *, with_references: bool) -> Iterator[Ranked]:
    """Ask the questions about a scene and rank its pairs by every method.

    Args:
        engine: Engine with the model.
        seed: Seed of the scene.
        with_references: Whether to compute what the answer loses without each pair, which takes seconds.
    """
    scene, times, cases = draw_cases(seed)
    if not cases:
        return
    holding = engine_of(engine, scene, times)
    for case in cases:
        yield _rank(holding, case, with_references=with_references)


def _rank(engine: DelayedBatchInferenceEngine, case: Case, *, with_references: bool) -> Ranked:
    text, snapshot = case.asked.question.text, engine.snapshot()
    plain = AskRequest(text, max_new_tokens=_LONGEST_ANSWER)
    ranking = AskRequest(text, max_new_tokens=_LONGEST_ANSWER, ranks_evidence=True)
    places = {kept.id: number for number, kept in enumerate(snapshot)}
    seconds, result = _fastest({UNFITTED: lambda: engine.answer(plain), EVIDENCE: lambda: engine.answer(ranking)})
    best = {
        EVIDENCE: [places[one.kept.id] for one in result.evidence],
        UNFITTED: _unfitted(engine, ranking, places),
        NEWEST: list(range(len(snapshot)))[::-1],
        IMPORTANCE: sorted(range(len(snapshot)), key=lambda number: -snapshot[number].importance),
    }
    costs = {EVIDENCE: seconds[EVIDENCE] / seconds[UNFITTED] - 1.0}
    if with_references:
        for method, lost in ((MASKED, lost_when_masked), (LEFT_OUT, lost_when_left_out)):
            started = time.perf_counter()
            best[method] = np.argsort(-np.array(lost(engine, snapshot, text, result.answer))).tolist()
            costs[method] = (time.perf_counter() - started) / seconds[UNFITTED]
    strength = result.evidence[0].relevance if result.evidence else 0.0
    return Ranked(case, result.answer == case.asked.question.answer, strength, best, costs)


def _unfitted(engine: DelayedBatchInferenceEngine, ranking: AskRequest, places: Mapping[int, int]) -> list[int]:
    fitted = getattr(engine.model.config, FITTED_WEIGHTS, None)
    setattr(engine.model.config, FITTED_WEIGHTS, None)
    try:
        return [places[one.kept.id] for one in engine.answer(ranking).evidence]
    finally:
        setattr(engine.model.config, FITTED_WEIGHTS, fitted)


def _fastest(asks: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, float], Any]:
    """Return the shortest time of each question in seconds, asked in turns, and the result of the last one."""
    seconds = dict.fromkeys(asks, float("inf"))
    result = None
    for _ in range(_REPEATS):
        for name, ask in asks.items():
            started = time.perf_counter()
            result = ask()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, result


@torch.inference_mode()
def lost_when_masked(
    engine: DelayedBatchInferenceEngine, snapshot: Snapshot, question: str, answer: str
) -> list[float]:
    """Return how much log-probability the answer loses when question and answer do not see a pair, by pair.

    All pairs are masked in one pass: as many copies of question and answer follow each other, each with its own mask.
    """
    prompt, layout = build_prompt(engine.processor, question), lay_out(engine.model.config, engine.processor, snapshot)
    engine.answer(AskRequest(question, max_new_tokens=1))  # its prefix is the one of all pairs
    visual = visual_token_indices(prompt, layout)
    hidden = [None, *visual]
    log_p = _answer_log_p(engine, question, answer, hidden)
    return [float(log_p[0] - one) for one in log_p[1:]]


def lost_when_left_out(
    engine: DelayedBatchInferenceEngine, snapshot: Snapshot, question: str, answer: str
) -> list[float]:
    """Return how much log-probability the answer loses when a pair is not in the memory, by pair."""
    log_p = []
    for left_out in (None, *range(len(snapshot))):
        kept = [one for number, one in enumerate(snapshot) if number != left_out]
        images, stamps = [image for one in kept for image in one.frames], [at for one in kept for at in one.stamps]
        without = engine_with(engine, images, stamps)
        without.answer(AskRequest(question, max_new_tokens=1))
        log_p.append(float(_answer_log_p(without, question, answer, [None])[0]))
    return [log_p[0] - one for one in log_p[1:]]


@torch.inference_mode()
def _answer_log_p(
    engine: DelayedBatchInferenceEngine, question: str, answer: str, hidden: Sequence[torch.Tensor | None]
) -> torch.Tensor:
    """Return the log-probability of an answer for each set of hidden tokens; None hides nothing."""
    model, snapshot = engine.model, engine.snapshot()
    prompt, layout = build_prompt(engine.processor, question), lay_out(model.config, engine.processor, snapshot)
    cache = engine.kept_prefix()
    assert cache is not None  # noqa: S101  for the type checker
    answer_ids = engine.processor.tokenizer(answer, add_special_tokens=False).input_ids
    ids = [*prompt.after, *answer_ids]
    positions = layout.positions(prompt)[..., -len(prompt.after) :]
    later = positions[..., -1:] + torch.arange(1, len(answer_ids) + 1)
    positions = torch.cat([positions, later], -1)
    before, length, copies = int(cache.get_seq_length()), len(ids), len(hidden)
    visible = torch.zeros(copies * length, before + copies * length, dtype=torch.bool)
    for number, tokens in enumerate(hidden):
        rows = slice(number * length, (number + 1) * length)
        visible[rows, :before] = True
        if tokens is not None:
            visible[rows, tokens] = False
        visible[rows, before + rows.start : before + rows.stop] = torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill(~visible, torch.finfo(model.dtype).min)
    output = model.model(
        input_ids=torch.tensor([ids * copies], device=model.device),
        attention_mask=mask[None, None].to(model.device),
        position_ids=positions.repeat(1, 1, copies).to(model.device),
        past_key_values=cache,
        use_cache=True,
    )
    states = output.last_hidden_state[0].view(copies, length, -1)[:, len(prompt.after) - 1 : -1]
    log_p = model.lm_head(states).float().log_softmax(-1)
    chosen = torch.tensor(answer_ids, device=model.device).expand(copies, -1)[..., None]
    of_answer: torch.Tensor = log_p.gather(-1, chosen)[..., 0].sum(-1)
    return of_answer.cpu()


def evidence_json(ranked: Sequence[Ranked]) -> dict[str, Any]:
    """Return the figures of a run: questions that the model answers right, hits by method, and the strength's AUC."""
    right = [one for one in ranked if one.is_right]
    methods = [
        EVIDENCE,
        UNFITTED,
        NEWEST,
        IMPORTANCE,
        *(m for m in (MASKED, LEFT_OUT) if any(m in o.best for o in right)),
    ]
    figures = {method: _hits([one for one in right if method in one.best], method) for method in methods}
    chance = [_chance(one.case) for one in right]
    figures[RANDOM] = {
        "questions": len(right),
        "hit_at_1": round(float(np.mean([one for one, _ in chance])), 4),
        "hit_at_3": round(float(np.mean([three for _, three in chance])), 4),
    }
    kinds = sorted({one.case.asked.question.kind for one in right})
    return {
        "questions": len(ranked),
        "answered_right": len(right),
        "methods": figures,
        "kinds": {
            kind: {
                name: {key: values[key] for key in ("questions", "hit_at_1", "hit_at_3")}
                for name in (EVIDENCE, MASKED)
                if (values := _hits([o for o in right if o.case.asked.question.kind == kind and name in o.best], name))
            }
            for kind in kinds
        },
        "strength_auc": _auc([o.strength for o in right], [o.strength for o in ranked if not o.is_right]),
    }


def _hits(ranked: Sequence[Ranked], method: str) -> dict[str, Any]:
    """Return the shares of questions whose best pair, or one of the best three, shows what they are about."""
    if not ranked:
        return {}
    top = np.array([[number in one.case.shown for number in one.best[method][:_TOP]] for one in ranked])
    seeds = {seed: place for place, seed in enumerate(dict.fromkeys(one.case.seed for one in ranked))}
    scene = np.array([seeds[one.case.seed] for one in ranked])
    weights = bootstrap_weights(len(seeds), 24)
    figures: dict[str, Any] = {"questions": len(ranked)}
    for name, hits in (("hit_at_1", top[:, 0]), ("hit_at_3", top.any(1))):
        found = np.bincount(scene, hits, len(seeds))
        shares = weights @ found / np.maximum(1, weights @ np.bincount(scene, minlength=len(seeds)))
        figures[name] = round(float(hits.mean()), 4)
        figures[f"{name}_interval"] = [round(float(one), 4) for one in np.quantile(shares, [0.025, 0.975])]
    costs = [one.costs[method] for one in ranked if method in one.costs]
    if costs:
        figures["cost"] = round(median(costs), 3)
    return figures


def _chance(case: Case) -> tuple[float, float]:
    """Return the probabilities that one random pair, and one of three, shows what the question is about."""
    others = case.pairs - len(case.shown)
    return len(case.shown) / case.pairs, 1.0 - comb(others, _TOP) / comb(case.pairs, _TOP)


def _auc(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Return the probability that a right answer has a larger value than a wrong one; None without both."""
    if not right or not wrong:
        return None
    one, other = np.array(right)[:, None], np.array(wrong)[None]
    return round(float((one > other).mean() + (one == other).mean() / 2), 4)


@dataclass(frozen=True)
class PatrolQuestion:
    """A question on a patrol about an object that was in one room only.

    Attributes:
        text: Text of the question.
        answer_end: End of every correct answer.
        shown: Numbers of the pairs of the room with the object; the camera's pose is the same in all of them.
    """

    text: str
    answer_end: str
    shown: frozenset[int]


def visit_rooms(
    engine: DelayedBatchInferenceEngine, seed: int
) -> tuple[DelayedBatchInferenceEngine, list[PatrolQuestion]]:
    """Visit rooms with one object each, and return an engine that keeps them, with questions about the earlier rooms.

    Args:
        engine: Engine with the model.
        seed: Seed of the patrol.
    """
    random = np.random.default_rng([seed, 25])
    colours = [str(one) for one in random.permutation(list(COLOURS))[:_ROOMS]]
    images, stamps, questions = [], [], []
    for room, colour in enumerate(colours):
        shape = str(SHAPES[random.integers(len(SHAPES))])
        lane, home = int(random.integers(len(GROUNDS))), float(random.choice(HOMES))
        scene = Scene.from_script(seed * _ROOMS + room, (Episode(lane, 0.0, 1e4, colour, shape, home=home),))
        for at in _ROOM_SEC * room + _PAIR_SEC * np.arange(_PAIRS_PER_ROOM):
            for stamp in (float(at), float(at) + _FRAME_SEC):
                images.append(render(scene, stamp, *_IMAGE_SIZE))
                stamps.append(stamp)
        name = with_article(f"{colour} {shape}")
        shown = frozenset(range(room * _PAIRS_PER_ROOM, (room + 1) * _PAIRS_PER_ROOM))
        questions += [
            PatrolQuestion(f"was there {name} earlier?", "yes", shown),
            PatrolQuestion(f"how long ago did you last see {name}?", "ago", shown),
        ]
    holding = engine_with(engine, images, stamps)
    holding.precompute(prefill=True)
    return holding, questions[:-2]


def patrol_json(engine: DelayedBatchInferenceEngine, seeds: Sequence[int]) -> dict[str, Any]:
    """Return how often the pose of the best evidence is that of the event, of the questions answered right.

    Args:
        engine: Engine with the model.
        seeds: Seeds of the patrols.
    """
    asked, hits = 0, []
    for seed in seeds:
        holding, questions = visit_rooms(engine, seed)
        places = {kept.id: number for number, kept in enumerate(holding.snapshot())}
        for one in questions:
            asked += 1
            result = holding.answer(AskRequest(one.text, max_new_tokens=_LONGEST_ANSWER, ranks_evidence=True))
            if result.answer.endswith(one.answer_end):
                hits.append(bool(result.evidence) and places[result.evidence[0].kept.id] in one.shown)
    share = round(float(np.mean(hits)), 4) if hits else None
    return {"questions": asked, "answered_right": len(hits), "pose_of_event": share, "chance": 1.0 / _ROOMS}
