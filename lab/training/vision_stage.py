"""First training stage: learn to see.

Joint training from random weights stalls, so the vision encoder is trained alone first. The feature of the merged token
that holds the centre of an object must match the word embeddings of the object's colour and shape, every other feature
that of "nothing". Every feature must also predict its own row and column. The word embeddings are trained as well, so
features lie among the language model's words from the start. A model with several levels of features learns all of
them in this way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.scenes.sprites import COLOURS, PERSON, SHAPES
from lab.training.clips import PAIRS, SHARD_CLIPS, Clip, read_clips, read_images
from lab.training.optimization import Optimization, autocast, hidden_matrices, without
from lab.training.pair_vision import patches_of
from lab.training.scene_model import COLUMNS, ROWS

COLOUR_WORDS = (*COLOURS, "nothing")
SHAPE_WORDS = (*SHAPES, PERSON, "nothing")
_IGNORED = -100
_LEAST_SHOWN = 0.35  # an object that is hidden by more has no label
_POSITION_WEIGHT = 0.3
_ENCODED_TOGETHER = 96
_RATE = 2e-3
_MOST_OBJECTS = 8
_NO_COLOUR, _NO_SHAPE = len(COLOUR_WORDS) - 1, len(SHAPE_WORDS) - 1
_LARGEST_SHIFT = (8, 12)  # pixels down and right by which training images are shifted
_MIRRORED_SHARE = 0.5
_PAIRS_OF_A_CLIP = 13  # every second one, because neighbours look alike


@dataclass(frozen=True)
class LabelledPairs:
    """Single pairs and the objects in them.

    Attributes:
        frames: RGB frames, ``(pairs, 2, H, W, 3)`` uint8.
        objects: For each object x and y (0..1), colour and shape (indices into ``COLOUR_WORDS`` and ``SHAPE_WORDS``)
            and the share that is not hidden, the farthest object first, ``(pairs, _MOST_OBJECTS, 5)`` float32; the
            shape is -1 in unused rows.
    """

    frames: torch.Tensor
    objects: torch.Tensor


def _objects_of(clip: Clip, pair: int) -> NDArray[np.float32]:
    rows = np.full((_MOST_OBJECTS, 5), -1.0, np.float32)
    for number, one in enumerate(clip.objects[pair][:_MOST_OBJECTS]):
        colour = _NO_COLOUR if one.shape == PERSON else COLOUR_WORDS.index(one.colour)
        rows[number] = *clip.on_grid(one.x, one.y), colour, SHAPE_WORDS.index(one.shape), one.shown
    return rows


def read_pairs(folder: Path, shards: range) -> LabelledPairs:
    """Return single pairs of all clips of some shards."""
    size = read_images(folder, shards[0]).shape[3:]
    frames = np.empty((len(shards) * SHARD_CLIPS * _PAIRS_OF_A_CLIP, 2, *size), np.uint8)
    objects: list[NDArray[np.float32]] = []
    for number in shards:
        images = read_images(folder, number)
        for index, clip in enumerate(read_clips(folder, number)):
            chosen = range(index % 2, PAIRS, PAIRS // _PAIRS_OF_A_CLIP)
            frames[len(objects) : len(objects) + len(chosen)] = images[index, list(chosen)]
            objects += [_objects_of(clip, pair) for pair in chosen]
    return LabelledPairs(torch.from_numpy(frames), torch.from_numpy(np.stack(objects)))


def labels_of(objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return colour and shape of each merged token, each ``(pairs, ROWS × COLUMNS)`` int64; the nearest object wins.

    Args:
        objects: The ``objects`` of ``LabelledPairs``.
    """
    colours = torch.full((len(objects), ROWS * COLUMNS), _NO_COLOUR)
    shapes = torch.full((len(objects), ROWS * COLUMNS), _NO_SHAPE)
    for x, y, colour, shape, shown in objects.permute(1, 2, 0):
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
    """Trains the vision encoder step by step.

    Args:
        model: Hugging Face model whose vision encoder and word embeddings are trained.
        processor: The model's processor.
        steps: Number of steps of the training.
        seed: Seed of the batches.
        pairs_per_batch: Pairs of a batch.
    """

    def __init__(self, model: Any, processor: Any, steps: int, seed: int, *, pairs_per_batch: int) -> None:
        tokenizer = processor.tokenizer
        self._processor = processor
        self._pairs_per_batch = pairs_per_batch
        self._encode_pairs = adapter_for(model.config).encode_pairs
        self._visual = model.model.visual
        self._words = model.model.language_model.embed_tokens.weight
        self._colour_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(COLOUR_WORDS)))
        self._shape_ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(SHAPE_WORDS)))
        self._position = torch.nn.Linear(self._words.shape[1], ROWS + COLUMNS)
        matrices = hidden_matrices(self._visual)
        trained = [*self._visual.parameters(), self._words, *self._position.parameters()]
        self._optimization = Optimization(matrices, without(trained, matrices), _RATE, steps)
        self._random = torch.Generator().manual_seed(seed)
        self._scale = self._words.shape[1] ** 0.5

    def losses(self, data: LabelledPairs) -> Iterator[float]:
        """Train on batches drawn from ``data``, without end; yield the loss of each step."""
        while True:
            chosen = torch.randint(len(data.frames), (self._pairs_per_batch,), generator=self._random)
            frames, objects = self._shifted(data.frames[chosen], data.objects[chosen])
            with autocast():
                features = self._levels(self._relit(frames))
            colours, shapes = (labels.repeat(len(features), 1) for labels in labels_of(objects))
            loss = self._loss(features.float().flatten(0, 1), colours, shapes)
            self._optimization.step(loss)
            yield float(loss.detach())

    def _levels(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the features of pairs, ``(levels, pairs, tokens, hidden size)``."""
        features = self._encode_pairs(self._visual, patches_of(frames, self._processor), ROWS, COLUMNS)
        return torch.stack(features.split(self._words.shape[1], dim=-1))

    def _shifted(self, frames: torch.Tensor, objects: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mirror half of the batches and shift all by some pixels; edge pixels are repeated."""
        height, width = frames.shape[2:4]
        down, right = (int(torch.randint(-most, most + 1, (1,), generator=self._random)) for most in _LARGEST_SHIFT)
        rows = (torch.arange(height) - down).clamp_(0, height - 1)
        columns = (torch.arange(width) - right).clamp_(0, width - 1)
        objects = objects.clone()
        if torch.rand(1, generator=self._random) < _MIRRORED_SHARE:
            columns = columns.flip(0)
            objects[..., 0] = 1.0 - objects[..., 0]
            right = -right
        objects[..., 0] += right / width
        objects[..., 1] += down / height
        return frames[:, :, rows][:, :, :, columns], objects

    def _relit(self, frames: torch.Tensor) -> torch.Tensor:
        """Vary brightness and tint of each pair a little."""
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
        position = self._position(features)
        row = torch.arange(ROWS).repeat_interleave(COLUMNS).expand(len(features), -1)
        column = torch.arange(COLUMNS).repeat(ROWS).expand(len(features), -1)
        return (
            cross_entropy(colour_scores.flatten(0, 1), colours.flatten(), ignore_index=_IGNORED)
            + cross_entropy(shape_scores.flatten(0, 1), shapes.flatten(), ignore_index=_IGNORED)
            + _POSITION_WEIGHT * cross_entropy(position[..., :ROWS].flatten(0, 1), row.flatten())
            + _POSITION_WEIGHT * cross_entropy(position[..., ROWS:].flatten(0, 1), column.flatten())
        )

    @torch.no_grad()
    def accuracy(self, data: LabelledPairs) -> tuple[float, float]:
        """Return the share of correct tokens among those with an object, and among the others."""
        found = []
        for frames in data.frames.split(_ENCODED_TOGETHER):
            features = self._levels(frames)[0]
            found.append(torch.stack([scores.argmax(-1) for scores in self._scores(features)]))
        colours, shapes = labels_of(data.objects)
        both = (torch.cat(found, 1) == torch.stack([colours, shapes])).all(0)
        known = shapes != _IGNORED
        objects = known & (shapes != _NO_SHAPE)
        return float(both[objects].float().mean()), float(both[known & ~objects].float().mean())
