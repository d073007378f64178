"""Recurrent layers (Gated DeltaNet) on questions that follow one video and do not see one another.

Such a layer carries a state from token to token, and every question must start with the state after its last pair. The
video is therefore computed pair by pair, and the questions as sequences of their own. Padding neither updates the state
nor lets it decay. The weights and the rule are transformers' own.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import conv1d, silu, softplus
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_chunk_gated_delta_rule

from lab.training.language_data import Batch

_PADDING = -1


def prepare(language: Any) -> None:
    """Let the recurrent layers of a language model, if it has any, compute questions after a video.

    Args:
        language: Hugging Face language model. Its ``forward`` then requires the keyword ``batch``.
    """
    for layer in language.layers:
        recurrent = getattr(layer, "linear_attn", None)
        if recurrent is not None:
            recurrent.forward = partial(_forward, recurrent)


def _forward(layer: Any, hidden_states: torch.Tensor, *, batch: Batch, **_: Any) -> torch.Tensor:
    """Return the output of a layer, ``(clips, shared + text, hidden size)``."""
    width = layer.conv_kernel_size - 1
    inputs = (
        layer.in_proj_qkv(hidden_states).flatten(0, 1),
        layer.in_proj_b(hidden_states).sigmoid().flatten(0, 1),
        (-layer.A_log.exp() * softplus(layer.in_proj_a(hidden_states).float() + layer.dt_bias)).flatten(0, 1),
    )
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    states: list[torch.Tensor] = []
    for tokens in _pairs(batch, width).unbind(1):
        attended, state = _run(layer, inputs, tokens, states[-1] if states else None)
        parts.append((tokens[:, width:], attended))
        states.append(state)
    tokens, last_pairs = _questions(batch, width)
    clips = torch.arange(len(last_pairs)).repeat_interleave(last_pairs.shape[1])
    attended, _state = _run(layer, inputs, tokens, torch.stack(states)[last_pairs.flatten(), clips])
    parts.append((tokens[:, width:], attended))

    numbers = torch.cat([tokens[tokens != _PADDING] for tokens, _ in parts])
    values = torch.cat([attended[tokens != _PADDING] for tokens, attended in parts])
    output = values.new_zeros(len(inputs[0]), *values.shape[1:]).index_copy(0, numbers, values)
    gate = layer.in_proj_z(hidden_states).view(-1, layer.head_v_dim)
    normed = layer.norm(output.flatten(0, 1), gate).view(*hidden_states.shape[:2], -1)
    projected: torch.Tensor = layer.out_proj(normed)
    return projected


def _run(
    layer: Any, inputs: tuple[torch.Tensor, ...], tokens: torch.Tensor, state: torch.Tensor | None
) -> tuple[torch.Tensor, Any]:
    """Run the rule over sequences.

    Args:
        layer: The layer.
        inputs: Queries, keys and values before the convolution, update rates, and decays, of all tokens.
        tokens: Numbers of the tokens of each sequence, after those that only the convolution sees.
        state: State before each sequence.

    Returns:
        Values ``(sequences, length, heads, head size)``, and the state after each sequence.
    """
    mixed, update, decay = inputs
    seen = (mixed[tokens] * (tokens != _PADDING)[..., None]).transpose(1, 2)
    convolved = silu(conv1d(seen, layer.conv1d.weight, groups=seen.shape[1])).transpose(1, 2)
    own = tokens[:, layer.conv_kernel_size - 1 :]
    real = (own != _PADDING)[..., None]
    query, key, value = convolved.split([layer.key_dim, layer.key_dim, layer.value_dim], dim=-1)
    attended, after = torch_chunk_gated_delta_rule(
        query.unflatten(-1, (-1, layer.head_k_dim)),
        key.unflatten(-1, (-1, layer.head_k_dim)),
        value.unflatten(-1, (-1, layer.head_v_dim)),
        g=decay[own] * real,
        beta=update[own] * real,
        chunk_size=own.shape[1],
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    return attended, after


def _pairs(batch: Batch, width: int) -> torch.Tensor:
    """Return the numbers of the tokens of each pair after ``width`` earlier ones, ``(clips, pairs, length)``."""
    starts = torch.cat([torch.zeros_like(batch.ends[:, :1]), batch.ends[:, :-1]], dim=1)
    offsets = torch.arange(-width, int((batch.ends - starts).max()))
    positions = starts[..., None] + offsets
    return _numbers(batch, positions, (positions >= 0) & (positions < batch.ends[..., None]))


def _questions(batch: Batch, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of each question after the last ``width`` of its video, and the number of its last pair.

    Returns:
        Numbers of the tokens, ``(clips × questions, length)``; numbers of the pairs, ``(clips, questions)``.
    """
    lengths = (batch.segments[..., None] == torch.arange(1, int(batch.segments.max()) + 1)).sum(1)
    starts = lengths.cumsum(1) - lengths
    reach = batch.reach.gather(1, starts)
    context = reach[..., None] + torch.arange(-width, 0)
    offsets = torch.arange(int(lengths.max())).expand(*lengths.shape, -1)
    tokens = torch.cat(
        [
            _numbers(batch, context, context >= 0),
            _numbers(batch, batch.shared.shape[1] + starts[..., None] + offsets, offsets < lengths[..., None]),
        ],
        dim=2,
    )
    return tokens.flatten(0, 1), (batch.ends[:, None] < reach[..., None]).sum(2)


def _numbers(batch: Batch, positions: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the numbers of tokens in the flattened batch, from their positions in each clip."""
    clips = torch.arange(len(batch.clips))[:, None, None]
    return (positions + clips * batch.positions.shape[2]).where(valid, _PADDING)
