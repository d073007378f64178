"""Prefill of the segments that a prefix cache lacks, in chunks of whole pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.budget import chunk_pairs
from delayed_vlm_ros.inference.local.cache.prefix import PrefixCache, Segment
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout


def valid_segments(
    prefix: PrefixCache, segments: Sequence[Segment], common: int, chunk: int, *, canonical: bool
) -> int:
    """Return how many of the cached segments can be used; the prefill starts with the next one.

    Args:
        prefix: The cache.
        segments: Segments of the prompt: the text, then each pair.
        common: Number of cached segments that equal the first of ``segments``.
        chunk: Pairs per chunk.
        canonical: Whether to start only where a cold run would start a chunk, too.
    """
    if common == len(segments) == len(prefix.segments):
        return common
    if canonical:
        whole = max(0, common - 1) // chunk * chunk
        common = 1 + whole if whole else 0
    return prefix.restorable(common)


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
    """Prefill the segments that the prefix lacks.

    Chunks that are complete when the question ends early stay in the prefix.

    Args:
        model: The library's model.
        prompt: Prompt of the question; only its text before the video is used.
        layout: Layout of the pairs.
        prefix: Cache that holds exactly the first of ``segments``; the others are appended.
        segments: The text, then each pair.
        features: Features of the pairs that the prefix lacks, shape ``(tokens, levels × hidden size)`` each.
        control: Control of the question, checked before every chunk.

    Raises:
        AskCancelledError: The question was cancelled.
        AskTimeoutError: The deadline has passed.
        NonFiniteError: The language model's output contains NaN or infinity; its chunk is not appended.
    """
    ids = torch.tensor([layout.token_ids(prompt)])
    positions = layout.positions(prompt)
    video_output = adapter_for(model.config).video_output
    held = max(0, len(prefix.segments) - 1)
    for first, last in _chunks(len(prefix.segments), len(segments), chunk_pairs(layout.tokens_per_pair)):
        control.check()
        start = prefix.length
        part = slice(start, start + sum(segment.tokens for segment in segments[first:last]))
        pairs = features[max(0, first - 1) - held : last - 1 - held]
        cache = prefix.fork()
        output = model.model(
            input_ids=ids[:, part].to(model.device),
            mm_encoder_outputs={"video": video_output(model.config, pairs)},
            position_ids=positions[..., part].to(model.device),
            past_key_values=cache,
            use_cache=True,
        )
        check_finite(output.last_hidden_state, "hidden states of the video")
        prefix.extend(cache, segments[first:last])
    control.check()


def _chunks(first: int, end: int, chunk: int) -> Iterator[tuple[int, int]]:
    """Yield the segments ``[first, end)`` in parts that end where a cold run's chunks end.

    The text belongs to the chunk of the first pairs.
    """
    while first < end:
        pairs_before = max(0, first - 1)
        last = min(end, 1 + (pairs_before // chunk + 1) * chunk)
        yield first, last
        first = last
