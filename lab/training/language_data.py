"""Batches of the second training stage: clips followed by questions, as token ids and positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from delayed_vlm_ros.inference.local.prompt import build_prompt
from delayed_vlm_ros.inference.local.video_input import lay_out
from delayed_vlm_ros.memory import KeptPair, Snapshot
from delayed_vlm_ros.memory.frame import Frame, FramePair
from delayed_vlm_ros.scenes import answers
from delayed_vlm_ros.scenes.answers import is_move
from delayed_vlm_ros.scenes.questions import KINDS, SENTENCE_KINDS, draw_question
from delayed_vlm_ros.scenes.scene import VisibleObject
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from delayed_vlm_ros.scenes.truth import History, PairTruth, story_of
from lab.training.clips import PAIRS, Clip
from lab.training.scene_model import COLUMNS, MAX_PAIRS, ROWS, UNKNOWN

CHANGES = ("nothing", "first sight", "seen before", "moved", "gone")
"""Classes of the change at a merged token."""
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
"""Names of all objects."""
EVENTS: tuple[Callable[[History], str | None], ...] = (answers.appeared_first, answers.appeared_last, answers.left_last)
"""Questions about events that each pair's last token is trained to answer."""
IGNORED = -100
"""Target of the tokens that the loss ignores."""

_NO_LIMIT = 10**6  # of positions: no gap of a clip is compressed
_QUESTIONS = 20
_EARLY_SHARE = 0.6  # of the questions are asked before the end of the clip, as if its later pairs had not arrived
_HARD_KINDS = ("colour", "where", "how_many", "was_there", "appeared_first", "appeared_last", "which_moved", "did_move")
_HARDEST_KINDS = ("left", "left", "how_long_ago", "before", "happened")  # these relate two times
_KINDS = (*KINDS, *SENTENCE_KINDS, *_HARD_KINDS, *(3 * _HARDEST_KINDS))
_PAIRS_WITH_EVENTS = 6  # of a clip
_EVENT_ANSWERS = {answers.NOTHING: len(NAMES), **{answers.with_article(name): n for n, name in enumerate(NAMES)}}
_NO_QUESTION_MARK_SHARE = 0.2


@dataclass(frozen=True)
class Batch:
    """Clips of equally many pairs, each followed by several questions that cannot attend to one another.

    Attributes:
        clips: Numbers of the clips, ``(clips,)``.
        pairs: Numbers of the pairs of each clip, ``(clips, pairs)``.
        shared: Token ids of the text before the video and of the video, padded, ``(clips, shared)``.
        visual: Whether a token of ``shared`` stands for a feature of the vision encoder, same shape.
        ends: Number of shared tokens up to the end of each pair, ``(clips, pairs)``.
        text: Token ids after the video, questions and answers one after the other, padded, ``(clips, text)``.
        targets: Id that follows each token of an answer, otherwise ``IGNORED``, ``(clips, text)``.
        segments: Number of each token's question from 1; 0 for padding, ``(clips, text)``.
        reach: Number of shared tokens that each token attends to, which is smaller for early questions,
            ``(clips, text)``.
        positions: Position ids, ``(3, clips, shared + text)``.
        changes: Change at each visual token, an index into ``CHANGES``, or ``IGNORED`` where unclear, ``(clips,
            visual)``.
        gone: Object that has left each visual token, an index into ``NAMES``, or ``IGNORED``, ``(clips, visual)``.
        events: Answer to each of ``EVENTS`` after each pair, an index into ``NAMES``, ``len(NAMES)`` for no object, or
            ``IGNORED``, ``(clips, pairs, EVENTS)``.
    """

    clips: torch.Tensor
    pairs: torch.Tensor
    shared: torch.Tensor
    visual: torch.Tensor
    ends: torch.Tensor
    text: torch.Tensor
    targets: torch.Tensor
    segments: torch.Tensor
    reach: torch.Tensor
    positions: torch.Tensor
    changes: torch.Tensor
    gone: torch.Tensor
    events: torch.Tensor

    def weights(self) -> torch.Tensor:
        """Return the weight of each answer token, in the order of ``targets``; tokens of long answers weigh less."""
        learnt = self.targets != IGNORED
        numbers = (self.segments + (_QUESTIONS + 1) * torch.arange(len(learnt))[:, None])[learnt]
        return torch.bincount(numbers)[numbers].float().rsqrt()

    def visible(self) -> torch.Tensor:
        """Return what each text token attends to, ``(clips, text, shared + text)`` bool: its past and itself."""
        length = self.segments.shape[1]
        same = self.segments[:, :, None] == self.segments[:, None, :]
        own = same & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.cat([torch.arange(self.shared.shape[1]) < self.reach[:, :, None], own], dim=2)


@dataclass(frozen=True)
class _Video:
    """The text before a video, and the video.

    Attributes:
        ids: Token ids.
        positions: Position ids, ``(3, tokens)``.
        ends: Number of tokens up to the end of each pair.
    """

    ids: list[int]
    positions: torch.Tensor
    ends: list[int]


