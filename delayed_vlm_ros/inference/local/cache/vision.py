"""Vision features of the kept pairs: each pair is encoded once.

The vision encoders of the supported models attend within one pair only. A pair's features therefore depend only on its
pixels: they are cached by the pair's content, and stay valid at any position in a video.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.local.models.adapters.registry import ModelAdapter
from delayed_vlm_ros.inference.local.video_input import VideoLayout, snapshot_pixel_values
from delayed_vlm_ros.memory import KeptPair, Snapshot

_MAX_BATCH_PATCHES = 8192  # 8 pairs of 256 tokens; the encoder's working memory grows with it


@dataclass(slots=True)
class VisionFeatureCache:
    """Features by the content of their pair. Thread-safe.

    Attributes:
        on_host: Whether to keep features in host memory instead of the model's device.
    """

    on_host: bool = False
    _features: dict[bytes, torch.Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def storage_bytes(self) -> int:
        """Bytes of all features, by storage."""
        with self._lock:
            return self._count_bytes()

    def _count_bytes(self) -> int:
        return sum(features.untyped_storage().nbytes() for features in self._features.values())

    def get(self, key: bytes) -> torch.Tensor | None:
        """Return the features of a pair, shape ``(tokens, levels × hidden size)``; None if they are not cached."""
        with self._lock:
            return self._features.get(key)

    def put(self, key: bytes, features: torch.Tensor) -> torch.Tensor:
        """Cache a pair's features and return the cached tensor, which shares no storage with other tensors."""
        kept = features.to("cpu") if self.on_host else features
        kept = kept.clone() if kept.untyped_storage().nbytes() > kept.nbytes else kept
        with self._lock:
            self._features[key] = kept
        return kept

    def keep_only(self, keys: Collection[bytes]) -> None:
        """Drop the features of all pairs that are not in ``keys``."""
        with self._lock:
            for key in self._features.keys() - set(keys):
                del self._features[key]

    def shrink(self, limit_bytes: int, order: Sequence[bytes]) -> bool:
        """Drop features until the rest is within a limit.

        Args:
            limit_bytes: Bytes that may be kept.
            order: Keys in the order of their retention, most useful first; features of other keys are dropped first.

        Returns:
            Whether any features were dropped.
        """
        rank = {key: number for number, key in enumerate(order)}
        dropped = False
        with self._lock:
            held = self._count_bytes()
            for key in sorted(self._features, key=lambda one: rank.get(one, len(rank)), reverse=True):
                if held <= limit_bytes:
                    break
                held -= self._features.pop(key).untyped_storage().nbytes()
                dropped = True
        return dropped

    def clear(self) -> None:
        """Drop all features."""
        with self._lock:
            self._features.clear()


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """The features of a snapshot.

    Attributes:
        features: Features of each pair, shape ``(tokens, levels × hidden size)``.
        new_pairs: Indices of the pairs that were not cached.
    """

    features: tuple[torch.Tensor, ...]
    new_pairs: tuple[int, ...]


@torch.inference_mode()
def encode_snapshot(
    model: Any,
    processor: Any,
    adapter: ModelAdapter,
    cache: VisionFeatureCache,
    snapshot: Snapshot,
    layout: VideoLayout,
    control: AskControl,
    *,
    one_by_one: bool = False,
) -> EncodedPairs:
    """Return the features of every pair, and encode the pairs that are not cached.

    Args:
        model: The library's model.
        processor: The library's processor.
        adapter: Adapter of the model.
        cache: Cache of the features.
        snapshot: At least one pair.
        layout: Layout of the pairs.
        control: Control of the question, checked between batches; features encoded until then stay cached.
        one_by_one: Whether to encode every pair alone, so that rounding does not depend on the rest of the batch.

    Raises:
        AskCancelledError: The question was cancelled.
        AskTimeoutError: The deadline has passed.
        NonFiniteError: The features contain NaN or infinity; they are not cached.
    """
    pairs = {kept.content_key: kept for kept in snapshot}
    found = {key: features for key in pairs if (features := cache.get(key)) is not None}
    missing = {key: kept for key, kept in pairs.items() if key not in found}
    new_pairs = tuple(number for number, kept in enumerate(snapshot) if kept.content_key in missing)
    to_encode = list(missing.values())
    patches = layout.grid_thw[1] * layout.grid_thw[2]
    batch_pairs = max(1, _MAX_BATCH_PATCHES // patches)
    step = 1 if one_by_one else batch_pairs
    for start in range(0, len(to_encode), batch_pairs):
        batch = tuple(to_encode[start : start + batch_pairs])
        pixels = _pixels(model, processor, batch)
        for first in range(0, len(batch), step):
            control.check()
            part = slice(first, first + step)
            encoded = adapter.encode_pairs(model.model.visual, pixels[part], layout.rows, layout.columns)
            check_finite(encoded, "vision features")
            for kept, features in zip(batch[part], encoded, strict=True):
                found[kept.content_key] = cache.put(kept.content_key, features)
    control.check()
    return EncodedPairs(tuple(found[kept.content_key] for kept in snapshot), new_pairs)


def _pixels(model: Any, processor: Any, pairs: tuple[KeptPair, ...]) -> torch.Tensor:
    """Return the vision encoder's input, shape ``(pairs, patches, patch elements)``, on its device and in its dtype."""
    pixels = snapshot_pixel_values(processor, pairs).to(model.device, model.model.visual.dtype)
    return pixels.view(len(pairs), -1, pixels.shape[-1])
