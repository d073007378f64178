"""Detection of an answer that repeats itself without end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria

# A list or a table repeats words, but hardly ever the same tokens this often in direct succession.
_MIN_REPEATS = 5
_MIN_LOOP_TOKENS = 64
_CHECK_EVERY = 8  # tokens; a check waits for the device


def ends_in_loop(tokens: Sequence[int]) -> bool:
    """Return whether tokens end in the same sequence, at least five times in a row and over at least 64 tokens.

    Args:
        tokens: Tokens of an answer.
    """
    return any(
        _repeats(tokens, period, max(_MIN_LOOP_TOKENS, _MIN_REPEATS * period))
        for period in range(1, len(tokens) // _MIN_REPEATS + 1)
    )


def _repeats(tokens: Sequence[int], period: int, length: int) -> bool:
    """Return whether the last ``length`` tokens have this period."""
    if length > len(tokens):
        return False
    return tokens[-length:-period] == tokens[period - length :]


class RepetitionStop(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Stops the generation of an answer that ends in a loop.

    Args:
        prompt_tokens: Tokens before the answer.

    Attributes:
        stopped: Whether the answer was stopped.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self._prompt_tokens = prompt_tokens
        self.stopped = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Return whether to stop, shape ``(1,)``.

        Args:
            input_ids: Tokens of prompt and answer, shape ``(1, tokens)``.
            scores: Unused.
        """
        count = input_ids.shape[1] - self._prompt_tokens
        if count >= _MIN_LOOP_TOKENS and count % _CHECK_EVERY == 0:
            self.stopped = ends_in_loop(input_ids[0, self._prompt_tokens :].tolist())
        return torch.full((input_ids.shape[0],), self.stopped, dtype=torch.bool, device=input_ids.device)
