"""Connection to a model server: what it can do, and whether it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from delayed_vlm_ros.errors import AskTimeoutError, BusyError, ModelError, ModelNotReadyError, ServerError
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.remote.address import ServerAddress
from delayed_vlm_ros.inference.remote.capabilities import Capabilities, probe
from delayed_vlm_ros.inference.remote.client import CacheMissError, ChatRequest, ChatResult, ServerClient
from delayed_vlm_ros.inference.remote.settings import RemoteSettings

_CHECK_SEC = 5.0


class ServerConnection:
    """Connection to a model server, shared by the engines of all cameras. Only one thread may use it at a time.

    Args:
        address: The server and its model.
        settings: Settings of the engines.

    Raises:
        ConfigurationError: The environment variable of the key is not set.
    """

    def __init__(self, address: ServerAddress, settings: RemoteSettings) -> None:
        self._requested = address
        self._settings = settings
        self._client = ServerClient(address, settings.api_key())
        self._capabilities: Capabilities | None = None
        self._error: ModelError | None = None  # replaced as a whole: other threads read it

    @property
    def address(self) -> ServerAddress:
        """The server and its model."""
        return self._client.address

    @property
    def bytes_sent(self) -> int:
        """Size of the bodies of all requests so far."""
        return self._client.bytes_sent

    @property
    def fault(self) -> str:
        """Why the server could not be used when it was last tried; empty if it could. Safe to read in any thread."""
        return "" if self._error is None else str(self._error)

    @property
    def is_away(self) -> bool:
        """Whether the server could not be reached when it was last tried."""
        return isinstance(self._error, ModelNotReadyError)

    def capabilities(self, control: AskControl) -> Capabilities:
        """Return what the server can do; ask it if it was not asked since it was last away.

        Raises:
            DelayedVlmError: As for ``probe``.
        """
        if self._capabilities is None:
            with self._noted():
                self._name_model(control)
                self._capabilities = probe(self._client, self._settings, control)
        return self._capabilities

    def chat(
        self, request: ChatRequest, control: AskControl, on_text: Callable[[Sequence[str]], None] | None = None
    ) -> ChatResult:
        """Return the model's answer.

        Raises:
            DelayedVlmError: As for ``ServerClient.chat``.
        """
        with self._noted():
            return self._client.chat(request, control, on_text)

    def chat_all(self, requests: Sequence[ChatRequest], control: AskControl, *, at_once: int) -> list[ChatResult]:
        """Return the answers to several requests.

        Raises:
            DelayedVlmError: As for ``ServerClient.chat_all``.
        """
        with self._noted():
            return self._client.chat_all(requests, control, at_once=at_once)

    def check(self, control: AskControl) -> None:
        """Bring ``fault`` up to date by a request that costs the model nothing.

        Raises:
            AskCancelledError: The check was cancelled.
        """
        control.deadline = time.monotonic() + _CHECK_SEC
        try:
            self._client.check(control)
        except AskTimeoutError:
            self._note(
                ModelNotReadyError(f"the model server {self.address.host} does not answer within {_CHECK_SEC:g} s")
            )
        except ModelError as error:
            self._note(error)
        except BusyError:
            pass
        else:
            if self.is_away:  # otherwise it has refused a question, which only an answer can end
                self._error = None

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _name_model(self, control: AskControl) -> None:
        """Take the only model of the server if the address names none.

        Raises:
            ServerError: It serves none or several.
        """
        address = self._requested
        if address.model:
            return
        names = [*self._client.models(control)]
        if len(names) != 1:
            raise ServerError(
                f"the model server {address.host} serves {len(names)} models ({', '.join(names)}): name one, as in "
                f"{address}#{names[0] if names else 'MODEL'}"
            )
        self._client.address = replace(address, model=names[0])

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note whether the server can be used."""
        try:
            yield
        except CacheMissError:
            raise
        except ModelError as error:
            self._note(error)
            raise
        self._error = None

    def _note(self, error: ModelError) -> None:
        self._error = error
        self._capabilities = None  # another server may answer next
