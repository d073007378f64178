"""Access to the MCP server over HTTP: open to its own machine, by bearer token to all others."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import PlainTextResponse

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.web.access import MIN_TOKEN_LENGTH
from delayed_vlm_ros.web.request_checks import (
    headers_of,
    host_name,
    is_from_other_site,
    is_loopback,
    is_malformed,
)

TOKEN_VARIABLE = "DELAYED_VLM_MCP_TOKEN"  # noqa: S105  the name of the variable, not a token
"""Environment variable with the token. Other users could read an argument."""

Message = MutableMapping[str, Any]
_App = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """Access rule of the server.

    Attributes:
        address: Address that the server listens on.
        token: Token that clients must send; empty for a loopback address without one.
    """

    address: str
    token: str = field(repr=False)

    def rejection(self, scope: Message, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return status and reason of a rejection; None for a request with access.

        Under DNS rebinding the origin and the host agree, but the host is not the name of this machine.
        """
        if is_malformed(scope, headers):
            return 400, "The request is malformed."
        is_foreign_host = not self.token and not is_loopback(host_name(headers) or "")
        if is_foreign_host or is_from_other_site(scope, headers):
            return 403, "This server cannot be used from a web page of another site."
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        if self.token and not (scheme.lower() == "bearer" and hmac.compare_digest(sent.encode(), self.token.encode())):
            return 401, f"Wrong or missing token: send the header 'Authorization: Bearer TOKEN' ({TOKEN_VARIABLE})."
        return None


def make_access(address: str, token: str) -> Access:
    """Return the access rule for an address and a token.

    Args:
        address: Address that the server listens on.
        token: Token from the environment; empty for none.

    Raises:
        ConfigurationError: The token is too short or cannot be in a header, or is missing where it is required.
    """
    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigurationError(
            f"invalid token of {len(token)} characters in {TOKEN_VARIABLE}: use {MIN_TOKEN_LENGTH} or more letters and "
            "digits"
        )
    if not token and not is_loopback(address):
        raise ConfigurationError(
            f"address '{address}' can be reached from other machines: set {TOKEN_VARIABLE} to a token of "
            f"{MIN_TOKEN_LENGTH} or more letters and digits, or use 127.0.0.1"
        )
    return Access(address, token)


class AccessMiddleware:
    """ASGI middleware that rejects requests without access.

    Args:
        app: Wrapped ASGI application.
        access: Access rule.
    """

    def __init__(self, app: _App, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Handle one connection."""
        rejection = self._access.rejection(scope, headers_of(scope)) if scope["type"] == "http" else None
        if rejection is None:
            await self._app(scope, receive, send)
            return
        status, reason = rejection
        headers = {"www-authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004
        await PlainTextResponse(reason, status, headers)(scope, receive, send)
