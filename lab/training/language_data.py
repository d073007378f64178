"""Batches for the second stage of training: clips with questions behind them, as token ids and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from delayed_vlm_ros.inference.local.positions import prompt_positions, temporal_ids
from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import position_limit
from delayed_vlm_ros.scenes import answers
from delayed_vlm_ros.scenes.answers import is_move
from delayed_vlm_ros.scenes.questions import KINDS, SENTENCE_KINDS, draw_question
from delayed_vlm_ros.scenes.scene import VisibleObject
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from delayed_vlm_ros.scenes.truth import History, PairTruth, story_of
from lab.training.clips import PAIRS, Clip
from lab.training.scene_model import COLUMNS, ROWS

_QUESTIONS = 20
_EARLY_SHARE = 0.6  # of the questions are put before the clip's end, as if its later pairs had not come yet
_HARD_KINDS = ("colour", "where", "how_many", "was_there", "appeared_first", "appeared_last", "which_moved", "did_move")
_HARDEST_KINDS = ("left", "left", "how_long_ago", "before", "happened")  # two moments
_KINDS = (*KINDS, *SENTENCE_KINDS, *_HARD_KINDS, *(3 * _HARDEST_KINDS))
_IGNORED = -100
CHANGES = ("nothing", "first sight", "seen before", "moved", "gone")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
EVENTS: tuple[Callable[[History], str | None], ...] = (answers.appeared_first, answers.appeared_last, answers.left_last)
_ASKED_OF_EVENTS = 6  # pairs of a clip
_EVENT_ANSWERS = {answers.NOTHING: len(NAMES), **{answers.with_article(name): n for n, name in enumerate(NAMES)}}


@dataclass(frozen=True)
class Batch:
    """Clips with the same number of pairs, each with several questions that cannot see one another.

    Attributes:
        clips: ``(clips,)`` which clips.
        pairs: ``(clips, pairs)`` which of their pairs.
        before: ``(prefix,)`` token ids before the video.
        text: ``(clips, text)`` token ids behind the video, questions and answers one after the other, padded.
        targets: ``(clips, text)`` the id that follows each, -100 where it is no part of an answer.
        segments: ``(clips, text)`` number of the question from 1, 0 for padding.
        reach: ``(clips, text)`` how many of the shared tokens each may look at: its question may be put early.
        positions: ``(3, clips, prefix + video + text)``.
        changes: ``(clips, video)`` what is new at each merged token, an index into ``CHANGES``, -100 where unclear.
        gone: ``(clips, video)`` which thing is gone there, an index into ``NAMES``, -100 where none is.
        events: ``(clips, pairs, EVENTS)`` which thing each of ``EVENTS`` is about by then, an index into ``NAMES``, one
            more for none; -100 where it is not told.
    """

    clips: torch.Tensor
    pairs: torch.Tensor
    before: torch.Tensor
    text: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    reach: torch.Tensor
    positions: torch.Tensor
    changes: torch.Tensor
    gone: torch.Tensor
    events: torch.Tensor

    @property
    def shared(self) -> int:
        """Tokens that all questions share: the text before the video, and the video."""
        return len(self.before) + self.pairs.shape[1] * ROWS * COLUMNS

    def weights(self) -> torch.Tensor:
        """How much each answer's token counts, in the order of ``targets``: less the longer its answer is."""
        learnt = self.targets != _IGNORED
        numbers = (self.segments + (_QUESTIONS + 1) * torch.arange(len(learnt))[:, None])[learnt]
        return torch.bincount(numbers)[numbers].float().rsqrt()

    def visible(self) -> torch.Tensor:
        """What the text behind the video may look at, ``(clips, text, shared + text)`` bool: its past, and itself."""
        length = self.segments.shape[1]
        same = self.segments[:, :, None] == self.segments[:, None, :]
        own = same & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.cat([torch.arange(self.shared) < self.reach[:, :, None], own], dim=2)


@dataclass(frozen=True)
class _Text:
    """A clip's questions and answers, token by token, as in ``Batch``."""

    ids: list[int]
    targets: list[int]
    segments: list[int]
    reach: list[int]
    positions: list[int]


