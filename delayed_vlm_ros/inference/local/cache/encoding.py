"""Encoded state that outlives a question: vision features of the kept pairs, and the KV of prefixes.

One prefix has all kept pairs, for questions without a time limit. *Windows* are further prefixes: of the newest pairs,
for questions that are repeated about them. They are the first to be evicted, and never evict the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import Cache

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import CachedBytes
from delayed_vlm_ros.inference.local.budget import MemoryBudget, chunk_pairs, retention_order
from delayed_vlm_ros.inference.local.cache.prefill import prefill, valid_segments
from delayed_vlm_ros.inference.local.cache.prefix import PrefixCache, Segment, segments_of
from delayed_vlm_ros.inference.local.cache.vision import EncodedPairs, VisionFeatureCache, encode_snapshot
from delayed_vlm_ros.inference.local.models.adapters.registry import adapter_for
from delayed_vlm_ros.inference.local.models.layer_types import layer_types
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout
from delayed_vlm_ros.memory import Snapshot

_MAX_WINDOWS = 2


@dataclass(frozen=True, slots=True)
class EncodedPrefix:
    """A prefix that is ready for its question.

    Attributes:
        cache: KV of the whole prefix.
        tokens_reused: Tokens that were cached before.
        new_pairs: Indices of the pairs that went through the vision encoder.
    """

    cache: PrefixCache
    tokens_reused: int
    new_pairs: tuple[int, ...]

    @property
    def was_complete(self) -> bool:
        """Whether nothing had to be encoded or prefilled."""
        return self.tokens_reused == self.cache.length


class EncodingCache:
    """Encodes the new pairs of a memory and caches the result.

    One thread uses the cache; any thread may call ``reset`` and ``cached_bytes``.

    Args:
        model: The library's model.
        processor: The library's processor.
        features_on_host: Whether to keep features in host memory instead of the device.
        canonical: Whether a warm run computes in the same steps as a cold run.
        budget: Bytes that may be kept; None: unlimited.

    Raises:
        UnsupportedModelError: The model type is not supported, or the config lacks a field.
    """

    def __init__(
        self, model: Any, processor: Any, *, features_on_host: bool, canonical: bool, budget: MemoryBudget | None
    ) -> None:
        self._model = model
        self._processor = processor
        self._adapter = adapter_for(model.config)
        self._adapter.check(model.config)
        self._layer_types = layer_types(model.config.text_config.to_dict())
        self._canonical = canonical
        self._budget = budget
        self._features = VisionFeatureCache(on_host=features_on_host)
        self._prefix: PrefixCache | None = None
        self._windows: dict[float, PrefixCache] = {}  # by length in seconds, least recently used first
        self._generation = 0

    def cached_bytes(self) -> CachedBytes:
        """Return the bytes kept."""
        prefixes = (*((self._prefix,) if self._prefix else ()), *self._windows.copy().values())
        return CachedBytes(self._features.storage_bytes, sum(prefix.storage_bytes for prefix in prefixes))

    @property
    def generation(self) -> int:
        """Number of calls of ``reset``."""
        return self._generation

    def fork_prefix(self) -> Cache | None:
        """Return a fork of the cached prefix, valid until the next question; None without a prefix."""
        prefix = self._prefix
        return None if prefix is None else prefix.fork()

    def reset(self) -> None:
        """Drop everything, including the result of a running job."""
        self._generation += 1
        self._clear()

    def _clear(self) -> None:
        self._prefix = None
        self._windows.clear()
        self._features.clear()

    def keep_windows(self, lengths: Collection[float]) -> None:
        """Drop the windows of all other lengths.

        Args:
            lengths: Lengths in seconds.
        """
        for length in set(self._windows) - set(lengths):
            self._windows.pop(length, None)  # another thread may reset the cache

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def features(self, snapshot: Snapshot, layout: VideoLayout, control: AskControl) -> EncodedPairs:
        """Return the vision features of pairs; encodes the pairs that are not cached.

        Raises:
            AskCancelledError: The question was cancelled.
            AskTimeoutError: The deadline has passed.
            NonFiniteError: The features contain NaN or infinity.
        """
        return encode_snapshot(
            self._model,
            self._processor,
            self._adapter,
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
        is_partial: bool = False,
        window_sec: float | None = None,
    ) -> EncodedPrefix:
        """Return the prefix of a prompt; encodes and prefills the part that is not cached.

        Chunks that are complete when a question ends early stay cached.

        Args:
            prompt: Prompt of the question; only its text before the video is used.
            layout: Layout of the pairs.
            snapshot: At least one pair.
            control: Control of the question, checked between chunks.
            capacity: Tokens to reserve after the prefix.
            is_partial: Whether the pairs are not the whole memory. Then their prefix must not replace the one that the
                next question about the whole memory needs.
            window_sec: Length of the window of these pairs, in seconds, to keep their prefix for the next question
                about a window of this length; None: it is not kept.

        Raises:
            AskCancelledError: The question was cancelled.
            AskTimeoutError: The deadline has passed.
            NonFiniteError: The model's output contains NaN or infinity.
        """
        segments = segments_of(prompt, layout, snapshot)
        cache = self._cache_for(segments, window_sec) if is_partial else self._cache_for_all()
        common = cache.common_prefix_length(segments)
        valid = valid_segments(cache, segments, common, chunk_pairs(layout.tokens_per_pair), canonical=self._canonical)
        valid_pairs = max(0, valid - 1)
        encoded = self.features(snapshot[valid_pairs:], layout, control) if valid < len(segments) else None
        cache.truncate(valid, common=common)
        reused = cache.length
        cache.reserve(sum(segment.tokens for segment in segments) + capacity)
        if encoded is None:
            return EncodedPrefix(cache, reused, ())
        prefill(self._model, prompt, layout, cache, segments, encoded.features, control)
        return EncodedPrefix(cache, reused, tuple(valid_pairs + number for number in encoded.new_pairs))

    def _cache_for_all(self) -> PrefixCache:
        if self._prefix is None:
            self._prefix = PrefixCache(self._layer_types)
        return self._prefix

    def _cache_for(self, segments: Sequence[Segment], window_sec: float | None) -> PrefixCache:
        """Return the cache for a part of the memory."""
        cached = self._prefix
        if cached is not None and cached.segments == tuple(segments):  # nothing is to be computed
            return cached
        if window_sec is None:
            return PrefixCache(self._layer_types)
        window = self._windows.pop(window_sec, None) or PrefixCache(self._layer_types)
        while len(self._windows) >= _MAX_WINDOWS:
            self._drop_oldest_window()
        self._windows[window_sec] = window
        return window

    @contextmanager
    def evicting(self, take_snapshot: Callable[[], Snapshot]) -> Iterator[None]:
        """Evict, on exit, the state of pairs that have left the memory, and everything above the budget.

        Args:
            take_snapshot: Returns the pairs that are kept on exit.
        """
        generation = self._generation
        try:
            yield
        finally:
            if self._generation == generation:
                self._evict(take_snapshot())
            else:
                self._clear()

    def _evict(self, snapshot: Snapshot) -> None:
        self._features.keep_only({kept.content_key for kept in snapshot})
        if not snapshot:  # the memory was reset just before the job began
            self._clear()
        if self._budget is None:
            return
        while self._windows and self._is_over(self._budget):
            self._drop_oldest_window()
        if self._is_over(self._budget):
            self._prefix = None
            self._features.shrink(self._budget.caches, retention_order(snapshot))

    def _drop_oldest_window(self) -> None:
        for length in tuple(self._windows)[:1]:  # another thread may reset the cache
            self._windows.pop(length, None)

    def _is_over(self, budget: MemoryBudget) -> bool:
        kept = self.cached_bytes()
        return kept.features + kept.kv > budget.caches
