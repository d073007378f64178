"""Second training stage: learn to answer, from the stored features of the frozen vision encoder.

Several questions follow one video and cannot attend to one another, so the language model reads the video once for all
of them. Among the text tokens, only those of the answers contribute to the loss.

Two auxiliary losses are added, because questions about events would otherwise take many more steps to learn. At half
the depth, each video token predicts what has changed there: whether an object is seen for the first time, has moved,
was seen before, or is gone, and which one is gone. Higher up, the last token of each pair predicts which objects have
come and gone by then. The heads of these losses are dropped after the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from lab.training.clips import SHARD_CLIPS, read_images
from lab.training.language_data import CHANGES, EVENTS, IGNORED, NAMES, Batch
from lab.training.optimization import Optimization, autocast, hidden_matrices, without
from lab.training.pair_vision import patches_of
from lab.training.recurrent import prepare
from lab.training.scene_model import COLUMNS, ROWS

_FEATURE_NOISE = 0.05  # of a feature's standard deviation: features of unseen images are less distinct
_PAIRS_PER_CALL = 130
_ATTENTION = "questions_after_a_video"
_CHANGES_LAYER = 3  # of five: the layers above can use what this one predicts
_CHANGES_WEIGHT = 0.5
_CHANGES_BALANCE = (0.1, 1.0, 0.5, 1.0, 1.0)  # most tokens show nothing
_GONE_WEIGHT = 0.25
_EVENTS_LAYER = 4
_EVENTS_WEIGHT = 0.25


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    visible: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the video, and from the text to video and text; a Hugging Face attention function.

    Args:
        module: The attention layer.
        query: ``(clips, heads, shared + text, head size)``.
        key: Same shape.
        value: Same shape.
        attention_mask: Hugging Face makes none for this function.
        visible: The ``visible`` of the batch, ``(clips, 1, text, shared + text)``.
    """
    del module, attention_mask
    length = query.shape[2] - visible.shape[2]
    first, rest = slice(None, length), slice(length, None)
    shared = scaled_dot_product_attention(query[:, :, first], key[:, :, first], value[:, :, first], is_causal=True)
    text = scaled_dot_product_attention(query[:, :, rest], key, value, visible)
    return torch.cat([shared, text], dim=2).transpose(1, 2).contiguous(), None


@torch.no_grad()
def features_of(model: Any, processor: Any, folder: Path, shards: range) -> Iterator[torch.Tensor]:
    """Yield the features of all clips of each shard, ``(clips, pairs, tokens, levels × hidden size)`` bfloat16."""
    encode_pairs = adapter_for(model.config).encode_pairs
    for number in shards:
        images = torch.from_numpy(np.array(read_images(folder, number)))
        clips, pairs = images.shape[:2]
        encoded = []
        for frames in images.flatten(0, 1).split(_PAIRS_PER_CALL):
            with autocast():
                features = encode_pairs(model.model.visual, patches_of(frames, processor), ROWS, COLUMNS)
            encoded.append(features.bfloat16())
        yield torch.cat(encoded).view(clips, pairs, ROWS * COLUMNS, -1)


FeatureSource = Callable[[Batch], torch.Tensor]
"""Function that returns the features of a batch's pairs, ``(clips, pairs × tokens, levels × hidden size)``."""


def stored(features: torch.Tensor, seed: int) -> FeatureSource:
    """Return a source of features that were computed before, with noise added.

    Args:
        features: Features of all clips, ``(clips, pairs, tokens, levels × hidden size)``.
        seed: Seed of the noise.
    """
    random = torch.Generator().manual_seed(seed)
    noise = _FEATURE_NOISE * float(features[:50].float().std())

    def source(batch: Batch) -> torch.Tensor:
        video = features[batch.clips[:, None], batch.pairs].flatten(1, 2).float()
        return video + noise * torch.randn(video.shape, generator=random)

    return source


