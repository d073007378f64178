"""Vision features of the kept pairs, so that each pair is encoded once in its life.

The vision encoders of the supported families attend within one pair only, so a pair's features depend on nothing but
its pixels: they are kept by the pair's content, and hold wherever and whenever the pair stands in a video.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.finite import check_finite
from delayed_vlm_ros.inference.local.models.adapters import ModelAdapter
from delayed_vlm_ros.inference.local.video_input import VideoLayout, snapshot_pixel_values
from delayed_vlm_ros.memory import KeptPair, Snapshot

_LARGEST_BATCH = 8192  # patches: 8 pairs of 256 tokens; the encoder's working memory grows with it


@dataclass(slots=True)
class VisionFeatureCache:
    """Features by the content of their pair; may be looked at and emptied from any thread.

    Attributes:
        on_host: Whether they are kept in the host's memory rather than on the model's device.
    """

    on_host: bool = False
    _features: dict[bytes, torch.Tensor] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def storage_bytes(self) -> int:
        """Bytes held, by storage."""
        with self._lock:
            return self._held_bytes()

    def _held_bytes(self) -> int:
        return sum(features.untyped_storage().nbytes() for features in self._features.values())

    def get(self, key: bytes) -> torch.Tensor | None:
        """The features of a pair, ``(tokens, hidden size)``; None where there are none."""
        with self._lock:
            return self._features.get(key)

    def put(self, key: bytes, features: torch.Tensor) -> torch.Tensor:
        """Keep a copy of a pair's features, which owns its storage and nothing more, and give it."""
        kept = features.to("cpu") if self.on_host else features
        kept = kept.clone() if kept.untyped_storage().nbytes() > kept.nbytes else kept
        with self._lock:
            self._features[key] = kept
        return kept

    def keep_only(self, keys: Collection[bytes]) -> None:
        """Drop the features of all other pairs."""
        with self._lock:
            for key in self._features.keys() - set(keys):
                del self._features[key]

    def shrink(self, limit_bytes: int, worth: Sequence[bytes]) -> bool:
        """Drop features until the rest is within a limit.

        Args:
            limit_bytes: Bytes that may be kept.
            worth: Keys, those to be kept longest first; others go before them.

        Returns:
            Whether any went.
        """
        rank = {key: number for number, key in enumerate(worth)}
        went = False
        with self._lock:
            held = self._held_bytes()
            for key in sorted(self._features, key=lambda one: rank.get(one, len(rank)), reverse=True):
                if held <= limit_bytes:
                    break
                held -= self._features.pop(key).untyped_storage().nbytes()
                went = True
        return went

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._features.clear()


@dataclass(frozen=True, slots=True)
class Encoded:
    """The features of a snapshot.

    Attributes:
        features: Of each pair, ``(tokens, hidden size)``.
        new_pairs: Numbers of the pairs that were encoded just now.
    """

    features: tuple[torch.Tensor, ...]
    new_pairs: tuple[int, ...]


@torch.inference_mode()
def encode_snapshot(
    model: Any,
    processor: Any,
    family: ModelAdapter,
    cache: VisionFeatureCache,
    snapshot: Snapshot,
    layout: VideoLayout,
    control: AskControl,
    *,
    one_by_one: bool = False,
) -> Encoded:
    """Give the features of every pair, and encode those that have none.

    Args:
        model: The library's model.
        processor: Its processor.
        family: Its adapter.
        cache: Where features are kept.
        snapshot: At least one pair.
        layout: Its places.
        control: Looked at between batches; what is encoded by then stays in the cache.
        one_by_one: Encode every pair alone, so that its features do not depend, by rounding, on its company.

    Raises:
        AskCancelledError: The ask was cancelled.
        AskTimeoutError: Its deadline has passed.
        NonFiniteError: The features contain NaN or infinity; those are not cached.
    """
    pairs = {kept.content_key: kept for kept in snapshot}
    found = {key: features for key in pairs if (features := cache.get(key)) is not None}
    missing = {key: kept for key, kept in pairs.items() if key not in found}
    new_pairs = tuple(number for number, kept in enumerate(snapshot) if kept.content_key in missing)
    todo = list(missing.values())
    patches = layout.grid_thw[1] * layout.grid_thw[2]
    batch = max(1, _LARGEST_BATCH // patches)
    at_once = 1 if one_by_one else batch
    for start in range(0, len(todo), batch):
        some = tuple(todo[start : start + batch])
        pixels = _pixels(model, processor, some)
        for first in range(0, len(some), at_once):
            control.check()
            part = slice(first, first + at_once)
            encoded = family.encode_pairs(model.model.visual, pixels[part], layout.rows, layout.columns)
            check_finite(encoded, "vision features")
            for kept, features in zip(some[part], encoded, strict=True):
                found[kept.content_key] = cache.put(kept.content_key, features)
    control.check()
    return Encoded(tuple(found[kept.content_key] for kept in snapshot), new_pairs)


def _pixels(model: Any, processor: Any, pairs: tuple[KeptPair, ...]) -> torch.Tensor:
    """Patches of pairs where the vision encoder takes them, ``(pairs, patches, patch elements)``."""
    pixels = snapshot_pixel_values(processor, pairs).to(model.device, model.model.visual.dtype)
    return pixels.view(len(pairs), -1, pixels.shape[-1])
