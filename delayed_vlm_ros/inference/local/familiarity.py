"""Detection of images unlike those that a small model was trained on, from its own vision features.

Features of familiar images lie near a subspace. The statistic is the share of a feature outside it, as the median over
the tokens of a pair: textures and shapes of real images leave the subspace nearly everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.ma  # np.median imports it at its first call, when descriptors may be short
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FAMILIAR_DIMENSIONS = 80
"""Dimensions of the subspace, of the 128 of the demo model's features."""

THRESHOLD = 0.038
"""Largest share outside the subspace of a familiar pair; measured on synthetic rooms and real videos."""

UNFAMILIAR_ANSWER = (
    "I know only synthetic scenes, and these images look different. Please choose a model for real images."
)
"""The answer of the demo model about other images."""


@dataclass(frozen=True, eq=False)
class FamiliarImages:
    """The images that a model knows.

    Attributes:
        mean: Mean feature, shape ``(hidden size,)``.
        outside: Orthonormal directions outside the subspace, shape ``(directions, hidden size)``.
    """

    mean: NDArray[np.float32]
    outside: NDArray[np.float32]

    def distance(self, features: torch.Tensor) -> float:
        """Return the median share of a pair's tokens outside the subspace, 0 … 1.

        Args:
            features: Features of a pair, shape ``(tokens, hidden size)``.
        """
        tokens = features.float().cpu().numpy()
        outside = np.linalg.norm((tokens - self.mean) @ self.outside.T, axis=-1)
        return float(np.median(outside / np.linalg.norm(tokens, axis=-1).clip(min=1e-6)))

    def contain(self, features: torch.Tensor) -> bool:
        """Return whether a pair with these features is like the known images."""
        return self.distance(features) <= THRESHOLD

    def save(self, file: Path) -> None:
        """Write the statistics to an ``.npz`` file."""
        np.savez(file, mean=self.mean, outside=self.outside)


def load_familiar_images(file: Path) -> FamiliarImages:
    """Return the statistics in a file that ``FamiliarImages.save`` wrote."""
    with np.load(file, allow_pickle=False) as stored:
        return FamiliarImages(stored["mean"], stored["outside"])


def fit_familiar_images(features: NDArray[Any]) -> FamiliarImages:
    """Return the statistics of features.

    Args:
        features: Features of tokens of familiar images, shape ``(tokens, hidden size)``.
    """
    tokens = features.astype(np.float64)
    _, directions = np.linalg.eigh(np.cov(tokens.T))  # ascending variance
    outside = directions[:, : tokens.shape[1] - FAMILIAR_DIMENSIONS].T
    return FamiliarImages(tokens.mean(axis=0).astype(np.float32), np.ascontiguousarray(outside, np.float32))


def are_mostly_unfamiliar(unfamiliar: int, pairs: int) -> bool:
    """Return whether more than half of the pairs are unfamiliar, so that an answer would be meaningless."""
    return 2 * unfamiliar > pairs


def unfamiliar_warnings(unfamiliar: int, pairs: int) -> tuple[str, ...]:
    """Return the warning about pairs of images that the demo model does not know.

    Args:
        unfamiliar: Number of such pairs.
        pairs: Number of pairs used.
    """
    if not unfamiliar:
        return ()
    effect = "the model was not asked" if are_mostly_unfamiliar(unfamiliar, pairs) else "the answer may be wrong"
    return (f"{unfamiliar} of {pairs} pairs of images are unlike the synthetic scenes of the demo model: {effect}",)
