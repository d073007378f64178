"""Second stage of training: learn to answer, on the frozen and stored features of the vision encoder.

Several questions stand behind one video and cannot see one another, so the video is read once for all of them. Of the
text, only the answers' tokens are learnt from. Besides, the video's tokens tell half-way up the layers what has
changed in time: whether the thing there is seen for the first time, has moved, or was there before and is gone, and
which one that was; and further up the last token of each pair tells what has come and gone by then. What tells it are
layers that are thrown away afterwards; questions about events would else take many more steps to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lab.training.clips import SHARD_CLIPS, read_images
from lab.training.language_data import CHANGES, EVENTS, NAMES, Batch
from lab.training.optimization import Optimization, all_but, hidden_matrices
from lab.training.pair_vision import attend, encode_pairs, patches_of
from lab.training.scene_model import COLUMNS, ROWS

_FEATURE_NOISE = 0.05  # of a feature's standard deviation: images never seen give less clear ones
_IGNORED = -100
_ATTENTION = "questions_behind_a_video"
_HIDDEN_SCORE = -1e4
_CHANGES_LAYER = 3  # of five: the layers above can use what this one knows
_CHANGES_WEIGHT = 0.5
_CHANGES_BALANCE = (0.1, 1.0, 0.5, 1.0, 1.0)  # most tokens show nothing
_GONE_WEIGHT = 0.25
_EVENTS_LAYER = 4
_EVENTS_WEIGHT = 0.25


@dataclass(frozen=True)
class _Visibility:
    """What is added to the scores of the shared tokens ``(1, 1, shared, shared)`` and of the text behind them."""

    shared: int
    among_shared: torch.Tensor
    of_text: torch.Tensor


def _visibility(batch: Batch, dtype: torch.dtype) -> _Visibility:
    causal = torch.ones(batch.shared, batch.shared, dtype=torch.bool).tril()

    def bias(visible: torch.Tensor) -> torch.Tensor:
        return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, _HIDDEN_SCORE)

    return _Visibility(batch.shared, bias(causal)[None, None], bias(batch.visible())[:, None])


def _attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: _Visibility, **_: Any
) -> tuple[torch.Tensor, None]:
    """The library's interface of attention: the video among itself, then the text over video and text."""
    del module
    first, rest = slice(None, attention_mask.shared), slice(attention_mask.shared, None)
    shared = attend(query[:, :, first], key[:, :, first], value[:, :, first], attention_mask.among_shared)
    text = attend(query[:, :, rest], key, value, attention_mask.of_text)
    return torch.cat([shared, text], dim=2).transpose(1, 2).contiguous(), None


@torch.no_grad()
def features_of(model: Any, folder: Path, shards: range) -> Iterator[torch.Tensor]:
    """The features of all clips of some shards, shard by shard: ``(clips, pairs, tokens, hidden size)`` bfloat16."""
    for number in shards:
        images = torch.from_numpy(np.array(read_images(folder, number)))
        clips, pairs = images.shape[:2]
        encoded = []
        for frames in images.flatten(0, 1).split(130):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                encoded.append(encode_pairs(model.model.visual, patches_of(frames), ROWS, COLUMNS).bfloat16())
        yield torch.cat(encoded).view(clips, pairs, ROWS * COLUMNS, -1)


See = Callable[[Batch], torch.Tensor]
"""Gives the features of a batch's pairs, ``(clips, pairs × tokens, hidden size)``."""


def stored(features: torch.Tensor, seed: int) -> See:
    """See through features that were computed before, with some noise.

    Args:
        features: ``(clips, pairs, tokens, hidden size)`` of all clips.
        seed: Of the noise.
    """
    random = torch.Generator().manual_seed(seed)
    noise = _FEATURE_NOISE * float(features[:50].float().std())

    def see(batch: Batch) -> torch.Tensor:
        video = features[batch.clips[:, None], batch.pairs].flatten(1, 2).float()
        return video + noise * torch.randn(video.shape, generator=random)

    return see


