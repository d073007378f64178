"""Cost and provenance of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from delayed_vlm_ros.inference.finish import STOP, FinishReason, worst_reason


@dataclass(frozen=True, slots=True)
class AskMetrics(Mapping[str, Any]):
    """Cost and provenance of one answer, readable as attributes or as a mapping.

    As a mapping, ``encoding_latency`` is absent when nothing had to be encoded.

    Attributes:
        total_latency: Time from the start of the question to the complete answer, in seconds.
        encoding_latency: Time of vision encoding and prefill of the video, in seconds; None when the cached KV covered
            the whole video, or a server encoded it.
        generation_latency: Time to prefill the question and decode the answer, in seconds.
        time_to_first_token: Time from the start of the question to the first token of the answer, in seconds.
        frames_encoded: Frames that went through the vision encoder for this question.
        frames_reused: Frames whose features were cached by an earlier question.
        visual_tokens: Merged visual tokens in the prompt.
        kv_cache_length: Tokens of prompt and answer in the KV cache at the end.
        kv_tokens_reused: Tokens of the prompt whose KV was cached by an earlier question.
        answer_tokens: Generated tokens, the end token included.
        video_grid_thw: Temporal, height and width patches of the encoded video; of several videos, one after another;
            empty if a server encoded it.
        exact: Whether no approximate method was used: the answer equals native video inference up to rounding.
        warnings: Limitations of this answer, one sentence each.
        finish_reason: Why the answer ended: ``stop`` (complete), ``length`` (cut at ``max_new_tokens``) or
            ``repetition`` (stopped in a loop).
        bytes_sent: Bytes sent to a model server; 0 if the model is on this machine.
    """

    total_latency: float
    encoding_latency: float | None
    generation_latency: float
    time_to_first_token: float
    frames_encoded: int
    frames_reused: int
    visual_tokens: int
    kv_cache_length: int
    kv_tokens_reused: int
    answer_tokens: int
    video_grid_thw: tuple[int, ...]
    exact: bool
    warnings: tuple[str, ...]
    finish_reason: FinishReason = STOP
    bytes_sent: int = 0

    def __getitem__(self, key: str) -> Any:
        value = getattr(self, key) if key in _NAMES else None
        if value is None:
            raise KeyError(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in _NAMES if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def combine_metrics(metrics: Sequence[AskMetrics]) -> AskMetrics:
    """Return the total cost, and the worst finish reason, of questions that were answered one after another."""
    encoding = [one.encoding_latency for one in metrics if one.encoding_latency is not None]
    return AskMetrics(
        total_latency=sum(one.total_latency for one in metrics),
        encoding_latency=sum(encoding) if encoding else None,
        generation_latency=sum(one.generation_latency for one in metrics),
        time_to_first_token=metrics[0].time_to_first_token,
        frames_encoded=sum(one.frames_encoded for one in metrics),
        frames_reused=sum(one.frames_reused for one in metrics),
        visual_tokens=sum(one.visual_tokens for one in metrics),
        kv_cache_length=sum(one.kv_cache_length for one in metrics),
        kv_tokens_reused=sum(one.kv_tokens_reused for one in metrics),
        answer_tokens=sum(one.answer_tokens for one in metrics),
        video_grid_thw=tuple(size for one in metrics for size in one.video_grid_thw),
        exact=all(one.exact for one in metrics),
        warnings=tuple(dict.fromkeys(warning for one in metrics for warning in one.warnings)),
        finish_reason=worst_reason(one.finish_reason for one in metrics),
        bytes_sent=sum(one.bytes_sent for one in metrics),
    )


_NAMES = tuple(field.name for field in fields(AskMetrics))
