"""The model of an evaluation on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.device import dtype_name
from delayed_vlm_ros.inference.local.models.loading import LoadedModel, load_model
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.replay.local_answerers import LocalAnswerers
from delayed_vlm_ros.replay.models import ModelIdentity
from delayed_vlm_ros.replay.runner import ReplaySettings

_DEMO_IS_ASKED = (
    "the replay asks the demo model about all images; the node does not ask it about images unlike its synthetic "
    "scenes: its answers and scores on a recording of a real camera mean nothing"
)


@dataclass(frozen=True)
class LocalModel:
    """A loaded model; see ``ReplayModel``.

    Attributes:
        checkpoint: Its checkpoint.
        loaded: Model and processor.
        methods: Methods of the evaluation.
    """

    checkpoint: Checkpoint
    loaded: LoadedModel
    methods: tuple[str, ...]

    is_remote = False

    @classmethod
    def load(cls, settings: ReplaySettings) -> LocalModel:
        """Load a model.

        Raises:
            ModelError: The model cannot be loaded.
        """
        checkpoint = resolve_checkpoint(settings.model, device=settings.device)
        loaded = load_model(checkpoint, device=settings.device, dtype=settings.dtype)
        return cls(checkpoint, loaded, settings.methods)

    @property
    def notes(self) -> tuple[str, ...]:
        """Limitations of the model, one sentence each."""
        return (*self.checkpoint.warnings, *self.loaded.notes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the evaluation, the model's included."""
        asked = () if self.loaded.familiar_images is None else (_DEMO_IS_ASKED,)
        return (*self.checkpoint.warnings, *asked, *self.loaded.notes)

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions, device and model, for the report."""
        device = self.loaded.device
        if device.startswith("cuda"):
            device = f"{device}, {torch.cuda.get_device_name(device)}"
        return {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "device": device,
            "dtype": dtype_name(self.loaded.model.dtype),
            "model": self.checkpoint.name,
            "model type": self.loaded.model.config.model_type,
        }

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Return the image sizes that the model accepts."""
        return self.checkpoint.geometry(max_pixels)

    def answerers(self, memory: SmartFrameManager, max_pixels: int) -> LocalAnswerers:
        """Return the methods for one recording; arguments as for ``ReplayModel``."""
        return LocalAnswerers(self.loaded.model, self.loaded.processor, memory, self.methods, max_pixels)

    def watch_engine(self, memory: SmartFrameManager, max_pixels: int) -> DelayedBatchInferenceEngine:
        """Return an engine for watches alone, so that their caches do not change the cost of questions."""
        model, processor = self.loaded.model, self.loaded.processor
        return DelayedBatchInferenceEngine(model, processor, max_pixels=max_pixels, frame_manager=memory)

    def close(self) -> None:
        """Do nothing: there is no server."""


def local_identity(settings: ReplaySettings) -> ModelIdentity:
    """Return what a result depends on besides the settings.

    Raises:
        ModelNotFoundError: The checkpoint does not exist.
    """
    checkpoint = resolve_checkpoint(settings.model, device=settings.device)
    return ModelIdentity((torch.__version__, transformers.__version__, torch.cuda.is_available()), checkpoint.path)