def live(model: Any, folder: Path, shards: range) -> See:
    """See through the vision encoder itself, which then learns along."""
    images = [read_images(folder, number) for number in shards]

    def see(batch: Batch) -> torch.Tensor:
        frames = [
            torch.from_numpy(np.array(images[clip // SHARD_CLIPS][clip % SHARD_CLIPS][pairs]))
            for clip, pairs in zip(batch.clips.tolist(), batch.pairs.numpy(), strict=True)
        ]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encode_pairs(model.model.visual, patches_of(torch.cat(frames)), ROWS, COLUMNS)
        return features.float().view(len(frames), -1, features.shape[-1])

    return see


def _loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the targets there are; 0 where there is none."""
    known = (targets != _IGNORED).sum().clamp(min=1)
    return cross_entropy(scores, targets.flatten(), ignore_index=_IGNORED, reduction="sum") / known


class LanguageStage:
    """The language model's training, step by step.

    Args:
        model: The library's model; its language model is trained.
        see: Where the features of the pairs come from.
        steps: How many steps there will be.
        rate: The largest learning rate.
        with_vision: Whether the vision encoder is trained too.
    """

    def __init__(self, model: Any, see: See, steps: int, rate: float, *, with_vision: bool = False) -> None:
        ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
        self._language = model.model.language_model
        self._language.config._attn_implementation = _ATTENTION  # noqa: SLF001  the library's own way lists its names
        self._head = model.lm_head
        self._see = see
        self._changes = torch.nn.Linear(self._head.in_features, len(CHANGES) + len(NAMES))
        self._events = torch.nn.Linear(self._head.in_features, len(EVENTS) * (len(NAMES) + 1))
        modules = [self._language, *([model.model.visual] if with_vision else [])]
        matrices = hidden_matrices(*modules)
        trained = [parameter for module in (*modules, self._changes, self._events) for parameter in module.parameters()]
        self._optimization = Optimization(matrices, all_but(trained, matrices), rate, steps)

    def state(self) -> dict[str, Any]:
        """All that an interrupted training needs to go on, beside the model."""
        heads = {"changes": self._changes.state_dict(), "events": self._events.state_dict()}
        return {**heads, "optimization": self._optimization.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._changes.load_state_dict(state["changes"])
        self._events.load_state_dict(state["events"])
        self._optimization.restore(state["optimization"])

    def losses(self, batches: Iterable[Batch]) -> Iterator[tuple[float, float]]:
        """Train; gives each step's loss and its share of right tokens in the answers."""
        for batch in batches:
            scores, targets, changes, events = self._scores(batch)
            weights = batch.weights()
            of_answers = (cross_entropy(scores, targets, reduction="none") * weights).sum() / weights.sum()
            of_changes, of_events = self._loss_of_changes(changes.flatten(0, 1), batch), _loss(events, batch.events)
            loss = of_answers + of_changes + _EVENTS_WEIGHT * of_events
            self._optimization.step(loss)
            yield float(of_answers.detach()), float((scores.argmax(-1) == targets).float().mean())

    @staticmethod
    def _loss_of_changes(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        what, which = scores.split([len(CHANGES), len(NAMES)], dim=1)
        balance = torch.tensor(_CHANGES_BALANCE)
        loss = _CHANGES_WEIGHT * cross_entropy(what, batch.changes.flatten(), balance, ignore_index=_IGNORED)
        return loss + _GONE_WEIGHT * _loss(which, batch.gone)

    def _scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores and targets of the answers' tokens, and scores of what has changed at the video's, and of events."""
        embed = self._language.embed_tokens
        video = self._see(batch)
        before = embed(batch.before).expand(len(video), -1, -1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = self._language(
                inputs_embeds=torch.cat([before, video, embed(batch.text)], dim=1),
                attention_mask={"full_attention": _visibility(batch, torch.bfloat16)},
                position_ids=batch.positions,
                use_cache=False,
                output_hidden_states=True,
            )
        learnt = batch.targets != _IGNORED
        scores = self._head(output.last_hidden_state[:, batch.shared :][learnt].float())
        half_way = output.hidden_states[_CHANGES_LAYER][:, len(batch.before) : batch.shared]
        later = output.hidden_states[_EVENTS_LAYER][:, len(batch.before) : batch.shared]
        ends = later[:, ROWS * COLUMNS - 1 :: ROWS * COLUMNS]  # the last token of each pair has seen all of it
        events = self._events(ends.float()).view(-1, len(NAMES) + 1)
        return scores, batch.targets[learnt], self._changes(half_way.float()), events