def live(model: Any, processor: Any, folder: Path, shards: range) -> FeatureSource:
    """Return a source that runs the vision encoder, which is then trained as well."""
    encode_pairs = adapter_for(model.config).encode_pairs
    images = [read_images(folder, number) for number in shards]

    def source(batch: Batch) -> torch.Tensor:
        frames = [
            torch.from_numpy(np.array(images[clip // SHARD_CLIPS][clip % SHARD_CLIPS][pairs]))
            for clip, pairs in zip(batch.clips.tolist(), batch.pairs.numpy(), strict=True)
        ]
        with autocast():
            features = encode_pairs(model.model.visual, patches_of(torch.cat(frames), processor), ROWS, COLUMNS)
        return features.float().view(len(frames), -1, features.shape[-1])

    return source


def run(model: Any, video_output: Any, batch: Batch, features: torch.Tensor, **options: Any) -> Any:
    """Return the output of a model for a batch, after ``LanguageStage`` has set the attention function.

    Args:
        model: Hugging Face model without its head.
        video_output: Function of the model's adapter.
        batch: The batch.
        features: Features of its pairs, ``(clips, pairs × tokens, levels × hidden size)``.
        options: Options of the model's ``forward``.
    """
    return model(
        input_ids=torch.cat([batch.shared, batch.text], dim=1),
        mm_encoder_outputs={"video": video_output(model.config, list(features))},
        position_ids=batch.positions,
        use_cache=False,
        visible=batch.visible()[:, None],
        batch=batch,
        **options,
    )


def _loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over the targets that are not ignored; 0 for no such target."""
    known = (targets != IGNORED).sum().clamp(min=1)
    return cross_entropy(scores, targets.flatten(), ignore_index=IGNORED, reduction="sum") / known


class LanguageStage:
    """Trains the language model step by step.

    Args:
        model: Hugging Face model whose language model is trained.
        source: Source of the features of the pairs.
        steps: Number of steps of the training.
        rate: Largest learning rate.
        with_vision: Whether the vision encoder is trained as well.
    """

    def __init__(
        self, model: Any, source: FeatureSource, steps: int, rate: float, *, with_vision: bool = False
    ) -> None:
        ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
        self._model = model.model
        prepare(model.model.language_model)
        self._video_output = adapter_for(model.config).video_output
        language = model.model.language_model
        language.config._attn_implementation = _ATTENTION  # noqa: SLF001  the public setter accepts known names only
        self._head = model.lm_head
        self._source = source
        self._changes = torch.nn.Linear(self._head.in_features, len(CHANGES) + len(NAMES))
        self._events = torch.nn.Linear(self._head.in_features, len(EVENTS) * (len(NAMES) + 1))
        modules = [language, *([model.model.visual] if with_vision else [])]
        matrices = hidden_matrices(*modules)
        trained = [parameter for module in (*modules, self._changes, self._events) for parameter in module.parameters()]
        self._optimization = Optimization(matrices, without(trained, matrices), rate, steps)

    def state(self) -> dict[str, Any]:
        """Return the state, apart from the model, that an interrupted training needs to continue."""
        heads = {"changes": self._changes.state_dict(), "events": self._events.state_dict()}
        return {**heads, "optimization": self._optimization.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a result of ``state``."""
        self._changes.load_state_dict(state["changes"])
        self._events.load_state_dict(state["events"])
        self._optimization.restore(state["optimization"])

    def losses(self, batches: Iterable[Batch]) -> Iterator[tuple[float, float]]:
        """Train on each batch; yield its loss and its share of correct answer tokens."""
        for batch in batches:
            scores, targets, changes, events = self._scores(batch)
            weights = batch.weights()
            of_answers = (cross_entropy(scores, targets, reduction="none") * weights).sum() / weights.sum()
            of_changes, of_events = self._loss_of_changes(changes, batch), _loss(events, batch.events)
            loss = of_answers + of_changes + _EVENTS_WEIGHT * of_events
            self._optimization.step(loss)
            yield float(of_answers.detach()), float((scores.argmax(-1) == targets).float().mean())

    @staticmethod
    def _loss_of_changes(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
        what, which = scores.split([len(CHANGES), len(NAMES)], dim=1)
        balance = torch.tensor(_CHANGES_BALANCE)
        loss = _CHANGES_WEIGHT * cross_entropy(what, batch.changes.flatten(), balance, ignore_index=IGNORED)
        return loss + _GONE_WEIGHT * _loss(which, batch.gone)

    def _scores(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scores and targets of the answer tokens, scores of the changes at video tokens, and of the events."""
        with autocast():
            output = run(self._model, self._video_output, batch, self._source(batch), output_hidden_states=True)
        learnt, shared = batch.targets != IGNORED, slice(batch.shared.shape[1])
        scores = self._head(output.last_hidden_state[:, shared.stop :][learnt].float())
        half_depth, deeper = (
            output.hidden_states[layer][:, shared][batch.visual].float() for layer in (_CHANGES_LAYER, _EVENTS_LAYER)
        )
        ends = deeper[ROWS * COLUMNS - 1 :: ROWS * COLUMNS]  # the last token of a pair has seen all of the pair
        events = self._events(ends).view(-1, len(NAMES) + 1)
        return scores, batch.targets[learnt], self._changes(half_depth), events
