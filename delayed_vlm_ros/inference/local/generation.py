"""Generate an answer behind an encoded prefix, with the library's own ``generate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.finite import FiniteLogits, non_finite_error
from delayed_vlm_ros.inference.progress import Progress, Stage


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
    """Called after every token: notes the first one's time, reports the text, ends a cancelled, late or failed ask."""

    def __init__(
        self,
        control: AskControl,
        decode: Callable[[Sequence[int]], str],
        prompt_tokens: int,
        logits: FiniteLogits,
    ) -> None:
        self._control = control
        self._logits = logits
        self._decode = decode
        self._prompt_tokens = prompt_tokens
        self.first_token_time: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        if self.first_token_time is None:
            self.first_token_time = time.monotonic()
        self._control.check()
        # Only a copy of the text waits for the device here: the library reads the returned flag in its own time.
        if self._control.wants_text and not self._logits.failed:
            tokens = input_ids[0, self._prompt_tokens :].tolist()
            self._control.report(Progress(Stage.GENERATING, whole_characters(self._decode(tokens)), len(tokens)))
        return self._logits.failed.expand(input_ids.shape[0])


def whole_characters(text: str) -> str:
    """The beginning of a text that will not change as more of its tokens come.

    A token may end inside a character, which is decoded as U+FFFD until the rest of it is there; white space at the end
    is none of an answer unless something follows.
    """
    return text.rstrip("\ufffd").strip()


@torch.inference_mode()
def generate_answer(
    model: Any,
    token_ids: list[int],
    positions: torch.Tensor,
    cache: Cache,
    *,
    max_new_tokens: int,
    control: AskControl,
    decode: Callable[[Sequence[int]], str],
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
        control: Looked at, and told, after every token.
        decode: Makes text of the answer's tokens.

    Raises:
        AskCancelledError: The ask was cancelled.
        AskTimeoutError: Its deadline has passed.
        NonFiniteError: A step's logits contain NaN or infinity.
    """
    ids = torch.tensor([token_ids], device=model.device)
    logits = FiniteLogits(model.device)
    watch = _Watch(control, decode, len(token_ids), logits)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        max_new_tokens=max_new_tokens,
        logits_processor=LogitsProcessorList([logits]),
        stopping_criteria=StoppingCriteriaList([watch]),
    )
    if logits.failed:
        raise non_finite_error("logits", model.dtype)
    generated = tuple(output[0, len(token_ids) :].tolist())
    return Generated(generated, watch.first_token_time or time.monotonic(), int(cache.get_seq_length()))
