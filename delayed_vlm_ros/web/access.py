"""Access control of the page: open to its own machine, by token to all others.

The token arrives once, in the URL, and is exchanged for a cookie. It therefore stays neither in the address bar nor in
the browser's history. The cookie is derived from the token, so it survives a restart with the same token. Every request
passes the check, websockets included.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.web.request_checks import (
    has_unexpected_content,
    headers_of,
    host_name,
    is_from_other_site,
    is_loopback,
    is_malformed,
)
from delayed_vlm_ros.web.responses import Receive, Scope, Send, reject, respond, with_security_headers

TOKEN_VARIABLE = "DELAYED_VLM_WEB_TOKEN"  # noqa: S105  the name of the variable, not a token
"""Environment variable with the page's token. Other users could read an argument or a parameter."""

MIN_TOKEN_LENGTH = 16
"""Minimum length of a token chosen by the user, in characters."""

_GENERATED_BYTES = 24
_COOKIE_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True)
class Access:
    """Access rule of a page.

    Attributes:
        address: Address the page listens on.
        token: Token that visitors must present; empty for a page on a loopback address, which needs none.
    """

    address: str
    token: str

    @property
    def cookie(self) -> str:
        """Cookie value of a visitor who presented the token."""
        return hmac.new(self.token.encode(), b"delayed_vlm_ros web page", hashlib.sha256).hexdigest()

    def url(self, port: int) -> str:
        """Return the URL of the page at a port, with the token."""
        host = self.address
        if host in ("0.0.0.0", "::"):  # noqa: S104  all addresses of this machine: its name works from elsewhere
            host = socket.gethostname()
        if ":" in host:
            host = f"[{host}]"
        token = f"?token={quote(self.token, safe='')}" if self.token else ""
        return f"http://{host}:{port}/{token}"


def make_access(address: str, token: str) -> Access:
    """Return the access rule for an address and a token.

    Args:
        address: Address the page listens on. Every address except a loopback address requires a token.
        token: Token chosen by the user; empty to generate one where a token is required.

    Raises:
        ConfigurationError: The token is too short, or contains characters that a URL cannot carry.
    """
    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigurationError(
            f"invalid token of {len(token)} characters in {TOKEN_VARIABLE}: use {MIN_TOKEN_LENGTH} or more letters and "
            "digits, or unset the variable to generate a token"
        )
    if not token and not is_loopback(address):
        token = secrets.token_urlsafe(_GENERATED_BYTES)
    return Access(address, token)


class AccessMiddleware:
    """ASGI middleware that rejects every connection without access to the page.

    Args:
        app: Wrapped ASGI application.
        access: Access rule.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        rejection = self._check(scope, headers)
        if rejection is not None:
            await reject(scope, send, *rejection)
        elif not self._has_cookie(scope, headers):
            await self._ask_for_token(scope, send)
        elif has_unexpected_content(scope, headers):
            await reject(scope, send, 405, "This page is only read: use GET, without a body.")
        else:
            await self._app(scope, receive, with_security_headers(send))

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return the HTTP status and the reason of a rejection; None if there is none.

        Under DNS rebinding the origin and the host agree, but the host is not the name of this machine.
        """
        if is_malformed(scope, headers):
            return 400, "The request is malformed."
        is_foreign_host = not self._access.token and not is_loopback(host_name(headers) or "")
        if is_foreign_host or is_from_other_site(scope, headers):
            return 403, "This page cannot be used from another site."
        return None

    def _has_cookie(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        """Return whether the visitor has presented the token before.

        Cookies of other servers on this machine arrive, too. Some are malformed, and must not hide the page's own.
        """
        if not self._access.token:
            return True
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        values = [value for name, _, value in pairs if name == _cookie_name(scope)]
        return any(hmac.compare_digest(value.encode(), self._access.cookie.encode()) for value in values)

    async def _ask_for_token(self, scope: Scope, send: Send) -> None:
        token = _query_token(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if token is None:
            await reject(scope, send, 401, "")
        else:
            await self._exchange(scope, send, token)

    async def _exchange(self, scope: Scope, send: Send, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self._access.token.encode()):
            await reject(scope, send, 401, "Wrong token.")
            return
        cookie = (
            f"{_cookie_name(scope)}={self._access.cookie}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
        )
        await respond(send, 303, "", {"location": "/", "set-cookie": cookie})


def _query_token(scope: Scope) -> str | None:
    """Return the token in the query; a link typed by hand may contain a ``+``, which a query reads as a space."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return values[0].replace(" ", "+") if values else None


def _cookie_name(scope: Scope) -> str:
    # Cookies ignore the port, and a machine may serve several pages.
    server = scope.get("server") or ("", 0)
    return f"delayed_vlm_{server[1]}"