@dataclass(frozen=True)
class _Text:
    """Questions and answers of one clip, token by token; the fields are rows of ``Batch``."""

    ids: list[int]
    targets: list[int]
    segments: list[int]
    reach: list[int]
    positions: list[int]


class ClipQuestions(IterableDataset):  # type: ignore[type-arg]  # not subscriptable before PyTorch 2.4
    """Batches without end; the number of pairs grows over the first part of the training.

    Args:
        clips: Clips that the questions are about.
        processor: The model's processor.
        config: The model's config.
        steps: Number of steps of the training.
        first_step: Step to start from.
        seed: Seed of the batches.
        clips_per_batch: Clips of a batch.
        max_pairs: Largest number of pairs of a batch.
        grown: Whether batches have the largest number of pairs from the start.
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
        clips_per_batch: int,
        max_pairs: int = MAX_PAIRS,
        grown: bool = False,
    ) -> None:
        self._clips = clips
        self._clips_per_batch = clips_per_batch
        self._max_pairs = max_pairs
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._prompt = build_prompt(processor, "?")
        self._opening = build_prompt(processor, "").after
        self._config = deepcopy(config)
        self._config.text_config.max_position_embeddings = _NO_LIMIT
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
        most = min(self._max_pairs, 6 if progress < 0.15 else 12 if progress < 0.35 else MAX_PAIRS)  # noqa: PLR2004
        count = int(random.integers(most // 4, most + 1))
        numbers = random.integers(len(self._clips), size=self._clips_per_batch)
        clips = [self._clips[number] for number in numbers]
        chosen = [_choose_pairs(clip, count, random) for clip in clips]
        videos = [self._video(clip, pairs) for clip, pairs in zip(clips, chosen, strict=True)]
        texts = [
            self._questions([clip.truths[pair] for pair in pairs], video, random)
            for clip, pairs, video in zip(clips, chosen, videos, strict=True)
        ]
        changes = [changes_of(clip, pairs) for clip, pairs in zip(clips, chosen, strict=True)]
        shared = _padded((video.ids for video in videos), self._tokenizer.pad_token_id)
        text_positions = _padded((text.positions for text in texts), 0).expand(3, -1, -1)
        video_positions = torch.zeros((3, *shared.shape), dtype=torch.int64)
        for clip_positions, video in zip(video_positions.unbind(1), videos, strict=True):
            clip_positions[:, : len(video.ids)] = video.positions
        return Batch(
            clips=torch.from_numpy(numbers),
            pairs=torch.from_numpy(np.array(chosen)),
            shared=shared,
            visual=shared == self._prompt.video_token_id,
            ends=torch.tensor([video.ends for video in videos]),
            text=_padded((text.ids for text in texts), self._tokenizer.pad_token_id),
            targets=_padded((text.targets for text in texts), IGNORED),
            segments=_padded((text.segments for text in texts), 0),
            reach=_padded((text.reach for text in texts), 1),
            positions=torch.cat([video_positions, text_positions], dim=2),
            changes=torch.tensor([changed for changed, _ in changes]),
            gone=torch.tensor([gone for _, gone in changes]),
            events=torch.tensor(
                [
                    _events_of([clip.truths[pair] for pair in pairs], random)
                    for clip, pairs in zip(clips, chosen, strict=True)
                ]
            ),
        )

    def _video(self, clip: Clip, pairs: Sequence[int]) -> _Video:
        layout = lay_out(self._config, self._processor, _snapshot(clip, pairs))
        lengths = (len(text.before) + layout.tokens_per_pair + len(text.after) for text in layout.pair_texts)
        ends = list(accumulate(lengths, initial=len(self._prompt.before)))[1:]
        tokens = slice(ends[-1])
        return _Video(layout.token_ids(self._prompt)[tokens], layout.positions(self._prompt)[:, 0, tokens], ends)

    def _questions(self, truths: Sequence[PairTruth], video: _Video, random: np.random.Generator) -> _Text:
        """Draw the questions and answers of a clip, some of them early.

        An early question is computed as if the later pairs did not exist: video tokens attend to earlier ones only, and
        their positions do not depend on later ones, because the training shows all gaps as they are. Nor do the times
        in the text.
        """
        text = _Text([], [], [], [], [])
        story = cache(lambda count: story_of(truths[:count]))
        drawn = 0
        while drawn < _QUESTIONS:
            early = random.random() < _EARLY_SHARE
            count = int(random.integers(1, len(truths) + 1)) if early else len(truths)
            kind = _KINDS[random.integers(len(_KINDS))]
            question = draw_question(kind, story(count), random)
            if question is None:
                continue
            drawn += 1
            reach = video.ends[count - 1]
            first = int(video.positions[:, :reach].max()) + 1
            before = self._question_ids(_restyled(question.text, random))
            answer = answer_ids(self._tokenizer, question.answer)
            length = len(before) + len(answer)
            text.ids.extend([*before, *answer])
            text.targets.extend([*[IGNORED] * (len(before) - 1), *answer, IGNORED])
            text.segments.extend([drawn] * length)
            text.reach.extend([reach] * length)
            text.positions.extend(range(first, first + length))
        return text

    def _question_ids(self, question: str) -> list[int]:
        """Return the token ids that ``build_prompt`` writes after the video for a question."""
        ids = self._tokenizer(question, add_special_tokens=False).input_ids
        return [self._opening[0], *ids, *self._opening[1:]]


def _padded(rows: Iterable[list[int]], filling: int) -> torch.Tensor:
    rows = list(rows)
    length = max(map(len, rows))
    return torch.tensor([row + [filling] * (length - len(row)) for row in rows])


def _snapshot(clip: Clip, pairs: Sequence[int]) -> Snapshot:
    """Return the snapshot of a memory that kept some pairs of a clip, with blank images."""
    blank = np.zeros((clip.grid.height, clip.grid.width, 3), np.uint8)
    blank.flags.writeable = False
    frames = ([Frame(blank, stamp, 0, 0.0, "") for stamp in clip.stamps[pair]] for pair in pairs)
    return tuple(
        KeptPair(FramePair(pair, *both), in_star=True, in_stream=False)
        for pair, both in zip(pairs, frames, strict=True)
    )


def changes_of(clip: Clip, pairs: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the change at each merged token of some pairs of a clip, oldest pair first.

    Returns:
        Indices into ``CHANGES``, and indices into ``NAMES`` where an object is gone; ``IGNORED`` where they are
        unclear.
    """
    nothing, first_sight, seen_before, moved, gone = range(len(CHANGES))
    changes: list[int] = []
    names: list[int] = []
    extent: dict[str, list[float]] = {}  # leftmost and rightmost position of each object
    last: dict[str, int] = {}  # last clearly visible token of each object that may still be present
    for pair in pairs:
        truth = clip.truths[pair]
        row, which = [nothing] * (ROWS * COLUMNS), [IGNORED] * (ROWS * COLUMNS)
        for name in [name for name in last if name not in truth.lenient.positions]:
            left_token = last.pop(name)
            row[left_token] = gone
            which[left_token] = NAMES.index(name) if name != PERSON else IGNORED
        for visible in clip.objects[pair]:
            token = _token_of(clip, visible)
            if token is None:
                continue
            which[token] = IGNORED
            if visible.name not in truth.strict.positions:
                row[token] = IGNORED
                continue
            last[visible.name] = token
            x = truth.strict.positions[visible.name]
            if visible.name not in extent:
                row[token] = first_sight
            elif visible.name == PERSON:
                row[token] = seen_before
            else:
                least, greatest = extent[visible.name]
                away = is_move(max(greatest, x) - min(least, x))
                row[token] = IGNORED if away is None else moved if away else seen_before
        for name, x in truth.lenient.positions.items():
            least, greatest = extent.get(name, (x, x))
            extent[name] = [min(least, x), max(greatest, x)]
        changes += row
        names += which
    return changes, names


