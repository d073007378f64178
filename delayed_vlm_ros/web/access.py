"""Access control of the page: open to its own machine, by token to all others.

The token arrives once, in the URL, and is exchanged for a cookie. It therefore stays neither in the address bar nor in
the browser's history. The cookie is derived from the token, so it survives a restart with the same token. Every request
passes the check, websockets included.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

from delayed_vlm_ros.errors import ConfigurationError

TOKEN_VARIABLE = "DELAYED_VLM_WEB_TOKEN"  # noqa: S105  the name of the variable, not a token
"""Environment variable with the page's token. Other users could read an argument or a parameter."""

MIN_TOKEN_LENGTH = 16
"""Minimum length of a token chosen by the user, in characters."""

_GENERATED_BYTES = 24
_COOKIE_SECONDS = 30 * 24 * 3600

# NiceGUI runs inline scripts and Vue compiles templates; both belong to the page. Other origins are blocked.
_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_Scope: TypeAlias = Mapping[str, Any]


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
    if not token and not _is_loopback(address):
        token = secrets.token_urlsafe(_GENERATED_BYTES)
    return Access(address, token)


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


class AccessMiddleware:
    """ASGI middleware that rejects every connection without access to the page.

    Args:
        app: Wrapped ASGI application.
        access: Access rule.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_same_origin(headers):
            await _reject(scope, send, "This page cannot be used from another site.")
        elif self._has_cookie(scope, headers):
            await self._app(scope, receive, _with_security_headers(send))
        elif scope["type"] == "http" and scope["method"] == "GET" and (token := _query_token(scope)) is not None:
            await self._exchange(scope, send, token)
        else:
            await _reject(scope, send, "", ask_for_token=True)

    def _is_same_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request comes from the page itself or from the address bar.

        Browsers let any site open a websocket to this server, but they send its origin. Under DNS rebinding the origin
        and the host agree, but the host is not the name of this machine.
        """
        host = headers.get("host", "")
        if not self._access.token and not _is_loopback(_host_name(host)):
            return False
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == host

    def _has_cookie(self, scope: _Scope, headers: Mapping[str, str]) -> bool:
        if not self._access.token:
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        cookie = cookies.get(_cookie_name(scope))
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._access.cookie.encode())

    async def _exchange(self, scope: _Scope, send: Any, token: str) -> None:
        if not hmac.compare_digest(token.encode(), self._access.token.encode()):
            await _reject(scope, send, "Wrong token.", ask_for_token=True)
            return
        cookie = (
            f"{_cookie_name(scope)}={self._access.cookie}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
        )
        await _respond(send, 303, "", {"location": "/", "set-cookie": cookie, "cache-control": "no-store"})


def _query_token(scope: _Scope) -> str | None:
    values = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return values[0] if values else None


def _host_name(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _cookie_name(scope: _Scope) -> str:
    # Cookies ignore the port, and a machine may serve several pages.
    server = scope.get("server") or ("", 0)
    return f"delayed_vlm_{server[1]}"


def _with_security_headers(send: Any) -> Any:
    async def send_with_headers(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            added = [
                (name.encode(), value.encode())
                for name, value in _SECURITY_HEADERS.items()
                if name.encode() not in present
            ]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return send_with_headers


async def _reject(scope: _Scope, send: Any, reason: str, *, ask_for_token: bool = False) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = _rejection_page(reason, ask_for_token=ask_for_token)
    await _respond(send, 401 if ask_for_token else 403, body, {})


async def _respond(send: Any, status: int, body: str, headers: Mapping[str, str]) -> None:
    content = body.encode()
    all_headers = {"content-type": "text/html; charset=utf-8", "content-length": str(len(content)), **headers}
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }
    send_with_headers = _with_security_headers(send)
    await send_with_headers(start)
    await send_with_headers({"type": "http.response.body", "body": content})


def _rejection_page(reason: str, *, ask_for_token: bool) -> str:
    form = (
        """<p>This page requires a token. The terminal that started the page shows it, as part of the address.</p>
<form><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password"
 autofocus required><button>Open</button></form>"""
        if ask_for_token
        else ""
    )
    alert = f'<p class="alert" role="alert">{html.escape(reason)}</p>' if reason else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Scene memory</title><link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 18vh auto 0; padding: 0 1.25rem }}
label {{ display: block; font-weight: 600 }} .alert {{ color: light-dark(#b3261e, #ff8a80) }}
input {{ font: inherit; width: 100%; box-sizing: border-box; padding: .55rem .7rem; margin: .3rem 0 .8rem }}
button {{ font: inherit; font-weight: 600; padding: .5rem 1.2rem }}
</style></head><body><h1>Scene memory</h1>{alert}{form}</body></html>"""
