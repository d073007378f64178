"""Model adapters: how a model type encodes a pair, and how it is given the time of a video.

Importing this module does not import torch: a checkpoint is validated before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.models.validation import check_fields

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model type that are needed before torch is loaded.

    Attributes:
        patch_size: transformers' patch size for files that lack the field, in pixels.
        processors: Classes that may process its input, the usual one first.
        video_processor: Class of the video processor.
        time_is_text: Whether the model reads the time of a pair as text before it.
        limits_whole_video: Whether the video processor limits frames × height × width instead of height × width.
    """

    patch_size: int
    processors: tuple[str, ...]
    video_processor: str
    time_is_text: bool = False
    limits_whole_video: bool = False


_QWEN2_VL, _QWEN2_5_VL, _QWEN3_VL = "Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"
_TIME_IS_TEXT = ModelFacts(16, (_QWEN3_VL,), "Qwen3VLVideoProcessor", time_is_text=True, limits_whole_video=True)

MODEL_FACTS = {
    "qwen2_vl": ModelFacts(14, (_QWEN2_VL, _QWEN2_5_VL), "Qwen2VLVideoProcessor"),
    "qwen2_5_vl": ModelFacts(14, (_QWEN2_5_VL, _QWEN2_VL), "Qwen2VLVideoProcessor"),
    "qwen3_vl": _TIME_IS_TEXT,
    "qwen3_5": _TIME_IS_TEXT,
}
"""Facts of each supported model type."""

SUPPORTED_MODEL_TYPES = tuple(MODEL_FACTS)
"""Model types with an adapter; each names a module of this package with an ``ADAPTER``."""


@dataclass(frozen=True)
class ModelAdapter:
    """Differences between model types. A model is given the time of a pair by its position or by text.

    Attributes:
        required_fields: Fields that the vision config must have.
        encode_pairs: ``encode_pairs(visual, patches, rows, columns)`` returns the features of each pair, shape
            ``(pairs, rows × columns, levels × hidden size)``. ``visual`` is the model's vision encoder, ``patches`` has
            shape ``(pairs, patches, patch elements)`` as transformers' video processor cuts them, ``rows`` and
            ``columns`` count the merged tokens of a pair.
        video_output: ``video_output(config, features)`` returns the features of several pairs, shape
            ``(tokens, levels × hidden size)`` each, as the language model takes them.
        pair_times: ``pair_times(config, start_stamps)`` returns each pair's position on the temporal axis, unrounded,
            0 for the first pair. ``start_stamps`` are the stamps of the pairs' first frames in seconds, increasing.
            None: the model is given the time by text.
        time_text: ``time_text(seconds)`` returns the text before a pair whose frames were taken, on average, that long
            after the first frame of the video. None: the model is given the time by position.
    """

    required_fields: tuple[str, ...]
    encode_pairs: Callable[[Any, torch.Tensor, int, int], torch.Tensor]
    video_output: Callable[[Any, Sequence[torch.Tensor]], Any]
    pair_times: Callable[[Any, Sequence[float]], list[float]] | None = None
    time_text: Callable[[float], str] | None = None

    def check(self, config: Any) -> None:
        """Check that a model's config has all fields that the adapter needs.

        Raises:
            UnsupportedModelError: A field is missing, or the temporal patch is not a pair of frames.
        """
        check_fields(config, *self.required_fields)


def adapter_for(config: Any) -> ModelAdapter:
    """Return the adapter for a model's config. Imports torch.

    Raises:
        UnsupportedModelError: The model type has no adapter.
    """
    check_model_type(str(getattr(config, "name_or_path", "")), str(config.model_type))
    adapter: ModelAdapter = import_module(f"{__package__}.{config.model_type}").ADAPTER
    return adapter


def check_model_type(name: str, model_type: str) -> None:
    """Check that a model type has an adapter.

    Args:
        name: Name of the model, for the error.
        model_type: Model type in the model's config.

    Raises:
        UnsupportedModelError: The model type has no adapter.
    """
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise UnsupportedModelError(
            f"cannot use the model {name}: its type {model_type} is not supported, use one of "
            f"{', '.join(SUPPORTED_MODEL_TYPES)}"
        )