def _events_of(truths: Sequence[PairTruth], random: np.random.Generator) -> list[list[int]]:
    """Return the answers to ``EVENTS`` after some pairs, as rows of ``Batch.events``; unclear answers are ignored."""
    targets = [[IGNORED] * len(EVENTS) for _ in truths]
    for number in random.integers(len(truths), size=_PAIRS_WITH_EVENTS):
        story = story_of(truths[: number + 1])
        for event, question in enumerate(EVENTS):
            answer = question(story.strict)
            if answer is not None and answer == question(story.lenient):
                targets[number][event] = _EVENT_ANSWERS[answer]
    return targets


def _token_of(clip: Clip, visible: VisibleObject) -> int | None:
    """Return the merged token that holds the centre of an object; None outside the image."""
    x, y = clip.on_grid(visible.x, visible.y)
    inside = 0.0 <= x < 1.0 and 0.0 <= y < 1.0
    return int(y * ROWS) * COLUMNS + int(x * COLUMNS) if inside else None


def answer_ids(tokenizer: Any, answer: str) -> list[int]:
    """Return the token ids of an answer, followed by the end token; the answer is spelled as in the vocabulary.

    Raises:
        ValueError: A word of the answer is not in the vocabulary.
    """
    words = answer.replace(",", " ,").split()
    ids = tokenizer.convert_tokens_to_ids(words)
    if tokenizer.unk_token_id in ids or None in ids or tokenizer.convert_tokens_to_ids(UNKNOWN) in ids:
        raise ValueError(f"'{answer}' has a word that is not in the vocabulary")
    return [*ids, tokenizer.eos_token_id]


def _restyled(text: str, random: np.random.Generator) -> str:
    return text.rstrip("?") if random.random() < _NO_QUESTION_MARK_SHARE else text


def _choose_pairs(clip: Clip, count: int, random: np.random.Generator) -> list[int]:
    """Return some pairs of a clip, oldest first: a window if its spacing is even, else any pairs up to a random one."""
    if clip.spacing == "even":
        first = int(random.integers(PAIRS - count + 1))
        return list(range(first, first + count))
    last = int(random.integers(count, PAIRS + 1))
    return [int(pair) for pair in np.sort(random.choice(last, count, replace=False))]
