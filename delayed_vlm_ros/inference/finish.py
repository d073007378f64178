"""Why an answer ended: complete, cut at its length limit, or stopped in a repetition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

FinishReason = Literal["stop", "length", "repetition"]

STOP: Final = "stop"
LENGTH: Final = "length"
REPETITION: Final = "repetition"

FINISH_REASONS: tuple[FinishReason, ...] = (STOP, LENGTH, REPETITION)
"""All reasons, from the best to the worst."""


def worst_reason(reasons: Iterable[FinishReason]) -> FinishReason:
    """Return the worst of one or more reasons."""
    return max(reasons, key=FINISH_REASONS.index)


def finish_warnings(reason: FinishReason, tokens: int) -> tuple[str, ...]:
    """Return the warnings of an answer that is not complete.

    Args:
        reason: Why the answer ended.
        tokens: Tokens of the answer.
    """
    length = "1 token" if tokens == 1 else f"{tokens} tokens"
    if reason == LENGTH:
        return (f"answer cut at {length} (max_new_tokens): ask for more tokens, or for a shorter answer",)
    if reason == REPETITION:
        return (f"answer stopped at {length}: the model repeats itself without end; ask in other words",)
    return ()
