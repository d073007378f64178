"""The shortest times that a GPU's bandwidth and arithmetic allow for a question, computed. Needs no torch.

Each step reads the weights that it uses once and computes its products; the slower of the two counts. Real times are
longer: kernels reach a part of either rate, and starting them takes time, which these bounds leave out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import CacheBytes, cache_bytes, chunk_pairs
from delayed_vlm_ros.inference.local.gpus import Gpu
from delayed_vlm_ros.inference.local.models.layer_types import RECURRENT_LAYER, layer_types

QUESTION_TOKENS = 32
"""Tokens of a short question with the chat template."""

_GATED = "qwen2_5_vl"  # its vision layers have three matrices after the attention, others two


@dataclass(frozen=True, slots=True)
class TimePlan:
    """Lower bounds for a full memory, in s: until the first token of an answer, and for each further one.

    Attributes:
        first_question: Nothing is encoded.
        new_pair: All but the newest pair is encoded, and nothing was evicted.
        next_question: Everything is encoded.
        token: One token of the answer.
    """

    first_question: float
    new_pair: float
    next_question: float
    token: float


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of weights in device memory.

    Attributes:
        vision: Those of the vision encoder.
        layers: Those of the language model's layers.
        head: Those of the matrix that computes the logits.
    """

    vision: int
    layers: int
    head: int


def weight_parts(
    config: Mapping[str, Any], parameters: int, vision_parameters: int, element_bytes: int, *, is_tied: bool
) -> WeightBytes:
    """Divide the weights of a model.

    Args:
        config: Fields of the checkpoint's ``config.json``.
        parameters: Number of parameters of the model; tied embeddings count once.
        vision_parameters: Those of its vision encoder.
        element_bytes: Bytes of one number in the model's dtype.
        is_tied: Whether one matrix embeds tokens and computes logits.
    """
    text = config.get("text_config") or config
    embedding = int(text["vocab_size"]) * int(text["hidden_size"])
    layers = max(0, parameters - vision_parameters - embedding * (1 if is_tied else 2))  # 0: a quantised embedding
    return WeightBytes(vision_parameters * element_bytes, layers * element_bytes, embedding * element_bytes)


def plan_times(
    config: Mapping[str, Any], weights: WeightBytes, gpu: Gpu, *, element_bytes: int, pairs: int, pair_tokens: int
) -> TimePlan:
    """Compute lower bounds of a question's times.

    Args:
        config: Fields of the checkpoint's ``config.json``.
        weights: Weights of the model.
        gpu: The GPU.
        element_bytes: Bytes of one number in the model's dtype.
        pairs: Pairs of frames in a full memory.
        pair_tokens: Merged visual tokens of a pair.

    Raises:
        UnsupportedModelError: The config lacks the sizes of the model.
    """
    token = cache_bytes(config, element_bytes)
    reader = _LanguageModel(weights, token, _attention_width(config), gpu, element_bytes)
    tokens_per_pair = pair_tokens + token.pair_text_tokens
    step = chunk_pairs(pair_tokens)
    starts = range(0, pairs, step)
    prefill = sum(
        reader.seconds(min(step, pairs - start) * tokens_per_pair, start * tokens_per_pair) for start in starts
    )
    encoding = _encoding_seconds(config, weights, gpu, pair_tokens)
    question = reader.seconds(QUESTION_TOKENS, pairs * tokens_per_pair, has_head=True)
    return TimePlan(
        first_question=pairs * encoding + prefill + question,
        new_pair=encoding + reader.seconds(tokens_per_pair, (pairs - 1) * tokens_per_pair) + question,
        next_question=question,
        token=reader.seconds(1, pairs * tokens_per_pair + QUESTION_TOKENS, has_head=True),
    )


@dataclass(frozen=True, slots=True)
class _LanguageModel:
    """Time of a step of the language model.

    Attributes:
        weights: Weights of the model.
        token: Bytes of the caches.
        attention_width: Sum of the widths of the queries of all layers with keys and values.
        gpu: The GPU.
        element_bytes: Bytes of one number in the model's dtype.
    """

    weights: WeightBytes
    token: CacheBytes
    attention_width: int
    gpu: Gpu
    element_bytes: int

    def seconds(self, tokens: int, before: int, *, has_head: bool = False) -> float:
        """Return the time of a step that reads ``tokens`` after ``before`` earlier ones, and computes logits or not."""
        head = self.weights.head if has_head else 0
        products = 2 * (tokens * self.weights.layers + head) / self.element_bytes
        attention = 4 * self.attention_width * tokens * (before + tokens / 2)
        read = self.weights.layers + head + before * self.token.kv + self.token.state
        return max((products + attention) / self.gpu.arithmetic, read / self.gpu.bandwidth)


def _attention_width(config: Mapping[str, Any]) -> int:
    text = config.get("text_config") or config
    heads = int(text["num_attention_heads"])
    head = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
    return heads * head * sum(kind != RECURRENT_LAYER for kind in layer_types(text))


def _encoding_seconds(config: Mapping[str, Any], weights: WeightBytes, gpu: Gpu, pair_tokens: int) -> float:
    """Return the time of encoding a pair, of which the products in the layers count."""
    vision = config.get("vision_config") or {}
    patches = pair_tokens * int(vision.get("spatial_merge_size", 2)) ** 2
    try:
        depth = int(vision["depth"])
        width = int(vision.get("embed_dim") or vision["hidden_size"])  # in Qwen2-VL, hidden_size is the output
        inner = int(vision.get("intermediate_size") or width * vision["mlp_ratio"])
    except KeyError as error:
        raise UnsupportedModelError(f"the model's vision_config lacks {error}: download its files again") from None
    matrices = 3 if config.get("model_type") == _GATED else 2
    layer = 4 * width**2 + matrices * width * inner
    full = len(vision.get("fullatt_block_indexes") or range(depth))  # other layers attend to windows
    operations = 2 * patches * depth * layer + 4 * full * width * patches**2
    return max(operations / gpu.arithmetic, weights.vision / gpu.bandwidth)
