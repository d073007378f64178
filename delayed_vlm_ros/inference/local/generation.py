"""Generation of an answer after an encoded prefix, with transformers' own ``generate``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.finish import LENGTH, REPETITION, STOP, FinishReason
from delayed_vlm_ros.inference.local.finite import FiniteLogits, non_finite_error
from delayed_vlm_ros.inference.local.models.decoding import generate_arguments
from delayed_vlm_ros.inference.local.repetition import RepetitionStop
from delayed_vlm_ros.inference.progress import Progress, Stage


@dataclass(frozen=True, slots=True)
class Generated:
    """The tokens of an answer.

    Attributes:
        token_ids: Generated tokens, the end token included.
        first_token_time: Time of the first token, in seconds on the clock of ``time.monotonic``.
        cache_length: Tokens in the KV cache at the end.
        finish_reason: Why the answer ended.
    """

    token_ids: tuple[int, ...]
    first_token_time: float
    cache_length: int
    finish_reason: FinishReason


class _TokenCallback(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Called after every token: records the time of the first one, reports the text, stops a question that must end."""

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
        # Only a report of text waits for the device here; transformers reads the returned flag later.
        if self._control.wants_text and not self._logits.failed:
            tokens = input_ids[0, self._prompt_tokens :].tolist()
            self._control.report(Progress(Stage.GENERATING, whole_characters(self._decode(tokens)), len(tokens)))
        return self._logits.failed.expand(input_ids.shape[0])


def whole_characters(text: str) -> str:
    """Return the part of a growing text that further tokens will not change.

    A token may end inside a character: it is decoded as U+FFFD until the character is complete. White space at the end
    is part of the answer only if more text follows.
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
    stop_repetition: bool = True,
    sampling: bool = False,
) -> Generated:
    """Prefill the part of the prompt that the cache lacks, then decode.

    The whole prompt is passed, because processors such as the repetition penalty count its tokens. Positions are
    explicit, because transformers would otherwise use the offset of its last call.

    Args:
        model: Model from transformers; the penalties in its generation config apply.
        token_ids: Ids of the whole prompt.
        positions: Position ids of the whole prompt, shape (3, 1, tokens).
        cache: KV of the beginning of the prompt; grows.
        max_new_tokens: Length limit of the answer in tokens.
        control: Control of the question, checked and informed after every token.
        decode: Returns the text of token ids.
        stop_repetition: Whether to stop an answer that repeats itself without end.
        sampling: Whether to follow the sampling settings in the model's generation config.

    Raises:
        AskCancelledError: The question was cancelled.
        AskTimeoutError: The deadline has passed.
        NonFiniteError: The logits of a step contain NaN or infinity.
    """
    ids = torch.tensor([token_ids], device=model.device)
    logits = FiniteLogits(model.device)
    callback = _TokenCallback(control, decode, len(token_ids), logits)
    repetition = RepetitionStop(len(token_ids))
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        logits_processor=LogitsProcessorList([logits]),
        stopping_criteria=StoppingCriteriaList([callback, *([repetition] if stop_repetition else [])]),
        **generate_arguments(model.generation_config.to_dict(), max_new_tokens, sampling=sampling),
    )
    if logits.failed:
        raise non_finite_error("logits", model.dtype)
    generated = tuple(output[0, len(token_ids) :].tolist())
    return Generated(
        generated,
        callback.first_token_time or time.monotonic(),
        int(cache.get_seq_length()),
        finish_reason(model, generated, repetition),
    )


def finish_reason(model: Any, token_ids: Sequence[int], repetition: RepetitionStop) -> FinishReason:
    """Return why an answer ended. An end token that is also the last one allowed completes the answer.

    Args:
        model: Model from transformers.
        token_ids: Tokens of the answer, the end token included.
        repetition: Criterion that the answer was generated with.
    """
    end = model.generation_config.eos_token_id
    if token_ids and token_ids[-1] in ([end] if isinstance(end, int) else end or ()):
        return STOP
    return REPETITION if repetition.stopped else LENGTH
