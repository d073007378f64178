"""The model of the in-process backend, on this machine or on a server."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.inference.engine import Engine
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.model import SERVER, RemoteModel, remote_model
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.memory import SmartFrameManager

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.remote.connection import ServerConnection

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model that can answer.

    Attributes:
        engine: Engine of the memory.
        device: Device of the model; ``server`` if it is not on this machine.
        server: Connection to the server; None: the model is on this machine.
    """

    engine: Engine
    device: str
    server: ServerConnection | None = None

    @property
    def fault(self) -> str:
        """Why the model's server cannot be used; empty if it can. Safe to read in any thread."""
        return "" if self.server is None else self.server.fault


def resolve_model(name: str, device: str, remote: RemoteSettings) -> Checkpoint | RemoteModel:
    """Find a model.

    Args:
        name: Model as for ``resolve_checkpoint``, or address of a model server.
        device: Device of a model on this machine: ``auto``, ``cpu`` or ``cuda[:N]``.
        remote: Settings for a model server.

    Raises:
        DelayedVlmError: There is no such model on this machine, or the address is invalid.
    """
    return remote_model(name, remote) if is_remote(name) else resolve_checkpoint(name, device=device)


def load_engine(
    model: Checkpoint | RemoteModel, device: str, memory: SmartFrameManager, max_pixels: int
) -> LoadedModel:
    """Return a model that can answer. Takes seconds to minutes.

    Args:
        model: The model.
        device: Device of a model on this machine.
        memory: Memory to answer about.
        max_pixels: Largest height × width of a kept frame.

    Raises:
        DelayedVlmError: The model cannot be loaded.
    """
    if isinstance(model, RemoteModel):
        server = model.connect()
        return LoadedModel(model.engine(memory, server), SERVER, server)
    # Importing torch and transformers takes seconds, so it is part of loading.
    with explained_imports():
        from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
        from delayed_vlm_ros.inference.local.models.loading import load_model  # noqa: PLC0415

    loaded = load_model(model, device=device)
    for note in loaded.notes:
        _LOGGER.warning(note)
    engine = DelayedBatchInferenceEngine(
        loaded.model,
        loaded.processor,
        max_pixels=max_pixels,
        frame_manager=memory,
        warnings=model.warnings,
        familiar_images=loaded.familiar_images,
    )
    return LoadedModel(engine, loaded.device)
