"""Reject NaN and infinity in what a model computes, before anything of it is cached or answered."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor

from delayed_vlm_ros.errors import NonFiniteError

_NARROW_RANGE = torch.float16  # its largest number is 65504; that of bfloat16 and float32 is 3.4e38


def check_finite(values: torch.Tensor, name: str) -> None:
    """Reject a tensor with a NaN or infinity.

    One reduction and one copy of a flag from the device, which waits for ``values``.

    Args:
        values: Any shape, floating point.
        name: What the values are, for the error.

    Raises:
        NonFiniteError: An element is NaN or infinite.
    """
    # The extremes of any NaN are NaN; several times faster than looking at each element.
    if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        raise non_finite_error(name, values.dtype)


def non_finite_error(name: str, dtype: torch.dtype) -> NonFiniteError:
    """The error for values with a NaN or infinity: what, in which dtype, why and the remedy.

    Args:
        name: What the values are.
        dtype: In which the model computed them.
    """
    if dtype is _NARROW_RANGE:
        remedy = (
            f"numbers above {torch.finfo(dtype).max:.0f} overflow in this dtype: set the dtype (parameter model.dtype) "
            "to bfloat16 or float32"
        )
    else:
        remedy = "the weights are probably damaged: fetch the checkpoint again, or use another one"
    number_format = str(dtype).removeprefix("torch.")
    return NonFiniteError(
        f"the {name}, computed in {number_format}, contain NaN or infinity: {remedy}. Frames are kept"
    )


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Checks the logits of every step on the device; reading the result is left to the caller.

    A mask of single tokens with minus infinity, as sampling applies it, is allowed.

    Args:
        device: Where the logits are.

    Attributes:
        failed: Bool tensor without dimensions, whether any step had NaN, plus infinity, or only minus infinity.
    """

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any) -> Any:  # noqa: ARG002
        """Note whether a step's scores are usable; return usable ones, since sampling from NaN ends CUDA's context.

        Args:
            input_ids: Unused, ``(1, tokens)``.
            scores: ``(1, vocabulary)``.
        """
        self.failed = self.failed | ~torch.isfinite(scores.amax())  # the maximum of any NaN is NaN
        return torch.where(self.failed, torch.zeros_like(scores), scores)
