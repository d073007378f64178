"""The loaded model with one engine per camera, owned by the worker's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.engine import Engine
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory.parameters import SceneMemoryParameters, naming_parameters

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.remote.connection import ServerConnection


@dataclass(frozen=True)
class Engines:
    """The loaded model.

    Attributes:
        device: Device of the model; ``server`` if it is not on this machine.
        by_camera: Engine of each camera; all engines share the model.
        notes: Settings of the checkpoint that answers do not follow, one sentence each, to report once.
        server: Connection to the server of a remote model; None: the model is on this machine.
        on_close: Called after all engines are closed.
    """

    device: str
    by_camera: Mapping[str, Engine]
    notes: tuple[str, ...] = ()
    server: ServerConnection | None = None
    on_close: Callable[[], None] | None = None

    @property
    def fault(self) -> str:
        """Why the model's server cannot be used; empty if it can. Safe to read in any thread."""
        return "" if self.server is None else self.server.fault

    def precompute(self, control: AskControl, *, prefill: bool) -> None:
        """Encode the new frames of every camera before the next question.

        Raises:
            DelayedVlmError: The task was cancelled, or the device ran out of memory.
        """
        for engine in self.by_camera.values():
            engine.precompute(control, prefill=prefill)

    def reset_cache(self) -> None:
        """Drop everything computed for earlier questions about any camera."""
        for engine in self.by_camera.values():
            engine.reset_cache()

    def close(self) -> None:
        """Free the device memory, or close the connection."""
        for engine in self.by_camera.values():
            engine.close()
        if self.on_close is not None:
            self.on_close()


def load_engines(
    checkpoint: Checkpoint, parameters: SceneMemoryParameters, memories: Mapping[str, SmartFrameManager]
) -> Engines:
    """Load the model and build an engine for each camera's memory. Takes seconds to minutes.

    Raises:
        DelayedVlmError: The model cannot be loaded.
    """
    # torch and transformers take seconds to import, and only the worker's thread may wait that long.
    with explained_imports():
        from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
        from delayed_vlm_ros.inference.local.models.loading import load_model  # noqa: PLC0415

    loaded = load_model(
        checkpoint,
        device=parameters.device,
        dtype=parameters.dtype,
        attention=parameters.attention,
        sampling=parameters.sampling,
    )
    by_camera: dict[str, Engine] = {}
    engines = Engines(loaded.device, by_camera, loaded.notes)
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
                stop_repetition=parameters.stop_repetition,
                sampling=parameters.sampling,
                warnings=checkpoint.warnings,
                familiar_images=loaded.familiar_images,
                # The engines share the device: caches of other cameras are dropped before this one drops frames.
                on_oom=engines.reset_cache,
            )
    return engines
