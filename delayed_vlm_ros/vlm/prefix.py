"""The encoded prefix of a prompt, ``[system prompt][video]``: what every question about the same frames shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from delayed_vlm_ros.memory import Snapshot
from delayed_vlm_ros.vlm.control import AskControl
from delayed_vlm_ros.vlm.prompt import Prompt
from delayed_vlm_ros.vlm.video_input import VideoLayout, snapshot_pixel_values

PrefixKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class EncodedPrefix:
    """KV of a prefix, with the key that says which prefix it is of.

    The tensors are never written again: a question works on a fork.

    Attributes:
        key: What ``prefix_key`` gives for it.
        layers: Keys and values of each layer, each of shape (1, heads, tokens, head size).
    """

    key: PrefixKey
    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]

    @property
    def length(self) -> int:
        """Tokens."""
        return int(self.layers[0][0].shape[-2])

    @property
    def storage_bytes(self) -> int:
        """Bytes held, counted by storage."""
        return sum(tensor.untyped_storage().nbytes() for layer in self.layers for tensor in layer)

    def fork(self) -> DynamicCache:
        """A cache that starts with this prefix; what is appended to it leaves the prefix untouched."""
        return DynamicCache(list(self.layers))


def prefix_key(prompt: Prompt, layout: VideoLayout, snapshot: Snapshot) -> PrefixKey:
    """What a prefix is made from: its text, and each pair's content and place in time.

    All video placeholder ids are equal and relative positions repeat after a slide, so ids and positions alone would
    take other pictures for the same.
    """
    pairs = tuple((kept.content_key, time) for kept, time in zip(snapshot, layout.temporal_ids, strict=True))
    return (prompt.before, layout.grid_thw, pairs)


@torch.inference_mode()
def encode_prefix(
    model: Any, processor: Any, prompt: Prompt, layout: VideoLayout, snapshot: Snapshot, control: AskControl
) -> EncodedPrefix:
    """Encode the kept pairs as one video and prefill the prefix.

    Args:
        model: The library's model.
        processor: The library's processor.
        prompt: Its text before the video is used.
        layout: The pairs' places.
        snapshot: The pairs.
        control: Looked at between vision encoding and prefill.

    Raises:
        AskCancelledError: The ask was cancelled.
        AskTimeoutError: Its deadline has passed.
    """
    ids = torch.tensor([prompt.token_ids(layout.visual_tokens)[: len(prompt.before) + layout.visual_tokens]])
    pixels = snapshot_pixel_values(processor, snapshot)
    control.check()
    grid = torch.tensor([layout.grid_thw])
    features = model.get_video_features(pixels.to(model.device), grid.to(model.device)).pooler_output
    control.check()
    output = model(
        input_ids=ids.to(model.device),
        mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=features)},
        position_ids=layout.positions(prompt)[..., : ids.shape[1]].to(model.device),
        past_key_values=DynamicCache(),
        use_cache=True,
        logits_to_keep=1,
    )
    layers = tuple((layer.keys, layer.values) for layer in output.past_key_values.layers)
    return EncodedPrefix(prefix_key(prompt, layout, snapshot), layers)
