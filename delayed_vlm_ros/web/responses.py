"""Responses of the page's server that NiceGUI does not make, and the headers of all responses."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = Mapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# NiceGUI runs inline scripts and Vue compiles templates; both belong to the page. Other origins are blocked.
_SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_VARY = (b"vary", b"cookie, origin, sec-fetch-site")  # a cache must not pass on what access control would refuse
_UNAUTHORIZED = 401
_UNAVAILABLE = 503
_RETRY_SEC = "5"
_POLICY_VIOLATION = 1008  # code of a websocket's end


def with_security_headers(send: Send) -> Send:
    """Return a ``send`` that adds the headers of all responses."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            added = [
                (name.encode(), value.encode())
                for name, value in _SECURITY_HEADERS.items()
                if name.encode() not in present
            ]
            message = {**message, "headers": [*message["headers"], _VARY, *added]}
        await send(message)

    return send_with_headers


async def respond(send: Send, status: int, body: str, headers: Mapping[str, str]) -> None:
    """Send an HTML response."""
    content = body.encode()
    all_headers = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(content)),
        "cache-control": "no-store",
        **headers,
    }
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }
    send_with_headers = with_security_headers(send)
    await send_with_headers(start)
    await send_with_headers({"type": "http.response.body", "body": content})


async def reject(scope: Scope, send: Send, status: int, reason: str) -> None:
    """Refuse a request or a websocket.

    Args:
        scope: ASGI scope of the connection.
        send: ASGI function to send a message.
        status: HTTP status; with 401 the response asks for the token.
        reason: Sentence for the visitor, or an empty string.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    headers = {"connection": "close"}  # a body that was not read would follow
    if status == _UNAVAILABLE:
        headers["refresh"] = _RETRY_SEC
    await respond(send, status, _rejection_page(reason, ask_for_token=status == _UNAUTHORIZED), headers)


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
