"""A model on a server, and the model on this machine that answers while the server is away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from delayed_vlm_ros.dependencies import is_installed, missing
from delayed_vlm_ros.errors import ConfigurationError, DependencyError
from delayed_vlm_ros.inference.engine import Engine
from delayed_vlm_ros.inference.remote.address import is_remote
from delayed_vlm_ros.inference.remote.model import SERVER, RemoteModel, remote_model, server_check
from delayed_vlm_ros.inference.remote.settings import Encoding, RemoteSettings
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory.context import NodeContext
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.local_model import LocalModel, resolve_local_model
from delayed_vlm_ros.ros.scene_memory.model import NodeModel, logged
from delayed_vlm_ros.ros.scene_memory.parameters import (
    AUTO,
    LOCAL,
    NONE,
    OFF,
    SceneMemoryParameters,
    naming_parameters,
)


@dataclass(frozen=True)
class RemoteNodeModel:
    """A ``NodeModel`` on a server.

    Attributes:
        model: The model on the server.
        parameters: Parameters of the node.
        context: Parts of the node.
        fallback: Model on this machine that answers while the server is away; None: none.
    """

    model: RemoteModel
    parameters: SceneMemoryParameters
    context: NodeContext
    fallback: LocalModel | None = None

    @property
    def name(self) -> str:
        """Name of the model, as requested."""
        return self.model.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the connection, and settings without effect."""
        return (*self.model.warnings, *_settings_without_effect(self.parameters))

    @property
    def geometry(self) -> FrameGeometry:
        """Image sizes of the memories: those of the fallback, which accepts no others."""
        if self.fallback is not None:
            return self.fallback.geometry
        with naming_parameters("memory.max_pixels", "remote.frame_multiple"):
            return self.model.geometry(self.parameters.max_pixels)

    @property
    def budget_bytes(self) -> int:
        """Return 0: only images are kept, and the memory sizes are their bound."""
        return 0

    @property
    def unload_after_idle_sec(self) -> float | None:
        """Return None: nothing is loaded here."""
        return None

    @property
    def idle_tasks(self) -> Sequence[IdleTask[Engines]]:
        """Checks that the server is there."""
        return (server_check(lambda loaded: loaded.server),)

    def load(self, memories: Mapping[str, SmartFrameManager], worker: ModelWorker[Engines]) -> Engines:
        """Build the engines. They reach the server at the first question.

        Raises:
            DelayedVlmError: The client library is not installed, or the key is not set.
        """
        logger = self.context.logger
        with logged(logger, f"cannot use the model {self.name}"):
            server = self.model.connect()
        by_camera: dict[str, Engine] = {}
        local = None if self.fallback is None else _LocalEngines(self.fallback, memories, worker)
        for camera, memory in memories.items():
            remote = self.model.engine(memory, server)
            by_camera[camera] = remote
            if local is not None:
                by_camera[camera] = self.model.with_fallback(
                    remote, server, partial(local.engine, camera), local.model.name
                )
        logger.info(f"questions go to the model server {server.address.host}")
        return Engines(SERVER, by_camera, server=server, on_close=None if local is None else local.close)

    def unload(self, loaded: Engines) -> None:
        """Close the connection, and free the device of the fallback."""
        with logged(self.context.logger, f"cannot close the connection to {self.name}"):
            loaded.close()


class _LocalEngines:
    """The engines of the fallback, loaded when the first of them is needed."""

    def __init__(
        self, model: LocalModel, memories: Mapping[str, SmartFrameManager], worker: ModelWorker[Engines]
    ) -> None:
        self.model = model
        self._memories = memories
        self._worker = worker
        self._loaded: Engines | None = None

    def engine(self, camera: str) -> Engine:
        """Return the engine of a camera."""
        if self._loaded is None:
            logger = self.model.context.logger
            logger.warning(f"the model {self.model.name} on this machine answers while the model server is away")
            self._loaded = self.model.load(self._memories, self._worker)
        return self._loaded.by_camera[camera]

    def close(self) -> None:
        """Free the device."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self.model.unload(loaded)


def resolve_model(parameters: SceneMemoryParameters, context: NodeContext) -> NodeModel:
    """Find the model of the parameters, and validate what can be validated quickly.

    Raises:
        ConfigurationError: A parameter is invalid.
        DependencyError: A package of the fallback is not installed.
        ModelNotFoundError: The checkpoint is not on this machine.
        UnsupportedModelError: The checkpoint has no adapter.
    """
    if not is_remote(parameters.model):
        return resolve_local_model(parameters.model, parameters, context)
    model = remote_model(
        parameters.model,
        RemoteSettings(
            encoding=Encoding(parameters.remote_encoding),
            api_key_env=parameters.remote_api_key_env,
            jpeg_quality=parameters.remote_jpeg_quality,
            frame_multiple=parameters.remote_frame_multiple,
        ),
    )
    return RemoteNodeModel(model, parameters, context, _fallback(parameters, context))


def _fallback(parameters: SceneMemoryParameters, context: NodeContext) -> LocalModel | None:
    name = parameters.remote_fallback.strip()
    if name in ("", NONE):
        return None
    if is_remote(name):
        raise ConfigurationError(
            f"parameter remote.fallback must be none, local or a model on this machine, got '{name}'"
        )
    if not is_installed("torch"):
        raise DependencyError(f"remote.fallback is {name}, but {missing('torch')}")
    return resolve_local_model(AUTO if name == LOCAL else name, parameters, context)


def _settings_without_effect(parameters: SceneMemoryParameters) -> tuple[str, ...]:
    names = {
        "precompute.mode": parameters.precompute != OFF,
        "memory.budget_mb": bool(parameters.budget_mb),
        "model.unload_after_idle_sec": bool(parameters.unload_after_idle_sec),
    }
    unused = [name for name, is_set in names.items() if is_set]
    if not unused:
        return ()
    return (f"parameters without effect with a model server: {', '.join(unused)}",)
