"""How many bytes may be kept between asks, and what goes first where they do not suffice.

Pixels are reserved: the caches never decide which frames are kept. Of the rest, the KV of the prefix goes first, since
it is the largest and is worth nothing once the oldest pair is gone; then vision features, those of pairs that only
Stream memory holds before the others, the oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import ConfigurationError, UnsupportedModelError
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import Snapshot
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

BYTES_PER_MB = 10**6


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """Bytes of one merged visual token.

    Attributes:
        features: What the vision encoder says of it.
        kv: Its keys and values in all layers.
    """

    features: int
    kv: int


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes that may be kept between asks.

    Attributes:
        total: All of them.
        pixels: Of these, reserved for the images of a full memory.
        token: What a merged visual token costs.
        full_tokens: Merged visual tokens of a full memory, at most.
    """

    total: int
    pixels: int
    token: TokenBytes
    full_tokens: int

    @property
    def caches(self) -> int:
        """What is left for vision features and KV."""
        return self.total - self.pixels

    def holds(self, visual_tokens: int, kv_tokens: int) -> bool:
        """Whether the features of so many visual tokens can be kept, and beside them the KV of so many tokens."""
        return visual_tokens * self.token.features + kv_tokens * self.token.kv <= self.caches


def token_bytes(text_config: Mapping[str, Any], element_bytes: int) -> TokenBytes:
    """What a merged token costs a model.

    Args:
        text_config: The fields of the language model's config.
        element_bytes: Of one number in the model's dtype.

    Raises:
        UnsupportedModelError: The config does not say how large the model is.
    """
    try:
        hidden, heads = int(text_config["hidden_size"]), int(text_config["num_attention_heads"])
        keys = int(text_config["num_hidden_layers"]) * int(text_config.get("num_key_value_heads") or heads)
        head = int(text_config.get("head_dim") or hidden // heads)
    except KeyError as error:
        raise UnsupportedModelError(f"the model's config lacks {error}: fetch its files again") from None
    return TokenBytes(hidden * element_bytes, 2 * keys * head * element_bytes)


def plan_budget(
    memory_budget_mb: float, frames: int, geometry: FrameGeometry, token: TokenBytes, *, shares: int = 1
) -> MemoryBudget:
    """Divide a budget.

    Args:
        memory_budget_mb: All that may be kept, in MB of 10**6 bytes.
        frames: Most frames in a memory.
        geometry: The frames' sizes.
        token: What a merged token costs.
        shares: Memories that share it, in equal parts.

    Returns:
        The part of one memory.

    Raises:
        ConfigurationError: There would be no room for the encoding of a single pair beside the images.
    """
    only = geometry.only_size
    max_pixels = geometry.max_pixels if only is None else only.height * only.width
    pair_tokens = max_pixels // geometry.factor**2
    budget = MemoryBudget(
        total=int(memory_budget_mb / shares * BYTES_PER_MB),
        pixels=frames * max_pixels * 3,
        token=token,
        full_tokens=frames // FRAMES_PER_PAIR * pair_tokens,
    )
    pair = pair_tokens * (token.features + token.kv)
    if budget.caches < pair:
        needed = shares * (budget.pixels + pair) / BYTES_PER_MB
        sharers, each = ("", "") if shares == 1 else (f" for {shares} cameras", " of each camera")
        raise ConfigurationError(
            f"memory_budget_mb is {memory_budget_mb:g}{sharers}, but the images of {frames} frames and the encoding "
            f"of one pair{each} need {needed:.1f}: raise it, or lower max_pixels or the memory sizes"
        )
    return budget


def by_worth(snapshot: Snapshot) -> list[bytes]:
    """The content keys of pairs whose features are worth keeping, the most worth first."""
    newest_first = sorted(snapshot, key=lambda kept: (kept.in_star, kept.stamps[0]), reverse=True)
    return [kept.content_key for kept in newest_first]
