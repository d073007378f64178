"""All that is kept between asks of what a model made of the kept frames: vision features, and the KV of one prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import Cache

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.budget import MemoryBudget, by_worth
from delayed_vlm_ros.inference.local.cache.prefill import chunk_pairs, first_missing, prefill
from delayed_vlm_ros.inference.local.cache.prefix import PrefixCache, Segment, segments_of
from delayed_vlm_ros.inference.local.cache.vision import Encoded, VisionFeatureCache, encode_snapshot
from delayed_vlm_ros.inference.local.models.adapters import adapter_of
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout
from delayed_vlm_ros.memory import Snapshot


@dataclass(frozen=True, slots=True)
class CachedBytes:
    """Bytes kept between asks, by storage."""

    features: int
    kv: int


@dataclass(frozen=True, slots=True)
class EncodedPrefix:
    """A prefix ready for its question.

    Attributes:
        cache: All of it.
        tokens_reused: How many of its tokens were held before.
        new_pairs: Numbers of the pairs that went through the vision encoder.
    """

    cache: PrefixCache
    tokens_reused: int
    new_pairs: tuple[int, ...]

    @property
    def is_as_before(self) -> bool:
        """Whether nothing had to be encoded."""
        return self.tokens_reused == self.cache.length


class EncodingCache:
    """Encodes what is new of a memory, and keeps it.

    Used by one thread; ``forget`` and ``cached_bytes`` by any.

    Args:
        model: The library's model.
        processor: Its processor.
        features_on_host: Whether features are kept in the host's memory rather than on the device.
        canonical: Whether to compute warm what a cold run would compute, in the same steps.
        budget: Bytes that may be kept; None: no bound.

    Raises:
        UnsupportedModelError: The model's family is not supported, or its config lacks what that needs.
    """

    def __init__(
        self, model: Any, processor: Any, *, features_on_host: bool, canonical: bool, budget: MemoryBudget | None
    ) -> None:
        self._model = model
        self._processor = processor
        self._family = adapter_of(model.config)
        self._family.check(model.config)
        self._canonical = canonical
        self._budget = budget
        self._features = VisionFeatureCache(on_host=features_on_host)
        self._prefix: PrefixCache | None = None
        self._times_forgotten = 0

    def cached_bytes(self) -> CachedBytes:
        """Bytes held."""
        prefix = self._prefix
        return CachedBytes(self._features.storage_bytes, 0 if prefix is None else prefix.storage_bytes)

    @property
    def generation(self) -> int:
        """How often ``forget`` was called."""
        return self._times_forgotten

    def fork_of_kept(self) -> Cache | None:
        """A fork of the kept prefix, good until the next ask; None where none is kept."""
        prefix = self._prefix
        return None if prefix is None else prefix.fork()

    def forget(self) -> None:
        """Drop everything, and what a running job is about to keep."""
        self._times_forgotten += 1
        self._prefix = None
        self._features.clear()

    def release(self) -> None:
        """Let go of the model."""
        self._model = None

    def features(self, snapshot: Snapshot, layout: VideoLayout, control: AskControl) -> Encoded:
        """Vision features of pairs; encodes those that have none.

        Raises:
            AskCancelledError: The ask was cancelled.
            AskTimeoutError: Its deadline has passed.
        NonFiniteError: What the model computed contains NaN or infinity.
        """
        return encode_snapshot(
            self._model,
            self._processor,
            self._family,
            self._features,
            snapshot,
            layout,
            control,
            one_by_one=self._canonical,
        )

    def prefix(
        self,
        prompt: Prompt,
        layout: VideoLayout,
        snapshot: Snapshot,
        control: AskControl,
        *,
        capacity: int,
        transient: bool = False,
    ) -> EncodedPrefix:
        """The prefix of a prompt; encodes and prefills what is new of it.

        What is complete when an ask ends early stays.

        Args:
            prompt: Its text before the video is used.
            layout: The pairs' places.
            snapshot: At least one pair.
            control: Looked at between chunks.
            capacity: Tokens to reserve after the prefix.
            transient: A look at a part of the past, which must not cost the prefix that the next ordinary ask needs.

        Raises:
            AskCancelledError: The ask was cancelled.
            AskTimeoutError: Its deadline has passed.
        NonFiniteError: What the model computed contains NaN or infinity.
        """
        segments = segments_of(prompt, layout, snapshot)
        cache = self._cache_for(segments, transient=transient)
        held = first_missing(cache, segments, chunk_pairs(layout.tokens_per_pair), canonical=self._canonical)
        pairs_held = max(0, held - 1)
        encoded = self.features(snapshot[pairs_held:], layout, control) if held < len(segments) else None
        cache.truncate(held)
        reused = cache.length
        cache.reserve(sum(segment.tokens for segment in segments) + capacity)
        if encoded is None:
            return EncodedPrefix(cache, reused, ())
        prefill(self._model, prompt, layout, cache, segments, encoded.features, control)
        return EncodedPrefix(cache, reused, tuple(pairs_held + number for number in encoded.new_pairs))

    def _cache_for(self, segments: Sequence[Segment], *, transient: bool) -> PrefixCache:
        layers = int(self._model.config.text_config.num_hidden_layers)
        kept = self._prefix
        if transient and (kept is None or kept.segments != tuple(segments)):
            return PrefixCache(layers)
        if kept is None:
            kept = self._prefix = PrefixCache(layers)
        return kept

    @contextmanager
    def settling(self, memory: Callable[[], Snapshot]) -> Iterator[None]:
        """Afterwards, drop what belongs to pairs that have left the memory, and what is over the budget.

        Args:
            memory: Gives the pairs kept at that time.
        """
        generation = self._times_forgotten
        try:
            yield
        finally:
            if self._times_forgotten == generation:
                self._settle(memory())
            else:
                self._prefix = None
                self._features.clear()

    def _settle(self, snapshot: Snapshot) -> None:
        self._features.keep_only({kept.content_key for kept in snapshot})
        if not snapshot:  # the memory was reset while the job was about to begin
            self._prefix = None
        if self._budget is None:
            return
        kept = self.cached_bytes()
        if kept.features + kept.kv > self._budget.caches:
            self._prefix = None
            self._features.shrink(self._budget.caches, by_worth(snapshot))
