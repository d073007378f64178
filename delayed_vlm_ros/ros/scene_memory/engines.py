"""The model with one engine per camera, as it lives in the worker's thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, naming_parameters

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.cache.encoding import CachedBytes


class Engine(Protocol):
    """What the node needs of an engine."""

    def answer(self, request: AskRequest, control: AskControl | None = None) -> AskResult:
        """Answer about the camera's kept frames."""

    def precompute(self, control: AskControl | None = None, *, prefill: bool) -> bool:
        """Encode what is new ahead of the next ask."""

    def cached_bytes(self) -> CachedBytes:
        """Bytes kept between asks."""

    def reset_cache(self) -> None:
        """Drop what is kept of earlier asks."""

    def release(self) -> None:
        """Give the device's memory back."""


@dataclass(frozen=True)
class Engines:
    """The loaded model.

    Attributes:
        device: Where it runs.
        by_camera: The engine of each camera; they share the model.
    """

    device: str
    by_camera: Mapping[str, Engine]

    def precompute(self, control: AskControl, *, prefill: bool) -> None:
        """Encode what is new of every camera ahead of the next ask.

        Raises:
            DelayedVlmError: It was cancelled, or the device ran out of memory.
        """
        for engine in self.by_camera.values():
            engine.precompute(control, prefill=prefill)

    def reset_cache(self) -> None:
        """Drop what is kept of earlier asks about any camera."""
        for engine in self.by_camera.values():
            engine.reset_cache()

    def release(self) -> None:
        """Give the device's memory back."""
        for engine in self.by_camera.values():
            engine.release()


def load_engines(
    checkpoint: Checkpoint, parameters: SceneMemoryParameters, memories: Mapping[str, SmartFrameManager]
) -> Engines:
    """Load the model and make an engine for each camera's memory. Takes seconds to minutes.

    Raises:
        DelayedVlmError: It cannot be loaded; the text says why.
    """
    # Importing torch and transformers takes seconds: it belongs to loading.
    with explained_imports():
        from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
        from delayed_vlm_ros.inference.local.models.loading import load_model  # noqa: PLC0415

    loaded = load_model(checkpoint, device=parameters.device, dtype=parameters.dtype, attention=parameters.attention)
    by_camera: dict[str, Engine] = {}
    engines = Engines(loaded.device, by_camera)
    for camera, memory in memories.items():
        with naming_parameters("memory.budget_mb", "memory.max_pixels"):
            by_camera[camera] = DelayedBatchInferenceEngine(
                loaded.model,
                loaded.processor,
                max_pixels=parameters.max_pixels,
                frame_manager=memory,
                memory_budget_mb=parameters.budget_mb or None,
                budget_shares=len(parameters.cameras),
                features_on_host=parameters.features_on_host,
                canonical=parameters.canonical,
                warnings=checkpoint.warnings,
                # They share the device: what another camera's engine keeps must not cost this one a frame.
                on_oom=engines.reset_cache,
            )
    return engines
