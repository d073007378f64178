"""Address of a model server: ``openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from delayed_vlm_ros.errors import ConfigurationError, without_credentials

_PREFIX = "openai:"
_EXAMPLE = f"{_PREFIX}http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A model on a server.

    Attributes:
        base_url: Address of the API, such as ``http://server:8000/v1``.
        model: Name under which the server serves the model; empty: its only model.
    """

    base_url: str
    model: str = ""

    @property
    def host(self) -> str:
        """Host and port, for messages."""
        return urlsplit(self.base_url).netloc

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection uses TLS."""
        return self.base_url.startswith("https:")

    def __str__(self) -> str:
        """Return the name of the model as the parameter ``model.name`` has it."""
        return f"{_PREFIX}{self.base_url}{f'#{self.model}' if self.model else ''}"


def is_remote(model: str) -> bool:
    """Return whether the name of a model is the address of one on a server."""
    return model.strip().startswith(_PREFIX)


def parse_address(name: str) -> ServerAddress:
    """Parse the name of a model on a server.

    Args:
        name: Name such as ``openai:http://server:8000/v1#Qwen/Qwen3-VL-8B-Instruct``.

    Raises:
        ConfigurationError: The name is invalid, or has a password.
    """
    text = name.strip().removeprefix(_PREFIX)
    url, _, model = text.partition("#")
    parts = _split(url)
    if parts is None:
        raise ConfigurationError(
            f"invalid model server '{without_credentials(name)}': use an address such as {_EXAMPLE}"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"the address of the model server {parts.hostname} has a user or password: put the key into an environment "
            "variable and its name into remote.api_key_env"
        )
    return ServerAddress(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", model.strip())


def _split(url: str) -> SplitResult | None:
    """Return the parts of a valid address."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port
        return None
    return parts if is_valid and not parts.query and not any(map(str.isspace, url)) else None
