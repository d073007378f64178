"""The model of an evaluation, on this machine or on a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.replay.answerers import Answerers
from delayed_vlm_ros.replay.runner import ReplaySettings
from delayed_vlm_ros.watches.runner import ScoringEngine


class ReplayModel(Protocol):
    """A model that can answer."""

    @property
    def is_remote(self) -> bool:
        """Whether it is on a server."""

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods of the evaluation."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Limitations of the model, one sentence each."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the evaluation, the model's included."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, device and model, for the report."""

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Return the image sizes that the model accepts."""

    def answerers(self, memory: SmartFrameManager, max_pixels: int) -> Answerers:
        """Return the methods for one recording.

        Args:
            memory: Memory of the delayed methods. The caller adds its frames.
            max_pixels: Maximum pixels per frame.
        """

    def watch_engine(self, memory: SmartFrameManager, max_pixels: int) -> ScoringEngine:
        """Return an engine for watches alone, so that their caches do not change the cost of questions."""

    def close(self) -> None:
        """Close the connection to a server."""


@dataclass(frozen=True)
class ModelIdentity:
    """What a result depends on besides the settings.

    Attributes:
        versions: Versions of the libraries that compute, and what else decides how.
        folder: Folder of the checkpoint; None: it is on a server.
    """

    versions: tuple[Any, ...] = ()
    folder: Path | None = None


def load_model(settings: ReplaySettings) -> ReplayModel:
    """Load a model, or connect to its server. Only a model on this machine imports torch.

    Raises:
        DelayedVlmError: The model cannot be used.
    """
    if is_remote(settings.model):
        from delayed_vlm_ros.replay.server_model import ServerModel  # noqa: PLC0415  imports the client library

        return ServerModel.connect(settings)
    from delayed_vlm_ros.replay.local_model import LocalModel  # noqa: PLC0415  imports torch

    return LocalModel.load(settings)


def model_identity(settings: ReplaySettings) -> ModelIdentity:
    """Return what a result depends on besides the settings.

    Raises:
        ModelNotFoundError: The checkpoint does not exist.
    """
    if is_remote(settings.model):
        return ModelIdentity()
    from delayed_vlm_ros.replay.local_model import local_identity  # noqa: PLC0415  imports torch

    return local_identity(settings)
