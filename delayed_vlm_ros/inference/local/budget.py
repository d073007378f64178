"""The bytes that may be kept between questions, and the order of eviction when they do not suffice.

Pixels are reserved: the caches never decide which frames are kept. Of the rest, the KV of the prefix is evicted first,
because it is the largest part and becomes useless when the oldest pair leaves. Vision features follow: pairs that only
Stream memory holds before the others, oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, UnsupportedModelError
from delayed_vlm_ros.inference.local.models.adapters.registry import MODEL_FACTS
from delayed_vlm_ros.inference.local.models.layer_types import RECURRENT_LAYER, layer_types
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import Snapshot
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

BYTES_PER_MB = 10**6

MAX_CHUNK_TOKENS = 256
"""Largest number of merged tokens that one step of the prefill reads; a step reads at least one pair."""

SAVED_STATES = 3
"""Largest number of recurrent states that a prefix keeps, the initial one not counted."""

PROMPT_TOKENS = 1024
"""Estimate of the tokens of a prompt without its video: system prompt, question, and 512 reserved for the answer."""

_PAIR_TEXT_TOKENS = 16  # "<12345.6 seconds>" with a token for each digit, start and end of vision
_STATE_ELEMENT_BYTES = 4  # of the recurrent state, which is float32 in every dtype
_CAPACITY_STEP = 256  # tokens; buffers of the KV cache grow in steps of this size


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Bytes of the caches: for each token, and for the state that all tokens share.

    Attributes:
        features: Bytes of the vision features of a merged visual token.
        kv: Bytes of the keys and values of a token in all layers.
        state: Bytes of a recurrent state in all layers; 0 without recurrent layers.
        pair_text_tokens: Text tokens before and after a pair.
    """

    features: int
    kv: int
    state: int = 0
    pair_text_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that may be kept between questions.

    Attributes:
        total: All bytes.
        pixels: Bytes reserved for the images of a full memory.
        token: Bytes of a token and of the state.
        full_tokens: Largest number of merged visual tokens of a full memory.
        full_kv_tokens: Largest capacity of its prefix, in tokens.
    """

    total: int
    pixels: int
    token: CacheBytes
    full_tokens: int
    full_kv_tokens: int

    @property
    def caches(self) -> int:
        """Bytes left for vision features and KV."""
        return self.total - self.pixels

    def holds(self, visual_tokens: int, kv_tokens: int) -> bool:
        """Return whether the features of ``visual_tokens`` and the prefix of ``kv_tokens`` fit together."""
        states = SAVED_STATES * self.token.state if kv_tokens else 0
        return visual_tokens * self.token.features + kv_tokens * self.token.kv + states <= self.caches


def chunk_pairs(tokens_per_pair: int) -> int:
    """Return the pairs per step of the prefill, for pairs of ``tokens_per_pair`` merged tokens."""
    return max(1, MAX_CHUNK_TOKENS // tokens_per_pair)


def round_up_capacity(tokens: int) -> int:
    """Return the capacity in tokens of a KV cache that needs to hold ``tokens``."""
    return -(-tokens // _CAPACITY_STEP) * _CAPACITY_STEP


def cache_bytes(config: Mapping[str, Any], element_bytes: int) -> CacheBytes:
    """Return the bytes of the caches of a model.

    Args:
        config: Fields of the model's config.
        element_bytes: Bytes of one number in the model's dtype.

    Raises:
        UnsupportedModelError: The config lacks the sizes of the model.
    """
    text, vision = config.get("text_config") or config, config.get("vision_config") or {}
    try:
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        types = layer_types(text)
        recurrent = types.count(RECURRENT_LAYER)
        keys = (len(types) - recurrent) * int(text.get("num_key_value_heads") or heads)
        head = int(text.get("head_dim") or hidden // heads)
        state = recurrent * _state_bytes(text, element_bytes) if recurrent else 0
    except KeyError as error:
        raise UnsupportedModelError(f"the model's config lacks {error}: download its files again") from None
    levels = 1 + len(vision.get("deepstack_visual_indexes") or ())
    facts = MODEL_FACTS.get(str(config.get("model_type")))
    return CacheBytes(
        features=levels * hidden * element_bytes,
        kv=2 * keys * head * element_bytes,
        state=state,
        pair_text_tokens=_PAIR_TEXT_TOKENS if facts and facts.time_is_text else 0,
    )


def _state_bytes(text: Mapping[str, Any], element_bytes: int) -> int:
    """Return the bytes of the state of one recurrent layer: the end of its convolution's input, and a matrix a head."""
    key, value = int(text["linear_key_head_dim"]), int(text["linear_value_head_dim"])
    key_heads, value_heads = int(text["linear_num_key_heads"]), int(text["linear_num_value_heads"])
    channels = 2 * key_heads * key + value_heads * value
    matrices = value_heads * key * value
    return channels * int(text["linear_conv_kernel_dim"]) * element_bytes + matrices * _STATE_ELEMENT_BYTES


def plan_budget(
    memory_budget_mb: float, frames: int, geometry: FrameGeometry, token: CacheBytes, *, shares: int = 1
) -> MemoryBudget:
    """Divide a budget among memories.

    Args:
        memory_budget_mb: Bytes that all memories may keep, in MB of 10**6 bytes.
        frames: Capacity of one memory in frames.
        geometry: Image sizes of the frames.
        token: Bytes of a token and of the state.
        shares: Number of memories, with equal parts.

    Returns:
        The budget of one memory.

    Raises:
        ConfigurationError: The budget does not hold the images and the encoding of a single pair.
    """
    only = geometry.only_size
    max_pixels = geometry.max_pixels if only is None else only.height * only.width
    pair_tokens, pairs = max_pixels // geometry.factor**2, frames // FRAMES_PER_PAIR
    budget = MemoryBudget(
        total=int(memory_budget_mb / shares * BYTES_PER_MB),
        pixels=frames * max_pixels * 3,
        token=token,
        full_tokens=pairs * pair_tokens,
        full_kv_tokens=round_up_capacity(pairs * (pair_tokens + token.pair_text_tokens) + PROMPT_TOKENS),
    )
    pair = pair_tokens * token.features + (pair_tokens + token.pair_text_tokens) * token.kv + SAVED_STATES * token.state
    if budget.caches < pair:
        needed = shares * (budget.pixels + pair) / BYTES_PER_MB
        cameras, each = ("", "") if shares == 1 else (f" for {shares} cameras", " of each camera")
        raise ConfigurationError(
            f"memory_budget_mb is {memory_budget_mb:g}{cameras}, but the images of {frames} frames and the encoding "
            f"of one pair{each} need {needed:.1f}: raise it, or lower max_pixels or the memory sizes"
        )
    return budget


def retention_order(snapshot: Snapshot) -> list[bytes]:
    """Return the content keys of the pairs, in the order in which their features are kept: most useful first."""
    useful_first = sorted(snapshot, key=lambda kept: (kept.in_star, kept.stamps[0]), reverse=True)
    return [kept.content_key for kept in useful_first]
