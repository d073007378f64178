"""Generate an answer behind an encoded prefix, with the library's own ``generate``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, StoppingCriteria, StoppingCriteriaList

from delayed_vlm_ros.vlm.control import AskControl


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer's tokens.

    Attributes:
        token_ids: What was generated, the end token included.
        first_token_time: When the first one was there, on the clock of ``time.monotonic``, in seconds.
        cache_length: Tokens in the KV cache at the end.
    """

    token_ids: tuple[int, ...]
    first_token_time: float
    cache_length: int


class _Watch(StoppingCriteria):  # type: ignore[misc]
    """Called after every token: notes the first one's time, and lets a cancelled or late ask end."""

    def __init__(self, control: AskControl) -> None:
        self._control = control
        self.first_token_time: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        if self.first_token_time is None:
            self.first_token_time = time.monotonic()
        self._control.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@torch.inference_mode()
def generate_answer(
    model: Any,
    token_ids: list[int],
    positions: torch.Tensor,
    cache: Cache,
    *,
    max_new_tokens: int,
    control: AskControl,
) -> Generated:
    """Prefill the part of the prompt that the cache does not hold, then decode.

    The prompt is given whole, because processors such as the repetition penalty count its tokens, and with explicit
    positions, because the library would otherwise use the offset left behind by the last call.

    Args:
        model: The library's model; its generation config holds.
        token_ids: The whole prompt.
        positions: Position ids of the whole prompt, shape (3, 1, tokens).
        cache: KV of the prompt's beginning; grows.
        max_new_tokens: Length limit of the answer.
        control: Looked at after every token.

    Raises:
        AskCancelledError: The ask was cancelled.
        AskTimeoutError: Its deadline has passed.
    """
    ids = torch.tensor([token_ids], device=model.device)
    watch = _Watch(control)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        stopping_criteria=StoppingCriteriaList([watch]),
    )
    generated = tuple(output[0, len(token_ids) :].tolist())
    return Generated(generated, watch.first_token_time or time.monotonic(), int(cache.get_seq_length()))
