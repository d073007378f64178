"""Ranking of the kept pairs by how much an answer rests on them, from the attention to their cached keys.

While an answer is generated, a recorder keeps the inputs of some attention layers: for the last tokens of the question
and the first tokens of the answer. Afterwards the queries of these tokens are computed once more and compared with the
keys of each pair, which are in the cache. The model computes the answer as without a recorder, with its own attention
implementation, so the answer does not change.

Only the pairs compete for the attention of a token: tokens that attract all attention, such as the first ones of the
prompt, do not count. Which heads look for what a question is about differs between checkpoints. The config of a
checkpoint may have weights of its heads in ``pair_evidence``; ``lab evidence-heads`` fits them on synthetic scenes.
Without them, the heads of the second half of the layers have equal weights.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import Cache

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, NonFiniteError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.local.oom import is_out_of_memory
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout
from delayed_vlm_ros.inference.request import MAX_EVIDENCE, Evidence
from delayed_vlm_ros.memory import Snapshot

FITTED_WEIGHTS = "pair_evidence"
"""Field of a checkpoint's config with the fitted weights of its heads."""

QUESTION, FIRST, ANSWER = "question", "first", "answer"
TOKEN_GROUPS = (QUESTION, FIRST, ANSWER)
"""Tokens whose attention is compared: the question (its largest share counts), the last token of the prompt, from which
the first token of the answer is computed, and the answer (its mean share counts)."""

_MAX_TOKENS = 64  # of the question and of the answer each: bounds the memory of the recorder
_MAX_LAYERS = 8  # without fitted weights
_MAX_LOGITS = 2**24  # computed together
_SMALLEST_LOG_SHARE = -8.0  # smaller shares are rounding
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The evidence of an answer.

    Attributes:
        evidence: The pairs that the answer rests on most, best first; empty if there is no ranking.
        warnings: Why there is none, one sentence each.
    """

    evidence: tuple[Evidence, ...] = ()
    warnings: tuple[str, ...] = ()


NO_RANKING = Ranking()
"""The ranking of an answer for which none was requested."""


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """Weights of the attention heads.

    Attributes:
        layers: Numbers of the layers that are used.
        by_group: Weights by group of tokens, shape ``(layers, heads)`` each; None: the shares of the last token of the
            prompt count equally in all heads.
    """

    layers: tuple[int, ...]
    by_group: Mapping[str, torch.Tensor] | None = None


@dataclass(slots=True)
class _LayerInputs:
    """Inputs of an attention layer, each of shape (1, tokens, size): hidden states, and both rotary factors."""

    hidden: list[torch.Tensor]
    cosine: list[torch.Tensor]
    sine: list[torch.Tensor]


def head_weights(model: Any) -> HeadWeights:
    """Return the weights of a model's heads.

    Args:
        model: Model from transformers.

    Raises:
        ValueError: It has no attention layers, or the fitted weights in its config do not fit them.
    """
    layers = _attention_layers(model)
    fitted = getattr(model.config, FITTED_WEIGHTS, None)
    if fitted is not None:
        return _parsed_weights(fitted, layers, int(model.config.text_config.num_attention_heads))
    if not layers:
        raise ValueError("the model has no attention layers to rank the pairs by")
    usable = sorted(layers)[len(layers) // 2 :]
    step = -(-len(usable) // _MAX_LAYERS)
    return HeadWeights(tuple(usable[::-1][::step][::-1]))


def _parsed_weights(fitted: Any, layers: Mapping[int, Any], heads: int) -> HeadWeights:
    try:
        numbers = tuple(int(number) for number in fitted["layers"])
        weights = {group: torch.tensor(fitted[group], dtype=torch.float32) for group in TOKEN_GROUPS}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{FITTED_WEIGHTS} lacks weights of {', '.join(TOKEN_GROUPS)}: {error}") from error
    if not set(numbers) <= set(layers) or any(one.shape != (len(numbers), heads) for one in weights.values()):
        raise ValueError(f"{FITTED_WEIGHTS} does not fit the model's {len(layers)} attention layers of {heads} heads")
    if not all(bool(one.isfinite().all()) for one in weights.values()):
        raise ValueError(f"{FITTED_WEIGHTS} has weights that are not finite")
    return HeadWeights(numbers, weights)


def _attention_layers(model: Any) -> dict[int, Any]:
    """Return the attention modules by number of the layer; recurrent layers have none."""
    layers = enumerate(model.model.language_model.layers)
    return {number: layer.self_attn for number, layer in layers if hasattr(layer, "self_attn")}


class AttentionRecorder:
    """Keeps the inputs of attention layers while it is entered.

    Args:
        model: Model from transformers.
        weights: Weights of its heads, with the layers to record.

    Attributes:
        weights: The weights.
        modules: Attention modules by number of the layer.
    """

    def __init__(self, model: Any, weights: HeadWeights) -> None:
        attention = _attention_layers(model)
        self.weights = weights
        self.modules = {number: attention[number] for number in weights.layers}
        self._inputs = {number: _LayerInputs([], [], []) for number in weights.layers}
        self._hooks: list[Any] = []

    def __enter__(self) -> AttentionRecorder:
        self._hooks = [
            module.register_forward_pre_hook(partial(self._record, self._inputs[number]), with_kwargs=True)
            for number, module in self.modules.items()
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def question_tokens(self) -> int:
        """Tokens of the question that were kept."""
        return int(next(iter(self._inputs.values())).hidden[0].shape[1])

    def inputs(self, layer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return hidden states and rotary factors of a layer, shape (1, tokens, size) each."""
        kept = self._inputs[layer]
        return torch.cat(kept.hidden, 1), torch.cat(kept.cosine, 1), torch.cat(kept.sine, 1)

    @staticmethod
    def _record(kept: _LayerInputs, _: Any, __: Any, options: Mapping[str, Any]) -> None:
        if len(kept.hidden) > _MAX_TOKENS:  # the question and the first tokens of the answer
            return
        hidden, (cosine, sine) = options["hidden_states"], options["position_embeddings"]
        if hidden.shape[1] > _MAX_TOKENS:  # a slice alone would keep all of it
            hidden, cosine, sine = (one[:, -_MAX_TOKENS:].clone() for one in (hidden, cosine, sine))
        kept.hidden.append(hidden)
        kept.cosine.append(cosine)
        kept.sine.append(sine)


