"""The sizes of a model that a plan needs, from the table of published models or from the files of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delayed_vlm_ros.errors import ModelNotFoundError
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, frame_geometry, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.published import PUBLISHED_MODELS, published_name
from delayed_vlm_ros.inference.local.models.quantization import EXPANDED_METHODS
from delayed_vlm_ros.inference.local.models.weights import stored_tensors

ELEMENT_BYTES = 2
"""Bytes of a number in bfloat16, the dtype on a GPU."""

_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes of a model.

    Attributes:
        name: Name on the hub, or folder.
        config: The fields of its ``config.json`` that define sizes.
        factor: Divisor of both image sides, in pixels.
        parameters: Number of parameters; of weights that stay quantised, their bytes ÷ ``ELEMENT_BYTES``.
        vision_parameters: Those of the vision encoder.
        is_tied: Whether one matrix embeds tokens and computes logits.
        quantization: Method by which the weights are quantised; empty: they are not.
        checkpoint: The checkpoint on this machine; None for sizes from the table.
    """

    name: str
    config: Mapping[str, Any]
    factor: int
    parameters: int
    vision_parameters: int
    is_tied: bool
    quantization: str = ""
    checkpoint: Checkpoint | None = None

    def frame_pixels(self, max_pixels: int) -> int:
        """Return the largest height × width of a frame in a memory that accepts ``max_pixels``.

        Raises:
            ConfigurationError: The model needs larger images.
        """
        if self.checkpoint is None:
            return frame_geometry(self.name, self.factor, self.factor**2, max_pixels).max_pixels
        geometry = self.checkpoint.geometry(max_pixels)
        only = geometry.only_size
        return geometry.max_pixels if only is None else only.height * only.width


def sizes_of(name: str) -> ModelSizes:
    """Return the sizes of a model.

    Args:
        name: Folder of a checkpoint, ``demo``, a published model such as ``Qwen2.5-VL-3B``, or another model in this
            user's cache of the hub.

    Raises:
        ModelNotFoundError: There is no such model.
        UnsupportedModelError: The checkpoint cannot be used.
    """
    is_folder = Path(name).expanduser().is_dir()
    known = None if is_folder else published_name(name)
    if known is None:
        try:
            return _of_checkpoint(resolve_checkpoint(name))
        except ModelNotFoundError as error:
            if is_folder:
                raise
            raise ModelNotFoundError(f"{error}; known without files: {', '.join(PUBLISHED_MODELS)}") from None
    model = PUBLISHED_MODELS[known]
    return ModelSizes(
        name=known,
        config=model.config,
        factor=model.factor,
        parameters=model.parameters,
        vision_parameters=model.vision_parameters,
        is_tied=bool(model.config["tie_word_embeddings"]),
    )


def _of_checkpoint(checkpoint: Checkpoint) -> ModelSizes:
    tensors = list(stored_tensors(checkpoint))
    stays_quantized = checkpoint.quantization and checkpoint.quantization not in EXPANDED_METHODS
    counts = {tensor.name: tensor.size // ELEMENT_BYTES if stays_quantized else tensor.weights for tensor in tensors}
    return ModelSizes(
        name=checkpoint.name,
        config=checkpoint.config,
        factor=checkpoint.factor,
        parameters=sum(counts.values()),
        vision_parameters=sum(counts[tensor.name] for tensor in tensors if tensor.is_vision),
        is_tied=_HEAD not in counts,
        quantization=checkpoint.quantization,
        checkpoint=checkpoint,
    )
