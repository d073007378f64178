"""The weights in the files of a checkpoint: how many, and how many bytes. Reads their headers only, without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import UnsupportedModelError
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint
from delayed_vlm_ros.inference.local.models.files import weight_files
from delayed_vlm_ros.inference.local.models.quantization import packed_weights

_DEFAULT_BITS = 8  # of a dtype without a number in its name


class StoredTensor(NamedTuple):
    """A tensor in a weight file.

    Attributes:
        name: Its name.
        weights: Number of its weights; of packed ones that transformers does not expand, a lower bound.
        size: Its bytes in the file.
    """

    name: str
    weights: int
    size: int

    @property
    def is_vision(self) -> bool:
        """Whether it belongs to the vision encoder."""
        return "visual." in self.name


def stored_tensors(checkpoint: Checkpoint) -> Iterator[StoredTensor]:
    """Yield the tensors in the weight files of a checkpoint.

    Raises:
        ModelNotFoundError: There are no weights, or a file of the index is missing.
        UnsupportedModelError: A file is damaged, or the index is invalid.
    """
    with explained_imports():
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415  part of an extra

    for file in weight_files(checkpoint.name, checkpoint.path):
        try:
            with safe_open(file, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118
                    tensor = weights.get_slice(name)
                    stored, elements = tensor.get_dtype(), math.prod(tensor.get_shape())
                    yield StoredTensor(
                        name, elements * packed_weights(name, stored, checkpoint.config), elements * _bits(stored) // 8
                    )
        except (OSError, SafetensorError) as failure:
            raise UnsupportedModelError(
                f"{file.name} of {checkpoint.name} in {checkpoint.path} is damaged ({failure}): download it again"
            ) from failure


def _bits(stored: str) -> int:
    """Return the bits of an element, from names such as ``BF16`` and ``F8_E4M3``."""
    number = re.search(r"\d+", stored)
    return int(number[0]) if number else _DEFAULT_BITS
