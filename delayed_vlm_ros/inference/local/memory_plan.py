"""The device memory that a model needs when its scene memory is full, computed before it is loaded. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.budget import (
    PROMPT_TOKENS,
    SAVED_STATES,
    cache_bytes,
    chunk_pairs,
    round_up_capacity,
)
from delayed_vlm_ros.memory.frame import FRAMES_PER_PAIR

_SCORE_BYTES = 2 + 4 + 4  # an attention score, and input and output of its softmax in float32
_PATCH_BYTES = 4  # of a patch element from the processor; in the model's dtype it is copied once

OTHER_BYTES = 10**9
"""Estimate of the CUDA context and libraries, and of the fragmentation of the allocator."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model and full memories need.

    Attributes:
        weights: Weights of the model.
        pair_tokens: Merged visual tokens of a pair of frames.
        images: Kept frames, in host memory.
        features: Their vision features.
        kv: KV caches at their allocated capacity.
        states: Saved recurrent states.
        spare_kv: KV cache and states of a question that is limited in time, which are computed apart.
        working: The larger of one pair's vision encoding and one step of the prefill.
    """

    weights: int
    pair_tokens: int
    images: int
    features: int
    kv: int
    states: int
    spare_kv: int
    working: int

    @property
    def kept(self) -> int:
        """Bytes of device memory that stay between questions, without the weights."""
        return self.features + self.kv + self.states

    @property
    def peak(self) -> int:
        """Largest use of device memory in bytes."""
        return self.weights + self.kept + self.spare_kv + self.working + OTHER_BYTES


def plan_memory(
    config: Mapping[str, Any],
    *,
    parameters: int,
    element_bytes: int,
    frames: int,
    frame_pixels: int,
    factor: int,
    cameras: int = 1,
) -> MemoryPlan:
    """Compute the memory that a model needs.

    Args:
        config: Fields of the checkpoint's ``config.json``.
        parameters: Number of parameters of the model.
        element_bytes: Bytes of one number in the model's dtype.
        frames: Capacity of one camera's memory in frames.
        frame_pixels: Largest height × width of a frame.
        factor: Divisor of both image sides, in pixels.
        cameras: Number of cameras, each with a memory of its own.

    Raises:
        UnsupportedModelError: The config lacks the sizes of the language model.
    """
    text = config.get("text_config") or config
    token = cache_bytes(config, element_bytes)
    pair_tokens = frame_pixels // factor**2
    visual_tokens = frames // FRAMES_PER_PAIR * pair_tokens
    pair_texts = frames // FRAMES_PER_PAIR * token.pair_text_tokens
    kv_tokens = round_up_capacity(visual_tokens + pair_texts + PROMPT_TOKENS)
    kv, states = kv_tokens * token.kv, SAVED_STATES * token.state
    return MemoryPlan(
        weights=parameters * element_bytes,
        pair_tokens=pair_tokens,
        images=cameras * frames * frame_pixels * 3,
        features=cameras * visual_tokens * token.features,
        kv=cameras * kv,
        states=cameras * states,
        spare_kv=kv + states + token.state,  # a running question works on a copy of the state
        working=max(
            _vision_bytes(config.get("vision_config") or {}, pair_tokens, element_bytes),
            _prefill_bytes(text, pair_tokens, kv_tokens, element_bytes),
        ),
    )


def _vision_bytes(vision: Mapping[str, Any], pair_tokens: int, element_bytes: int) -> int:
    """Return the working memory of encoding a pair: pixels, activations of a layer and attention scores, in bytes."""
    patches = pair_tokens * int(vision.get("spatial_merge_size", 2)) ** 2
    elements = 3 * int(vision.get("temporal_patch_size", 2)) * int(vision.get("patch_size", 14)) ** 2
    width = int(vision.get("embed_dim") or vision.get("hidden_size", 1280))  # in Qwen2-VL, hidden_size is the output
    activations = 16 * width * element_bytes
    scores = int(vision.get("num_heads", 16)) * patches**2 * _SCORE_BYTES
    return patches * (elements * (_PATCH_BYTES + element_bytes) + activations) + scores


def _prefill_bytes(text: Mapping[str, Any], pair_tokens: int, kv_tokens: int, element_bytes: int) -> int:
    """Return the working memory of a step of the prefill: activations, keys, values, scores and logits, in bytes."""
    hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    if "vocab_size" not in text:
        raise UnsupportedModelError("the model's config lacks 'vocab_size': download its files again")
    head = int(text.get("head_dim") or hidden // heads)
    step = chunk_pairs(pair_tokens) * pair_tokens
    activations = step * (8 * hidden + 4 * int(text.get("intermediate_size", 4 * hidden))) * element_bytes
    repeated = 2 * kv_tokens * heads * head * element_bytes
    return activations + repeated + heads * step * kv_tokens * _SCORE_BYTES + int(text["vocab_size"]) * _SCORE_BYTES
