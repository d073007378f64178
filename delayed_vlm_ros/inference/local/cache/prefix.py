"""The cached state of a prompt's prefix, ``[system prompt][video]``, split at the boundaries of pairs.

Every question about the same frames shares the prefix, and a changed memory shares the part before the first change.
The shared part is found by a key per *segment*: the text and every pair. Token ids and positions do not suffice: all
video placeholder ids are equal, and relative positions repeat after the window slides, so different images would be
taken for equal ones.

Layers with attention keep the keys and values of every token, and can return to any length. Recurrent layers keep one
state, which every token changes: they can return only to a state that was saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, LinearAttentionLayer

from delayed_vlm_ros.inference.local.budget import round_up_capacity
from delayed_vlm_ros.inference.local.models.layer_types import RECURRENT_LAYER
from delayed_vlm_ros.inference.local.prompt import Prompt
from delayed_vlm_ros.inference.local.video_input import VideoLayout
from delayed_vlm_ros.memory import Snapshot


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prefix that is kept or dropped as a whole.

    Attributes:
        key: Everything that the segment's state depends on, in addition to the segments before it.
        tokens: Number of tokens.
    """

    key: tuple[Any, ...]
    tokens: int


def segments_of(prompt: Prompt, layout: VideoLayout, snapshot: Snapshot) -> tuple[Segment, ...]:
    """Return the segments of a prefix: the text before the video, then each pair with its content and time."""
    opening = Segment(("text", prompt.before), len(prompt.before))
    pairs = (
        Segment(
            (kept.content_key, layout.grid_thw[1:], time, text),
            len(text.before) + layout.tokens_per_pair + len(text.after),
        )
        for kept, time, text in zip(snapshot, layout.temporal_ids, layout.pair_texts, strict=True)
    )
    return (opening, *pairs)


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """Keys and values of one layer in buffers with spare capacity, so that appending copies no earlier tokens.

    Implements transformers' cache interface; ``keys`` and ``values`` are views of the filled part.

    Args:
        capacity: Tokens that the buffers can hold, allocated by the first update.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers is untyped
        self.length = 0
        self._capacity = capacity
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    @property
    def storage_bytes(self) -> int:
        """Bytes of the buffers, spare capacity included."""
        buffers = (self._key_buffer, self._value_buffer)
        return sum(buffer.untyped_storage().nbytes() for buffer in buffers if buffer is not None)

    def fork(self, length: int) -> PreallocatedLayer:
        """Return a layer that shares the buffers and the first ``length`` tokens, and appends after them.

        Only one fork of a layer may be written at a time. It overwrites the tokens after ``length``.
        """
        forked = PreallocatedLayer(self._capacity)
        forked._key_buffer, forked._value_buffer = self._key_buffer, self._value_buffer
        if self._key_buffer is not None:
            forked.dtype, forked.device = self.dtype, self.device
            forked.is_initialized = True
            forked._set_length(length)
        return forked

    def reserve(self, tokens: int) -> None:
        """Grow the buffers to hold at least ``tokens`` tokens."""
        if tokens <= self._capacity:
            return
        capacity = round_up_capacity(tokens)
        if self._key_buffer is not None and self._value_buffer is not None:
            # Both exist before anything changes: a failed allocation leaves the layer as it was.
            keys, values = self._grown(self._key_buffer, capacity), self._grown(self._value_buffer, capacity)
            self._key_buffer, self._value_buffer = keys, values
            self._set_length(self.length)
        self._capacity = capacity

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._key_buffer = key_states.new_empty((*key_states.shape[:2], self._capacity, key_states.shape[-1]))
        self._value_buffer = value_states.new_empty((*value_states.shape[:2], self._capacity, value_states.shape[-1]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values, shape ``(1, heads, tokens, head size)``, and return all of them."""
        length = self.length + key_states.shape[-2]
        self.reserve(length)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self._key_buffer is not None  # noqa: S101  for the type checker
        assert self._value_buffer is not None  # noqa: S101
        self._key_buffer[:, :, self.length : length] = key_states
        self._value_buffer[:, :, self.length : length] = value_states
        return self._set_length(length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys and the offset of the first one, for the attention mask."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: the length is not limited."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens; transformers passes their number as a negative one."""
        self._set_length(self.length - abs(tokens_to_remove))

    def _set_length(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.length = length
        assert self._key_buffer is not None  # noqa: S101  for the type checker
        assert self._value_buffer is not None  # noqa: S101
        keys, values = self._key_buffer[:, :, :length], self._value_buffer[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values

    def _grown(self, buffer: torch.Tensor, capacity: int) -> torch.Tensor:
        larger = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[-1]))
        larger[:, :, : self.length] = buffer[:, :, : self.length]
        return larger


class RecurrentLayer(LinearAttentionLayer):  # type: ignore[misc]  # transformers is untyped
    """The state of one recurrent layer, in transformers' own cache layer."""

    @property
    def storage_bytes(self) -> int:
        """Bytes of the state."""
        states = (*self.conv_states.values(), *self.recurrent_states.values())
        return sum(state.untyped_storage().nbytes() for state in states if state is not None)

    def fork(self) -> RecurrentLayer:
        """Return a layer with a copy of the state, because the model updates it in place."""
        return deepcopy(self)


class PrefixCache:
    """State of one prefix, segment by segment.

    Args:
        layer_types: Type of each layer of the language model, as in its config.
    """

    def __init__(self, layer_types: Sequence[str]) -> None:
        self._recurrent = tuple(kind == RECURRENT_LAYER for kind in layer_types)
        self._attention = [PreallocatedLayer() for recurrent in self._recurrent if not recurrent]
        # By the number of segments that the layers have read; without recurrent layers, no state is needed.
        self._states = {0: [RecurrentLayer() for recurrent in self._recurrent if recurrent]}
        self._last_change = 0
        self.segments: tuple[Segment, ...] = ()

    @property
    def length(self) -> int:
        """Number of cached tokens."""
        return sum(segment.tokens for segment in self.segments)

    @property
    def storage_bytes(self) -> int:
        """Bytes of the keys, values and saved states, spare capacity included."""
        states = sum(layer.storage_bytes for saved in self._states.values() for layer in saved)
        return states + sum(layer.storage_bytes for layer in self._attention)

    @property
    def has_recurrent_layers(self) -> bool:
        """Whether some layers keep one state instead of keys and values."""
        return any(self._recurrent)

    def common_prefix_length(self, segments: Sequence[Segment]) -> int:
        """Return how many cached segments equal the first of ``segments``."""
        count = 0
        for cached, other in zip(self.segments, segments, strict=False):
            if cached != other:
                break
            count += 1
        return count

    def restorable(self, count: int) -> int:
        """Return the largest number of segments, at most ``count``, to which the cache can be truncated."""
        return max(number for number in self._states if number <= count) if self.has_recurrent_layers else count

    def truncate(self, count: int, *, common: int = 0) -> None:
        """Drop all but the first segments; copies nothing.

        Args:
            count: Segments to keep, a result of ``restorable``.
            common: Segments that the next prefix has in common with this one. If others than the last ones change, a
                recurrent state is saved there: a full memory often changes at the same segment again.
        """
        is_at_the_end = count >= sorted(self._states)[-2:][0]  # the last two states are saved anyway
        if not is_at_the_end:
            self._last_change = common
        self.segments = self.segments[:count]
        self._states = {number: states for number, states in self._states.items() if number <= count}

    def reserve(self, tokens: int) -> None:
        """Grow the buffers to hold at least ``tokens`` tokens, those of the prefix and of its fork together."""
        for layer in self._attention:
            layer.reserve(tokens)

    def fork(self) -> Cache:
        """Return a cache for transformers that starts with this prefix and appends after it.

        The prefix does not change. The fork is valid until the prefix changes; only one fork may be written.
        """
        attention: Iterator[Any] = iter([layer.fork(self.length) for layer in self._attention])
        saved = self._states[len(self.segments)] if self.has_recurrent_layers else []
        states: Iterator[Any] = iter([layer.fork() for layer in saved])
        return Cache(layers=[next(states if recurrent else attention) for recurrent in self._recurrent])

    def extend(self, cache: Cache, segments: Sequence[Segment]) -> None:
        """Take over the tokens that a fork has appended.

        Args:
            cache: A fork of this prefix, with exactly the tokens of ``segments`` appended.
            segments: Segments of the appended tokens.
        """
        self.segments = (*self.segments, *segments)
        self._attention = [layer for layer in cache.layers if isinstance(layer, PreallocatedLayer)]
        if self.has_recurrent_layers:
            self._save_state([layer for layer in cache.layers if isinstance(layer, RecurrentLayer)])

    def _save_state(self, state: list[RecurrentLayer]) -> None:
        """Save the state of all segments; keep the one before it, the one before the last change, and the empty one."""
        states = {**self._states, len(self.segments): state}
        *earlier, last = sorted(states)
        before_change = max(number for number in states if number <= self._last_change)
        kept = {0, *earlier[-1:], last, before_change}
        self._states = {number: states[number] for number in kept}  # at once: another thread may count the bytes