@contextmanager
def recorded_attention(model: Any, *, wanted: bool) -> Iterator[AttentionRecorder | str]:
    """Record the attention inputs of a model inside the context; yield the reason if that is not possible or wanted."""
    if not wanted:
        yield "it was not requested"
        return
    try:
        weights = head_weights(model)
    except ValueError as error:
        yield str(error)
        return
    with AttentionRecorder(model, weights) as recorder:
        yield recorder


def rank_evidence(
    recorder: AttentionRecorder | str,
    snapshot: Snapshot,
    prompt: Prompt,
    layout: VideoLayout,
    cache: Cache,
    control: AskControl,
) -> Ranking:
    """Return the evidence of a complete answer. A failure costs the evidence, with a warning, and never the answer.

    Args:
        recorder: Inputs of the attention layers while the answer was generated, or why there are none.
        snapshot: The pairs of the question, oldest first.
        prompt: Prompt of the question.
        layout: Layout of the pairs.
        cache: Keys and values of the prompt and the answer.
        control: Control of the question.

    Raises:
        AskCancelledError: The question was cancelled.
    """
    if isinstance(recorder, str):
        return Ranking(warnings=(f"no evidence: {recorder}",))
    try:
        relevance = rank_pairs(recorder, prompt, layout, cache, control)
    except AskCancelledError:
        raise
    except Exception as error:  # noqa: BLE001  the answer is complete
        return Ranking(warnings=(f"no evidence: {_why_unranked(error)}",))
    best = sorted(range(len(relevance)), key=lambda number: -relevance[number])[:MAX_EVIDENCE]
    return Ranking(tuple(Evidence(snapshot[number], relevance[number]) for number in best))


def _why_unranked(error: Exception) -> str:
    if isinstance(error, AskTimeoutError):
        return "the deadline passed when the answer was complete"
    if is_out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # its tensors would live as long as the error
        return "the device had too little memory left to rank the pairs"
    if not isinstance(error, NonFiniteError):
        _LOGGER.error("cannot rank the pairs of an answer", exc_info=error)
    return f"the pairs cannot be ranked ({type(error).__name__}: {error})"


