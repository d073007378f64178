"""The KV cache of a prompt's prefix, ``[system prompt][video]``, cut where one pair ends and the next begins.

Every question about the same frames shares the prefix; and a changed history shares all of it that stands before the
first change. What is shared is found by a key for each *segment*, the text and every pair: all video placeholder ids
are equal and relative positions repeat after a slide, so ids and positions alone would take other images for the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout
from delayed_vlm_ros.memory import Snapshot

_ROOM_STEP = 256  # tokens: buffers grow in such steps


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prefix that is kept or dropped as a whole.

    Attributes:
        key: What its KV depends on, beside the segments before it.
        tokens: How many it has.
    """

    key: tuple[Any, ...]
    tokens: int


def segments_of(prompt: Prompt, layout: VideoLayout, snapshot: Snapshot) -> tuple[Segment, ...]:
    """The segments of a prefix: the text before the video, then each pair with its content and its place in time."""
    text = Segment(("text", prompt.before), len(prompt.before))
    pairs = (
        Segment((kept.content_key, layout.grid_thw[1:], time), layout.tokens_per_pair)
        for kept, time in zip(snapshot, layout.temporal_ids, strict=True)
    )
    return (text, *pairs)


def round_up_capacity(tokens: int) -> int:
    """The tokens that a cache takes room for when it needs room for so many."""
    return -(-tokens // _ROOM_STEP) * _ROOM_STEP


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in buffers with room to grow, so that appending copies nothing that is there.

    In the library's cache interface; ``keys`` and ``values`` are views of the filled part.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0
        self._room = capacity  # tokens to make room for at the first update
        self._keys_room: torch.Tensor | None = None
        self._values_room: torch.Tensor | None = None

    @property
    def storage_bytes(self) -> int:
        """Bytes held, room to grow included."""
        rooms = (self._keys_room, self._values_room)
        return sum(capacity.untyped_storage().nbytes() for capacity in rooms if capacity is not None)

    def fork(self, length: int) -> PreallocatedLayer:
        """A layer that begins with the first ``length`` tokens of this one and writes behind them, in the same room.

        Only one of the forks of a layer may be written at a time, and it overwrites what was behind ``length``.
        """
        forked = PreallocatedLayer(self._room)
        forked._keys_room, forked._values_room = self._keys_room, self._values_room
        if self._keys_room is not None:
            forked.dtype, forked.device = self.dtype, self.device
            forked.is_initialized = True
            forked._show(length)
        return forked

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens."""
        if tokens <= self._room:
            return
        capacity = round_up_capacity(tokens)
        if self._keys_room is not None and self._values_room is not None:
            # Both are there before anything changes: a failed allocation leaves the layer as it was.
            keys, values = self._moved(self._keys_room, capacity), self._moved(self._values_room, capacity)
            self._keys_room, self._values_room = keys, values
            self._show(self.length)
        self._room = capacity

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """See the library's interface."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._keys_room = key_states.new_empty((*key_states.shape[:2], self._room, key_states.shape[-1]))
        self._values_room = value_states.new_empty((*value_states.shape[:2], self._room, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append, and give all keys and values; see the library's interface."""
        length = self.length + key_states.shape[-2]
        self.reserve(length)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self._keys_room is not None  # noqa: S101  for the type checker
        assert self._values_room is not None  # noqa: S101
        self._keys_room[:, :, self.length : length] = key_states
        self._values_room[:, :, self.length : length] = value_states
        return self._show(length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """See the library's interface."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Forget so many of the last tokens, given as a negative number as the library does."""
        self._show(self.length - abs(tokens_to_remove))

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.length = length
        assert self._keys_room is not None  # noqa: S101  for the type checker
        assert self._values_room is not None  # noqa: S101
        keys, values = self._keys_room[:, :, :length], self._values_room[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values

    def _moved(self, capacity: torch.Tensor, tokens: int) -> torch.Tensor:
        larger = capacity.new_empty((*capacity.shape[:2], tokens, capacity.shape[-1]))
        larger[:, :, : self.length] = capacity[:, :, : self.length]
        return larger


class PrefixCache:
    """KV of one prefix, segment by segment.

    Args:
        layers: How many layers the language model has.
    """

    def __init__(self, layers: int) -> None:
        self._layers = [PreallocatedLayer() for _ in range(layers)]
        self.segments: tuple[Segment, ...] = ()

    @property
    def length(self) -> int:
        """Tokens held."""
        return sum(segment.tokens for segment in self.segments)

    @property
    def storage_bytes(self) -> int:
        """Bytes held, room to grow included."""
        return sum(layer.storage_bytes for layer in self._layers)

    def common_prefix_length(self, wanted: Sequence[Segment]) -> int:
        """How many segments at the beginning agree with the wanted ones."""
        count = 0
        for mine, other in zip(self.segments, wanted, strict=False):
            if mine != other:
                break
            count += 1
        return count

    def truncate(self, segments: int) -> None:
        """Forget all but the first segments; copies nothing."""
        self.segments = self.segments[:segments]

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens in all: those of the prefix and those that a fork will write."""
        for layer in self._layers:
            layer.reserve(tokens)

    def fork(self) -> Cache:
        """A cache for the library that begins with this prefix and writes behind it; leaves the prefix as it is.

        Good until the prefix changes; of several, only one may be written.
        """
        return Cache(layers=[layer.fork(self.length) for layer in self._layers])

    def extend(self, cache: Cache, segments: Sequence[Segment]) -> None:
        """Take over what a fork has written behind the prefix.

        Args:
            cache: A fork of this prefix, extended by the segments' tokens and nothing else.
            segments: What they are.
        """
        self._layers = [layer for layer in cache.layers if isinstance(layer, PreallocatedLayer)]
        self.segments = (*self.segments, *segments)
