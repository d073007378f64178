"""Who may see the page: its own machine without a word, anybody else with a token.

The token comes once, in the address, and is exchanged for a cookie, so that it stays neither in the address bar nor in
the browser's history. The cookie is derived from the token: it outlives a restart where the token is a fixed one. Every
request passes through here, a websocket's, too.
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

TOKEN_VARIABLE = "DELAYED_VLM_WEB_TOKEN"  # noqa: S105  its name, not a token
"""Environment variable with the page's token: no argument and no parameter, which others can read."""

SHORTEST_TOKEN = 16
"""Least characters of a token that somebody chooses."""

_GENERATED_BYTES = 24
_COOKIE_SECONDS = 30 * 24 * 3600

# NiceGUI runs inline scripts, and Vue compiles its templates: both are the page's own. Nothing comes from elsewhere.
_HEADERS = {
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
    """The rule of one page.

    Attributes:
        address: What it is bound to.
        token: What visitors must know; empty: it is bound to this machine only, and needs none.
    """

    address: str
    token: str

    @property
    def cookie(self) -> str:
        """What a visitor who knows the token carries."""
        return hmac.new(self.token.encode(), b"delayed_vlm_ros web page", hashlib.sha256).hexdigest()


def make_access(address: str, token: str) -> Access:
    """The rule for an address and a token.

    Args:
        address: What the page is bound to. Any but a loopback address needs a token.
        token: A chosen one; empty: one is made where it is needed.

    Raises:
        ConfigurationError: The token is too short, or has characters that an address cannot carry.
    """
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise ConfigurationError(
            f"the token has {len(token)} characters: give {SHORTEST_TOKEN} or more, letters and digits, or none, and "
            "one is made"
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


class Gate:
    """ASGI middleware that lets nobody past who may not see the page.

    Args:
        app: What is behind it.
        access: The rule.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        """Take one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_own(headers):
            await _refuse(scope, send, "This page may not be used from within another one.")
        elif self._knows_cookie(scope, headers):
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http" and scope["method"] == "GET" and (given := _token_given(scope)) is not None:
            await self._exchange(scope, send, given)
        else:
            await _refuse(scope, send, "", ask_for_token=True)

    def _is_own(self, headers: Mapping[str, str]) -> bool:
        """Whether it comes from the page itself or from the address bar, not from a stranger's page.

        A page elsewhere could open a websocket to us, which browsers allow; it cannot hide where it is from. And one
        whose name was made to lead to this machine (DNS rebinding) gives itself away by that name.
        """
        host = headers.get("host", "")
        if not self._access.token and not _is_loopback(_name_of(host)):
            return False
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == host

    def _knows_cookie(self, scope: _Scope, headers: Mapping[str, str]) -> bool:
        if not self._access.token:
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        carried = cookies.get(_cookie_name(scope))
        return carried is not None and hmac.compare_digest(carried.value.encode(), self._access.cookie.encode())

    async def _exchange(self, scope: _Scope, send: Any, given: str) -> None:
        if not hmac.compare_digest(given.encode(), self._access.token.encode()):
            await _refuse(scope, send, "That is not this page's token.", ask_for_token=True)
            return
        cookie = (
            f"{_cookie_name(scope)}={self._access.cookie}; Path=/; Max-Age={_COOKIE_SECONDS}; HttpOnly; SameSite=Lax"
        )
        await _respond(send, 303, "", {"location": "/", "set-cookie": cookie, "cache-control": "no-store"})


def _token_given(scope: _Scope) -> str | None:
    words = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return words[0] if words else None


def _name_of(host: str) -> str:
    """A Host header's name without its port."""
    return urlsplit(f"//{host}").hostname or ""


def _cookie_name(scope: _Scope) -> str:
    """Cookies do not tell ports apart, and a machine may have several pages."""
    server = scope.get("server") or ("", 0)
    return f"delayed_vlm_{server[1]}"


def _with_headers(send: Any) -> Any:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message["headers"]}
            added = [(name.encode(), value.encode()) for name, value in _HEADERS.items() if name.encode() not in there]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


async def _refuse(scope: _Scope, send: Any, why: str, *, ask_for_token: bool = False) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await _respond(send, 401 if ask_for_token else 403, _door(why, ask_for_token=ask_for_token), {})


async def _respond(send: Any, status: int, body: str, headers: Mapping[str, str]) -> None:
    content = body.encode()
    all_headers = {"content-type": "text/html; charset=utf-8", "content-length": str(len(content)), **headers}
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }
    sending = _with_headers(send)
    await sending(start)
    await sending({"type": "http.response.body", "body": content})


def _door(why: str, *, ask_for_token: bool) -> str:
    """What a visitor sees who may not come in."""
    form = (
        """<p>This page needs a token. It stands in the address that was printed when the page was started.</p>
<form><label for="token">Token</label><input id="token" name="token" type="password" autocomplete="current-password"
 autofocus required><button>Open</button></form>"""
        if ask_for_token
        else ""
    )
    reason = f'<p class="why" role="alert">{html.escape(why)}</p>' if why else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Scene memory</title><link rel="icon" href="data:,"><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 18vh auto 0; padding: 0 1.25rem }}
label {{ display: block; font-weight: 600 }} .why {{ color: light-dark(#b3261e, #ff8a80) }}
input {{ font: inherit; width: 100%; box-sizing: border-box; padding: .55rem .7rem; margin: .3rem 0 .8rem }}
button {{ font: inherit; font-weight: 600; padding: .5rem 1.2rem }}
</style></head><body><h1>Scene memory</h1>{reason}{form}</body></html>"""
