"""Rejection of NaN and infinity in the model's output, before any of it is cached or answered."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor

from delayed_vlm_ros.errors import NonFiniteError
from delayed_vlm_ros.inference.local.models.device import dtype_name

_NARROW_DTYPE = torch.float16  # its largest number is 65504; that of bfloat16 and float32 is 3.4e38


def check_finite(values: torch.Tensor, name: str) -> None:
    """Check a tensor for NaN and infinity.

    The check costs one reduction and the copy of one flag from the device; it waits for ``values``.

    Args:
        values: Floating-point tensor of any shape.
        name: Name of the values, for the error.

    Raises:
        NonFiniteError: An element is NaN or infinite.
    """
    # Minimum and maximum propagate NaN, and are several times faster than a test of each element.
    if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        raise non_finite_error(name, values.dtype)


def non_finite_error(name: str, dtype: torch.dtype) -> NonFiniteError:
    """Return the error for values with NaN or infinity.

    Args:
        name: Name of the values.
        dtype: Dtype of the computation.
    """
    if dtype is _NARROW_DTYPE:
        remedy = (
            f"numbers above {torch.finfo(dtype).max:.0f} overflow in this dtype: set the dtype (parameter model.dtype) "
            "to bfloat16 or float32"
        )
    else:
        remedy = "the weights are probably damaged: download the checkpoint again, or use another one"
    return NonFiniteError(
        f"the {name}, computed in {dtype_name(dtype)}, contain NaN or infinity: {remedy}. The memory keeps its frames"
    )


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Checks the logits of every step on the device. The caller reads the result.

    Single tokens may be masked with minus infinity, as sampling does.

    Args:
        device: Device of the logits.

    Attributes:
        failed: Whether any step had NaN, plus infinity, or only minus infinity; bool tensor without dimensions.
    """

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any) -> Any:  # noqa: ARG002
        """Record whether a step's scores are usable, and return usable scores.

        Sampling from NaN would destroy the CUDA context.

        Args:
            input_ids: Unused, shape ``(1, tokens)``.
            scores: Logits, shape ``(1, vocabulary)``.
        """
        self.failed = self.failed | ~torch.isfinite(scores.amax())  # the maximum propagates NaN
        return torch.where(self.failed, torch.zeros_like(scores), scores)
