"""Bound of the pages in memory: those that no browser opens, those being built, and those of open websockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from nicegui import Client

from delayed_vlm_ros.web.connections import CONNECTION
from delayed_vlm_ros.web.request_checks import WEBSOCKET_PATH
from delayed_vlm_ros.web.responses import Message, Receive, Scope, Send, reject

MAX_PAGES = 128
"""Maximum number of pages in memory, including those whose browser may return."""

MAX_QUEUED_PAGES = 4
"""Maximum number of pages that wait to be built."""

_TRY_AGAIN_LATER = 1013  # status of a websocket
_FULL = "Too many browsers open this page: close one of them. This page tries again every few seconds."


class UnopenedPages:
    """Deletes the oldest pages without a browser. NiceGUI itself deletes them after one minute.

    Args:
        maximum: Maximum number of pages.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._clients: dict[str, Client] = {}

    def add(self, client: Client) -> None:
        """Keep a page until its browser opens a websocket, or newer pages replace it."""
        self._clients[client.id] = client
        client.on_connect(lambda: self._remove(client))
        client.on_delete(lambda: self._remove(client))
        while len(self._clients) > self._maximum:
            next(iter(self._clients.values())).delete()

    def _remove(self, client: Client) -> None:
        self._clients.pop(client.id, None)


class VisitorLimit:
    """ASGI middleware that refuses visitors when the page has too many.

    Args:
        app: Wrapped ASGI application.
        has_room: Function that returns whether another browser tab may open the page.
    """

    def __init__(self, app: Any, has_room: Callable[[], bool]) -> None:
        self._app = app
        self._has_room = has_room
        self._building = asyncio.Lock()
        self._queued = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "websocket" and _is_of_page(scope):
            await self._app(scope, *_checked_at_first_message(receive, send, scope["state"][CONNECTION].open_page))
        elif scope["type"] == "http" and scope["path"].startswith(WEBSOCKET_PATH):
            await reject(scope, send, 400, "This page requires websockets.")  # the other transport is unbounded
        elif scope["type"] == "http" and scope["path"] == "/":
            await self._build_page(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _build_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Build one page at a time, and leave half of the time to the open pages."""
        if not self._has_room() or len(Client.instances) >= MAX_PAGES or self._queued >= MAX_QUEUED_PAGES:
            await reject(scope, send, 503, _FULL)
            return
        self._queued += 1
        await self._building.acquire()
        self._queued -= 1
        if scope["state"][CONNECTION].is_closing:
            self._building.release()
            return
        started = time.monotonic()
        is_building = True

        def release() -> None:
            nonlocal is_building
            if is_building:
                asyncio.get_running_loop().call_later(time.monotonic() - started, self._building.release)
            is_building = False

        async def send_built(message: Message) -> None:
            release()  # now: the visitor may read slowly
            if message["type"] == "http.response.start":  # a page for each connection
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            await self._app(scope, receive, send_built)
        finally:
            release()


def _is_of_page(scope: Scope) -> bool:
    """Return whether a websocket belongs to a page in memory. A browser with an older page is asked to reload it."""
    clients = parse_qs(scope["query_string"].decode("latin-1")).get("client_id", [""])
    return clients[0] in Client.instances


def _checked_at_first_message(receive: Receive, send: Send, open_page: Callable[[], bool]) -> tuple[Receive, Send]:
    """Return the functions of a websocket that is closed at its first message if no more pages may be open."""
    is_open: bool | None = None

    async def receive_checked() -> Message:
        nonlocal is_open
        message = await receive()
        if is_open is None and message["type"] == "websocket.receive":
            is_open = open_page()
            if not is_open:
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": _FULL})
        return {"type": "websocket.disconnect", "code": _TRY_AGAIN_LATER} if is_open is False else message

    async def send_unless_closed(message: Message) -> None:
        if is_open is not False:
            await send(message)

    return receive_checked, send_unless_closed
