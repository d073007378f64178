"""Batches for the second stage of training: clips with questions behind them, as token ids and positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from delayed_vlm_ros.models.clips import PAIRS, Clip
from delayed_vlm_ros.models.scene_model import COLUMNS, ROWS
from delayed_vlm_ros.simulation.questions import KINDS, SENTENCE_KINDS, draw_question
from delayed_vlm_ros.simulation.scene import VisibleObject
from delayed_vlm_ros.simulation.truth import story_of
from delayed_vlm_ros.vlm.positions import prompt_positions, temporal_ids
from delayed_vlm_ros.vlm.prompt import build_prompt
from delayed_vlm_ros.vlm.video_input import position_limit

_QUESTIONS = 12
_FEW_PAIRS = 8  # half of the batches have no more
_HARD_KINDS = ("colour", "where", "how_many", "was_there", "appeared_first", "appeared_last", "before")
_HARDEST_KINDS = ("left", "which_moved", "did_move", "how_long_ago", "happened")  # two moments of one thing
_KINDS = (*KINDS, *SENTENCE_KINDS, *_HARD_KINDS, *(3 * _HARDEST_KINDS))
_IGNORED = -100
CHANGES = ("nothing", "first sight", "seen before", "gone")


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
        positions: ``(3, clips, prefix + video + text)``.
        changes: ``(clips, video)`` what is new at each merged token, an index into ``CHANGES``, -100 where unclear.
    """

    clips: torch.Tensor
    pairs: torch.Tensor
    before: torch.Tensor
    text: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    positions: torch.Tensor
    changes: torch.Tensor

    @property
    def shared(self) -> int:
        """Tokens that all questions share: the text before the video, and the video."""
        return len(self.before) + self.pairs.shape[1] * ROWS * COLUMNS

    def weights(self) -> torch.Tensor:
        """How much each answer's token counts, in the order of ``targets``: less the longer its answer is."""
        learnt = self.targets != _IGNORED
        answers = (self.segments + (_QUESTIONS + 1) * torch.arange(len(learnt))[:, None])[learnt]
        return torch.bincount(answers)[answers].float().rsqrt()

    def visible(self) -> torch.Tensor:
        """What the text behind the video may look at, ``(clips, text, shared + text)`` bool: the video and itself."""
        length = self.segments.shape[1]
        same = self.segments[:, :, None] == self.segments[:, None, :]
        own = same & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.cat([torch.ones(len(own), length, self.shared, dtype=torch.bool), own], dim=2)


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
        count = int(random.integers(1, (min(most, _FEW_PAIRS) if random.random() < 0.5 else most) + 1))  # noqa: PLR2004
        clips = random.integers(len(self._clips), size=self._clips_per_batch)
        chosen = [_choose_pairs(self._clips[clip], count, random) for clip in clips]
        rows = [self._questions(self._clips[clip], pairs, random) for clip, pairs in zip(clips, chosen, strict=True)]
        length = max(len(text) for text, *_ in rows)

        def padded(column: int, filling: int) -> torch.Tensor:
            return torch.tensor([row[column] + [filling] * (length - len(row[column])) for row in rows])

        positions = []
        for (_, _, _, places), clip, pairs in zip(rows, clips, chosen, strict=True):
            stamps = [self._clips[clip].truths[pair].strict.stamp for pair in pairs]
            ids = temporal_ids(self._config, stamps, position_limit(self._config)).ids
            shared = prompt_positions(len(self._prompt.before), ids, ROWS, COLUMNS, 0)[:, 0]
            behind = int(shared[:, len(self._prompt.before) :].max()) + 1
            text = torch.tensor(places + [0] * (length - len(places))) + behind
            positions.append(torch.cat([shared, text.expand(3, -1)], dim=1))
        return Batch(
            clips=torch.from_numpy(clips),
            pairs=torch.from_numpy(np.array(chosen)),
            before=torch.tensor(self._prompt.before),
            text=padded(0, self._tokenizer.pad_token_id),
            targets=padded(1, _IGNORED),
            segments=padded(2, 0),
            positions=torch.stack(positions, dim=1),
            changes=torch.tensor(
                [changes_of(self._clips[clip], pairs) for clip, pairs in zip(clips, chosen, strict=True)]
            ),
        )

    def _questions(
        self, clip: Clip, pairs: Sequence[int], random: np.random.Generator
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Token ids, targets, segments and positions of a clip's questions."""
        story = story_of([clip.truths[pair] for pair in pairs])
        text: list[int] = []
        targets: list[int] = []
        segments: list[int] = []
        places: list[int] = []
        asked = 0
        while asked < _QUESTIONS:
            question = draw_question(_KINDS[random.integers(len(_KINDS))], story, random)
            if question is None:
                continue
            asked += 1
            before = self._question_ids(_restyled(question.text, random))
            answer = answer_ids(self._tokenizer, question.answer)
            text += [*before, *answer]
            targets += [*[_IGNORED] * (len(before) - 1), *answer, _IGNORED]
            segments += [asked] * (len(before) + len(answer))
            places += range(len(before) + len(answer))
        return text, targets, segments, places

    def _question_ids(self, question: str) -> list[int]:
        """What ``build_prompt`` puts behind the video for this question."""
        ids = self._tokenizer(question, add_special_tokens=False).input_ids
        return [self._opening[0], *ids, *self._opening[1:]]


def changes_of(clip: Clip, pairs: Sequence[int]) -> list[int]:
    """What is new at each merged token of some pairs of a clip, in time order, as indices into ``CHANGES``."""
    nothing, first_sight, seen_before, gone = range(len(CHANGES))
    labels: list[int] = []
    seen: set[str] = set()
    before: dict[str, int] = {}  # the token of each thing that was plain to see in the pair before
    for pair in pairs:
        truth = clip.truths[pair]
        row = [nothing] * (ROWS * COLUMNS)
        for name, token in before.items():
            if name not in truth.lenient.places:
                row[token] = gone
        here: dict[str, int] = {}
        for thing in clip.objects[pair]:
            if (token := _token_of(clip, thing)) is None:
                continue
            if thing.name in truth.strict.places:
                here[thing.name] = token
                row[token] = seen_before if thing.name in seen else first_sight
            else:
                row[token] = _IGNORED
        seen |= set(truth.lenient.places)
        before = here
        labels += row
    return labels


def _token_of(clip: Clip, thing: VisibleObject) -> int | None:
    """The merged token that holds a thing's middle; None outside the picture."""
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
