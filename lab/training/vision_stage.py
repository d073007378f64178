"""First stage of training: learn to see.

Joint training from scratch stalls, so the vision encoder learns alone first: the feature of the merged token that holds
an object's middle shall match the word embeddings of its colour and its shape, every other one that of "nothing"; and
every feature shall tell its own row and column. The word embeddings learn along, so what the encoder says is in the
language model's words from the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from lab.training.clips import PAIRS, SHARD_CLIPS, Clip, read_clips, read_images
from lab.training.optimization import Optimization, all_but, hidden_matrices
from lab.training.pair_vision import encode_pairs, patches_of
from lab.training.scene_model import COLUMNS, FRAME_HEIGHT, FRAME_WIDTH, ROWS

COLOUR_WORDS = (*COLOURS, "nothing")
SHAPE_WORDS = (*SHAPES, PERSON, "nothing")
_IGNORED = -100
_LEAST_SHOWN = 0.35  # a thing hidden by more is neither to be named nor to be denied
_PLACE_WEIGHT = 0.3
_BATCH = 96
_RATE = 2e-3
_MOST_THINGS = 8
_NO_COLOUR, _NO_SHAPE = len(COLOUR_WORDS) - 1, len(SHAPE_WORDS) - 1
_LARGEST_SHIFT = (8, 12)  # pixels down and right by which training images are moved
_PAIRS_OF_A_CLIP = 13  # every second one: neighbours look alike


@dataclass(frozen=True)
class Seen:
    """Single pairs with what to see in them.

    Attributes:
        frames: ``(pairs, 2, H, W, 3)`` uint8.
        things: ``(pairs, _MOST_THINGS, 5)`` float32: x, y (0..1), colour and shape (numbers in ``COLOUR_WORDS`` and
            ``SHAPE_WORDS``) and how much is shown, the farthest first; shape -1 where there is none.
    """

    frames: torch.Tensor
    things: torch.Tensor


def _things_of(clip: Clip, pair: int) -> np.ndarray[Any, Any]:
    rows = np.full((_MOST_THINGS, 5), -1.0, np.float32)
    for number, thing in enumerate(clip.objects[pair][:_MOST_THINGS]):
        colour = _NO_COLOUR if thing.shape == PERSON else COLOUR_WORDS.index(thing.colour)
        rows[number] = *clip.on_grid(thing.x, thing.y), colour, SHAPE_WORDS.index(thing.shape), thing.shown
    return rows


def read_seen(folder: Path, shards: range) -> Seen:
    """Single pairs out of some shards of clips."""
    frames = np.empty((len(shards) * SHARD_CLIPS * _PAIRS_OF_A_CLIP, 2, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    things = []
    for number in shards:
        images = read_images(folder, number)
        for index, clip in enumerate(read_clips(folder, number)):
            chosen = range(index % 2, PAIRS, PAIRS // _PAIRS_OF_A_CLIP)
            frames[len(things) : len(things) + len(chosen)] = images[index, list(chosen)]
            things += [_things_of(clip, pair) for pair in chosen]
    return Seen(torch.from_numpy(frames), torch.from_numpy(np.stack(things)))


def labels_of(things: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour and shape of each merged token, each ``(pairs, ROWS × COLUMNS)`` int64; the nearest thing wins.

    Args:
        things: As in ``Seen``.
    """
    colours = torch.full((len(things), ROWS * COLUMNS), _NO_COLOUR)
    shapes = torch.full((len(things), ROWS * COLUMNS), _NO_SHAPE)
    for x, y, colour, shape, shown in things.permute(1, 2, 0):
        inside = (shape >= 0) & (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
        pairs = inside.nonzero()[:, 0]
        tokens = (y * ROWS).long()[pairs] * COLUMNS + (x * COLUMNS).long()[pairs]
        plain = shown[pairs] >= _LEAST_SHOWN
        hidden = ~plain & (shapes[pairs, tokens] == _NO_SHAPE)
        shapes[pairs[plain], tokens[plain]] = shape[pairs[plain]].long()
        colours[pairs[plain], tokens[plain]] = colour[pairs[plain]].long()
        shapes[pairs[hidden], tokens[hidden]] = _IGNORED
        colours[pairs[hidden], tokens[hidden]] = _IGNORED
    return colours, shapes


class VisionStage:
    """The vision encoder's training, step by step.

    Args:
        model: The library's model; its vision encoder and word embeddings are trained.
        tokenizer: Its tokenizer.
        steps: How many steps there will be.
        seed: Of the order of the pairs.
    """

    def __init__(self, model: Any, tokenizer: Any, steps: int, seed: int) -> None:
        self._visual = model.model.visual
        self._words = model.model.language_model.embed_tokens.weight
        self._colour_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(COLOUR_WORDS)))
        self._shape_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(SHAPE_WORDS)))
        self._place = torch.nn.Linear(self._words.shape[1], ROWS + COLUMNS)
        matrices = hidden_matrices(self._visual)
        trained = [*self._visual.parameters(), self._words, *self._place.parameters()]
        self._optimization = Optimization(matrices, all_but(trained, matrices), _RATE, steps)
        self._random = torch.Generator().manual_seed(seed)
        self._scale = self._words.shape[1] ** 0.5

    def losses(self, seen: Seen) -> Iterator[float]:
        """Train on batches drawn from ``seen``, forever; gives each step's loss."""
        while True:
            chosen = torch.randint(len(seen.frames), (_BATCH,), generator=self._random)
            frames, things = self._moved(seen.frames[chosen], seen.things[chosen])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                features = encode_pairs(self._visual, patches_of(self._relit(frames)), ROWS, COLUMNS)
            loss = self._loss(features.float(), *labels_of(things))
            self._optimization.step(loss)
            yield float(loss.detach())

    def _moved(self, frames: torch.Tensor, things: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch mirrored half of the time, and moved by some pixels, with what was at the edge drawn out."""
        height, width = frames.shape[2:4]
        down, right = (int(torch.randint(-most, most + 1, (1,), generator=self._random)) for most in _LARGEST_SHIFT)
        rows = (torch.arange(height) - down).clamp_(0, height - 1)
        columns = (torch.arange(width) - right).clamp_(0, width - 1)
        things = things.clone()
        if torch.rand(1, generator=self._random) < 0.5:  # noqa: PLR2004
            columns = columns.flip(0)
            things[..., 0] = 1.0 - things[..., 0]
            right = -right
        things[..., 0] += right / width
        things[..., 1] += down / height
        return frames[:, :, rows][:, :, :, columns], things

    def _relit(self, frames: torch.Tensor) -> torch.Tensor:
        """Each pair a little brighter or darker, and of another tint."""
        gains = 1.0 + 0.08 * torch.randn((len(frames), 1, 1, 1, 1), generator=self._random)
        tints = 1.0 + 0.02 * torch.randn((len(frames), 1, 1, 1, 3), generator=self._random)
        return (frames * (gains * tints)).clamp_(0, 255)

    def _scores(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            features @ self._words[self._colour_ids].T * self._scale,
            features @ self._words[self._shape_ids].T * self._scale,
        )

    def _loss(self, features: torch.Tensor, colours: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
        colour_scores, shape_scores = self._scores(features)
        place = self._place(features)
        row = torch.arange(ROWS).repeat_interleave(COLUMNS).expand(len(features), -1)
        column = torch.arange(COLUMNS).repeat(ROWS).expand(len(features), -1)
        return (
            cross_entropy(colour_scores.flatten(0, 1), colours.flatten(), ignore_index=_IGNORED)
            + cross_entropy(shape_scores.flatten(0, 1), shapes.flatten(), ignore_index=_IGNORED)
            + _PLACE_WEIGHT * cross_entropy(place[..., :ROWS].flatten(0, 1), row.flatten())
            + _PLACE_WEIGHT * cross_entropy(place[..., ROWS:].flatten(0, 1), column.flatten())
        )

    @torch.no_grad()
    def accuracy(self, seen: Seen) -> tuple[float, float]:
        """Share of right tokens among those with a thing in them, and among the others."""
        found = []
        for frames in seen.frames.split(_BATCH):
            features = encode_pairs(self._visual, patches_of(frames), ROWS, COLUMNS)
            found.append(torch.stack([scores.argmax(-1) for scores in self._scores(features)]))
        colours, shapes = labels_of(seen.things)
        both = (torch.cat(found, 1) == torch.stack([colours, shapes])).all(0)
        known = shapes != _IGNORED
        things = known & (shapes != _NO_SHAPE)
        return float(both[things].float().mean()), float(both[known & ~things].float().mean())
