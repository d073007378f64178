"""What differs between model families: how a pair is encoded, and how a video's time is counted.

Importing this is light; an adapter, and torch with it, is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from delayed_vlm_ros.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

SUPPORTED_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
"""Each is a module of this package."""


class ModelAdapter(Protocol):
    """An adapter; a module with these functions is one."""

    def check(self, config: Any) -> None:
        """See whether a model's config says all that the adapter needs.

        Raises:
            UnsupportedModelError: It does not.
        """

    def encode_pairs(self, visual: Any, patches: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Features of several pairs, each for itself.

        Args:
            visual: The model's vision encoder.
            patches: ``(pairs, patches, patch elements)``, as the library's video processor cuts them.
            rows: Merged rows of a pair.
            columns: Merged columns of a pair.

        Returns:
            ``(pairs, rows × columns, hidden size)``.
        """

    def pair_times(self, config: Any, start_stamps: Sequence[float]) -> list[float]:
        """Where each pair stands on the temporal axis, unrounded, the first at 0.

        Args:
            config: The model's config.
            start_stamps: Of the pairs' first frames, in seconds, increasing.
        """


def adapter_of(config: Any) -> ModelAdapter:
    """The adapter for a model's config.

    Raises:
        UnsupportedModelError: There is none.
    """
    check_model_type("in use", str(config.model_type))
    family: Any = import_module(f"{__name__}.{config.model_type}")
    adapter: ModelAdapter = family
    return adapter


def check_model_type(name: str, model_type: str) -> None:
    """See whether there is an adapter.

    Args:
        name: The model, for the error.
        model_type: As its config names it.

    Raises:
        UnsupportedModelError: There is none.
    """
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise UnsupportedModelError(
            f"the model {name} is of type {model_type}; supported are {', '.join(SUPPORTED_MODEL_TYPES)}"
        )