@torch.inference_mode()
def rank_pairs(
    recorder: AttentionRecorder,
    prompt: Prompt,
    layout: VideoLayout,
    cache: Cache,
    control: AskControl,
) -> list[float]:
    """Return how much an answer rests on each pair, as shares that add up to 1.

    Args:
        recorder: Inputs of the layers while the answer was generated.
        prompt: Prompt of the question.
        layout: Layout of the pairs.
        cache: Keys and values of the prompt and the answer.
        control: Control of the question, checked between layers.

    Raises:
        AskCancelledError: The question was cancelled.
        AskTimeoutError: The deadline has passed.
        NonFiniteError: The attention contains NaN or infinity.
    """
    log_shares = attention_log_shares(recorder, prompt, layout, cache, control)
    check_finite(log_shares, "attention to the kept pairs")
    weights, asked = recorder.weights.by_group, recorder.question_tokens
    if weights is None:
        relevance = log_shares[:, :, asked - 1].exp().mean((0, 1))
    else:
        groups = grouped_shares(log_shares, asked)
        scores = [torch.einsum("lh,lhp->p", weights[group].to(one.device), one) for group, one in groups.items()]
        relevance = torch.stack(scores).sum(0).softmax(-1)
    return list(map(float, (relevance / relevance.sum()).tolist()))


@torch.inference_mode()
def attention_log_shares(
    recorder: AttentionRecorder, prompt: Prompt, layout: VideoLayout, cache: Cache, control: AskControl
) -> torch.Tensor:
    """Return the logarithms of the pairs' shares of each token's attention, shape (layers, heads, tokens, pairs).

    The tokens are those of the question, then those of the answer. Arguments and errors are those of ``rank_pairs``.
    """
    visual = visual_token_indices(prompt, layout)
    shares = []
    for layer, module in recorder.modules.items():
        control.check()
        queries = _queries(module, *recorder.inputs(layer))
        keyed: Any = cache.layers[layer]
        shares.append(_log_shares(queries * float(module.scaling), keyed.keys, visual))
    return torch.stack(shares).clamp(min=_SMALLEST_LOG_SHARE)


def grouped_shares(log_shares: torch.Tensor, question_tokens: int) -> dict[str, torch.Tensor]:
    """Return the logarithms of the shares of each group of tokens, shape (layers, heads, pairs) each.

    Args:
        log_shares: Logarithms of the shares, shape (layers, heads, tokens, pairs).
        question_tokens: Tokens of the question; the others are of the answer.
    """
    first = log_shares[:, :, question_tokens - 1]
    answer = log_shares[:, :, question_tokens:]
    return {
        QUESTION: log_shares[:, :, :question_tokens].amax(2),
        FIRST: first,
        ANSWER: answer.mean(2) if answer.shape[2] else first,
    }


def visual_token_indices(prompt: Prompt, layout: VideoLayout) -> torch.Tensor:
    """Return the place of each visual token in the prompt, shape (pairs, tokens of a pair)."""
    starts, start = [], len(prompt.before)
    for text in layout.pair_texts:
        starts.append(start + len(text.before))
        start = starts[-1] + layout.tokens_per_pair + len(text.after)
    return torch.tensor(starts)[:, None] + torch.arange(layout.tokens_per_pair)


def _queries(attention: Any, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Return the queries of an attention module, shape (heads, tokens, head size), as it computes them itself."""
    projected = attention.q_proj(hidden)
    heads = int(attention.config.num_attention_heads)
    queries = projected.view(1, hidden.shape[1], heads, -1)[..., : int(attention.head_dim)]  # a gate may follow
    if hasattr(attention, "q_norm"):
        queries = attention.q_norm(queries)
    queries = queries.transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    rotated: torch.Tensor = rotate(queries, queries, cosine, sine)[0]
    return rotated[0]


def _log_shares(queries: torch.Tensor, keys: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of the pairs' shares of the attention to all pairs, shape (heads, tokens, pairs).

    Args:
        queries: Scaled queries, shape (heads, tokens, head size).
        keys: Cached keys, shape (1, key heads, tokens, head size); several heads may share one.
        visual: Place of each visual token, shape (pairs, tokens of a pair).
    """
    pairs, per_pair = visual.shape
    chosen = keys[0].index_select(1, visual.flatten().to(keys.device))
    grouped = queries.reshape(len(chosen), -1, queries.shape[-1])  # heads that share keys follow each other
    rows = max(1, _MAX_LOGITS // (len(chosen) * pairs * per_pair))
    parts = [
        (some @ chosen.transpose(1, 2)).float().view(len(chosen), -1, pairs, per_pair).logsumexp(-1)
        for some in grouped.split(rows, 1)
    ]
    return torch.cat(parts, 1).view(len(queries), -1, pairs).log_softmax(-1)
