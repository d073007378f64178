"""Prefill what a prefix cache lacks, in chunks of whole pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.cache.prefix import PrefixCache, Segment
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout

_CHUNK_TOKENS = 256  # at most, but at least one pair


def chunk_pairs(tokens_per_pair: int) -> int:
    """How many pairs of so many merged tokens are prefilled at once."""
    return max(1, _CHUNK_TOKENS // tokens_per_pair)


def first_missing(prefix: PrefixCache, segments: Sequence[Segment], chunk: int, *, canonical: bool) -> int:
    """The number of the first segment to prefill.

    Args:
        prefix: What is held.
        segments: What is wanted: the text, then each pair.
        chunk: Pairs of a chunk.
        canonical: Whether to begin where a cold run would begin a chunk, too.
    """
    common_prefix_length = prefix.common_prefix_length(segments)
    if not canonical or common_prefix_length == 0:
        return common_prefix_length
    if common_prefix_length == len(segments) == len(prefix.segments):
        return common_prefix_length
    whole = (common_prefix_length - 1) // chunk * chunk
    return 1 + whole if whole else 0


@torch.inference_mode()
def prefill(
    model: Any,
    prompt: Prompt,
    layout: VideoLayout,
    prefix: PrefixCache,
    segments: Sequence[Segment],
    features: Sequence[torch.Tensor],
    control: AskControl,
) -> None:
    """Prefill the segments behind those that the prefix holds.

    What is prefilled when an ask ends early stays in the prefix.

    Args:
        model: The library's model.
        prompt: Its text before the video is used.
        layout: The pairs' places.
        prefix: Holds the first of ``segments`` and nothing else; is extended by the others.
        segments: The text, then each pair.
        features: Of the pairs that the prefix lacks, ``(tokens, hidden size)`` each.
        control: Looked at before every chunk.

    Raises:
        AskCancelledError: The ask was cancelled.
        AskTimeoutError: Its deadline has passed.
        NonFiniteError: The language model's output contains NaN or infinity; its chunk is not taken over.
    """
    ids = torch.tensor([prompt.token_ids(layout.visual_tokens)])
    positions = layout.positions(prompt)
    held = max(0, len(prefix.segments) - 1)
    for first, last in _chunks(len(prefix.segments), len(segments), chunk_pairs(layout.tokens_per_pair)):
        control.check()
        start = prefix.length
        part = slice(start, start + sum(segment.tokens for segment in segments[first:last]))
        pairs: Any = tuple(features[max(0, first - 1) - held : last - 1 - held])
        cache = prefix.fork()
        output = model.model(
            input_ids=ids[:, part].to(model.device),
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=pairs)},
            position_ids=positions[..., part].to(model.device),
            past_key_values=cache,
            use_cache=True,
        )
        check_finite(output.last_hidden_state, "hidden states of the video")
        prefix.extend(cache, segments[first:last])
    control.check()


def _chunks(first: int, end: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Segments ``[first, end)`` in parts that end where a cold run's chunks end; the text goes with the first pairs."""
    while first < end:
        pairs_before = max(0, first - 1)
        last = min(end, 1 + (pairs_before // chunk + 1) * chunk)
        yield first, last
        first = last