class ClipQuestions(IterableDataset):  # type: ignore[type-arg]
    """Batches without end; the number of pairs grows over the first part of the training.

    Args:
        clips: What is asked about.
        processor: The model's processor.
        config: The model's config.
        steps: How many steps the training has.
        first_step: Where it begins.
        seed: Where chance comes from.
        clips_per_batch: How many clips a batch has.
        grown: Whether the number of pairs is as large as it gets from the beginning.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        processor: Any,
        config: Any,
        steps: int,
        first_step: int,
        seed: int,
        *,
        clips_per_batch: int = 32,
        grown: bool = False,
    ) -> None:
        self._clips = clips
        self._clips_per_batch = clips_per_batch
        self._tokenizer = processor.tokenizer
        self._prompt = build_prompt(processor, "?")
        self._opening = build_prompt(processor, "").after
        self._config = config
        self._steps = steps
        self._first_step = first_step
        self._seed = seed
        self._grown = grown

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        worker_id, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in range(self._first_step + worker_id, self._steps, workers):
            random = np.random.default_rng([self._seed, step])
            yield self._batch(1.0 if self._grown else step / self._steps, random)

    def _batch(self, progress: float, random: np.random.Generator) -> Batch:
        most = 6 if progress < 0.15 else 12 if progress < 0.35 else 24  # noqa: PLR2004
        count = int(random.integers(most // 4, most + 1))
        numbers = random.integers(len(self._clips), size=self._clips_per_batch)
        clips = [self._clips[number] for number in numbers]
        chosen = [_choose_pairs(clip, count, random) for clip in clips]
        videos = [self._video_positions(clip, pairs) for clip, pairs in zip(clips, chosen, strict=True)]
        texts = [
            self._questions([clip.truths[pair] for pair in pairs], video, random)
            for clip, pairs, video in zip(clips, chosen, videos, strict=True)
        ]
        changes = [changes_of(clip, pairs) for clip, pairs in zip(clips, chosen, strict=True)]
        length = max(len(text.ids) for text in texts)

        def padded(rows: Iterable[list[int]], filling: int) -> torch.Tensor:
            return torch.tensor([row + [filling] * (length - len(row)) for row in rows])

        places = padded((text.positions for text in texts), 0).expand(3, -1, -1)
        return Batch(
            clips=torch.from_numpy(numbers),
            pairs=torch.from_numpy(np.array(chosen)),
            before=torch.tensor(self._prompt.before),
            text=padded((text.ids for text in texts), self._tokenizer.pad_token_id),
            targets=padded((text.targets for text in texts), _IGNORED),
            segments=padded((text.segments for text in texts), 0),
            reach=padded((text.reach for text in texts), 1),
            positions=torch.cat([torch.stack(videos, dim=1), places], dim=2),
            changes=torch.tensor([changed for changed, _ in changes]),
            gone=torch.tensor([gone for _, gone in changes]),
            events=torch.tensor(
                [
                    _events_of([clip.truths[pair] for pair in pairs], random)
                    for clip, pairs in zip(clips, chosen, strict=True)
                ]
            ),
        )

    def _video_positions(self, clip: Clip, pairs: Sequence[int]) -> torch.Tensor:
        """Of the text before the video and of the video, ``(3, prefix + video)``."""
        stamps = [clip.truths[pair].strict.stamp for pair in pairs]
        ids = temporal_ids(self._config, stamps, position_limit(self._config)).ids
        return prompt_positions(len(self._prompt.before), ids, ROWS, COLUMNS, 0)[:, 0]

    def _questions(self, truths: Sequence[PairTruth], video: torch.Tensor, random: np.random.Generator) -> _Text:
        """A clip's questions and answers, some of them put early.

        What is put after some pairs sees them as it would if there were no later ones: the video's tokens look at
        earlier ones only, and their positions do not hang on later ones (training's spans are never compressed).
        """
        text = _Text([], [], [], [], [])
        story = cache(lambda count: story_of(truths[:count]))
        asked = 0
        while asked < _QUESTIONS:
            early = random.random() < _EARLY_SHARE
            count = int(random.integers(1, len(truths) + 1)) if early else len(truths)
            kind = _KINDS[random.integers(len(_KINDS))]
            question = draw_question(kind, story(count), random)
            if question is None:
                continue
            asked += 1
            reach = len(self._prompt.before) + count * ROWS * COLUMNS
            first = int(video[:, len(self._prompt.before) : reach].max()) + 1
            before = self._question_ids(_restyled(question.text, random))
            answer = answer_ids(self._tokenizer, question.answer)
            length = len(before) + len(answer)
            text.ids.extend([*before, *answer])
            text.targets.extend([*[_IGNORED] * (len(before) - 1), *answer, _IGNORED])
            text.segments.extend([asked] * length)
            text.reach.extend([reach] * length)
            text.positions.extend(range(first, first + length))
        return text

    def _question_ids(self, question: str) -> list[int]:
        """What ``build_prompt`` puts behind the video for this question."""
        ids = self._tokenizer(question, add_special_tokens=False).input_ids
        return [self._opening[0], *ids, *self._opening[1:]]


def changes_of(clip: Clip, pairs: Sequence[int]) -> tuple[list[int], list[int]]:
    """What is new at each merged token of some pairs of a clip, in time order.

    Returns:
        Indices into ``CHANGES``, and into ``NAMES`` where something is gone; -100 where that is unclear.
    """
    nothing, first_sight, seen_before, moved, gone = range(len(CHANGES))
    changes: list[int] = []
    names: list[int] = []
    seen: dict[str, list[float]] = {}  # the least and the greatest place of each thing
    last: dict[str, int] = {}  # the token of each thing that may still be there, where it was plain to see
    for pair in pairs:
        truth = clip.truths[pair]
        row, which = [nothing] * (ROWS * COLUMNS), [_IGNORED] * (ROWS * COLUMNS)
        for name in [name for name in last if name not in truth.lenient.positions]:
            token = last.pop(name)
            row[token] = gone
            which[token] = NAMES.index(name) if name != PERSON else _IGNORED
        for thing in clip.objects[pair]:
            if (token := _token_of(clip, thing)) is None:
                continue
            which[token] = _IGNORED
            if thing.name not in truth.strict.positions:
                row[token] = _IGNORED
                continue
            last[thing.name] = token
            x = truth.strict.positions[thing.name]
            if thing.name not in seen:
                row[token] = first_sight
            elif thing.name == PERSON:
                row[token] = seen_before
            else:
                least, greatest = seen[thing.name]
                away = is_move(max(greatest, x) - min(least, x))
                row[token] = _IGNORED if away is None else moved if away else seen_before
        for name, x in truth.lenient.positions.items():
            least, greatest = seen.get(name, (x, x))
            seen[name] = [min(least, x), max(greatest, x)]
        changes += row
        names += which
    return changes, names


def _events_of(truths: Sequence[PairTruth], random: np.random.Generator) -> list[list[int]]:
    """What ``EVENTS`` are about by the time of some of a clip's pairs, as in ``Batch``; only what is fair to ask."""
    told = [[_IGNORED] * len(EVENTS) for _ in truths]
    for number in random.integers(len(truths), size=_ASKED_OF_EVENTS):
        story = story_of(truths[: number + 1])
        for event, asked in enumerate(EVENTS):
            answer = asked(story.strict)
            if answer is not None and answer == asked(story.lenient):
                told[number][event] = _EVENT_ANSWERS[answer]
    return told


def _token_of(clip: Clip, thing: VisibleObject) -> int | None:
    """The merged token that holds a thing's middle; None outside the image."""
    x, y = clip.on_grid(thing.x, thing.y)
    inside = 0.0 <= x < 1.0 and 0.0 <= y < 1.0
    return int(y * ROWS) * COLUMNS + int(x * COLUMNS) if inside else None


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """The ids of an answer with the end behind it; the answer's spelling is that of the vocabulary."""
    words = answer.replace(",", " ,").split()
    ids = tokenizer.convert_tokens_to_ids(words)
    if tokenizer.unk_token_id in ids or None in ids or tokenizer.convert_tokens_to_ids("[UNK]") in ids:
        raise ValueError(f"'{answer}' has a word that is not in the vocabulary")
    return [*ids, tokenizer.eos_token_id]


def _restyled(text: str, random: np.random.Generator) -> str:
    """With or without its question mark, as people type."""
    return text.rstrip("?") if random.random() < 0.2 else text  # noqa: PLR2004


def _choose_pairs(clip: Clip, count: int, random: np.random.Generator) -> list[int]:
    """Some pairs of a clip in time order: a window of an even one; of an uneven one any, mostly with its end."""
    if clip.spacing == "even":
        first = int(random.integers(PAIRS - count + 1))
        return list(range(first, first + count))
    last = int(random.integers(count, PAIRS + 1))
    return [int(pair) for pair in np.sort(random.choice(last, count, replace=False))]
