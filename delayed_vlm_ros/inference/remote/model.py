"""A model on a server, before it is connected. This module imports no client library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import ServerAddress, parse_address
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.worker import IdleTask
from delayed_vlm_ros.ingest.geometry import FrameGeometry

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.engine import Engine
    from delayed_vlm_ros.inference.remote.connection import ServerConnection
    from delayed_vlm_ros.inference.remote.engine import RemoteEngine
    from delayed_vlm_ros.memory import SmartFrameManager

_Loaded = TypeVar("_Loaded")

SERVER = "server"
"""Device of a model that is not on this machine."""

_CHECK_PERIOD_SEC = 5.0
_UNENCRYPTED_KEY = (
    "the key of the model server travels unencrypted (http): use an https address, or a network that nobody else uses"
)


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A model on a server.

    Attributes:
        address: The server and its model.
        settings: Settings of the engines.
    """

    address: ServerAddress
    settings: RemoteSettings = field(default_factory=RemoteSettings)

    @property
    def name(self) -> str:
        """Name of the model, as requested."""
        return str(self.address)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the connection, one sentence each."""
        return (_UNENCRYPTED_KEY,) if self.settings.api_key_env and not self.address.is_encrypted else ()

    def geometry(self, max_pixels: int) -> FrameGeometry:
        """Return the image sizes for a memory whose frames have at most ``max_pixels`` pixels (height × width).

        Raises:
            ConfigurationError: A frame has at least one cell of ``frame_multiple`` × ``frame_multiple`` pixels.
        """
        factor = self.settings.frame_multiple
        if max_pixels < factor**2:
            raise ConfigurationError(
                f"max_pixels is {max_pixels}, but a frame has {factor**2} pixels or more: raise it"
            )
        return FrameGeometry(factor, factor**2, max_pixels)

    def connect(self) -> ServerConnection:
        """Return a connection, which reaches the server at the first question. Importing the client takes seconds.

        Raises:
            ConfigurationError: The environment variable of the key is not set.
            DependencyError: The client library is not installed.
        """
        with explained_imports():
            from delayed_vlm_ros.inference.remote.connection import ServerConnection  # noqa: PLC0415

        return ServerConnection(self.address, self.settings)

    def engine(self, memory: SmartFrameManager, connection: ServerConnection) -> RemoteEngine:
        """Return the engine of one camera's memory."""
        from delayed_vlm_ros.inference.remote.engine import RemoteEngine  # noqa: PLC0415

        return RemoteEngine(memory, connection, self.settings)

    def with_fallback(
        self, remote: RemoteEngine, connection: ServerConnection, load_local: Callable[[], Engine], local_name: str
    ) -> Engine:
        """Return an engine that uses another one while the server is away; arguments as for ``FallbackEngine``."""
        from delayed_vlm_ros.inference.remote.fallback import FallbackEngine  # noqa: PLC0415

        return FallbackEngine(remote, connection, load_local, local_name)


def remote_model(name: str, settings: RemoteSettings | None = None) -> RemoteModel:
    """Return the model of a name such as ``openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct``.

    Raises:
        ConfigurationError: The name is invalid, or the environment variable of the key is not set.
    """
    settings = settings or RemoteSettings()
    settings.api_key()
    return RemoteModel(parse_address(name), settings)


def server_check(server_of: Callable[[_Loaded], ServerConnection | None]) -> IdleTask[_Loaded]:
    """Return a worker's idle task that checks that the server is there.

    Args:
        server_of: Returns the connection of what the worker has loaded; None: it has none.
    """

    def check(loaded: _Loaded, control: AskControl) -> None:
        server = server_of(loaded)
        if server is not None:
            server.check(control)

    return IdleTask("check of the model server", check, quiet_sec=0.0, period_sec=_CHECK_PERIOD_SEC)
