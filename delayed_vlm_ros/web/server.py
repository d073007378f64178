"""Web server of the page: NiceGUI with access control, in its own thread."""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import time

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from nicegui import app, ui

from delayed_vlm_ros.errors import ConfigurationError, DelayedVlmError
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.web.access import Access, AccessMiddleware
from delayed_vlm_ros.web.backend import Backend
from delayed_vlm_ros.web.connections import (
    ACCEPTED_AT_ONCE,
    DEFAULT_LIMITS,
    ConnectionGuard,
    VisitorLimits,
    handle_loop_error,
)
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.export import add_export_route
from delayed_vlm_ros.web.listening import bind
from delayed_vlm_ros.web.log_limit import limit_server_log, report_left_out
from delayed_vlm_ros.web.page import register_page
from delayed_vlm_ros.web.thumbnail_cache import ThumbnailCache
from delayed_vlm_ros.web.visitors import VisitorLimit

_ASSETS = data_folder("web", "assets")
_FAVICON = _ASSETS / "favicon.svg"
_START_TIMEOUT_SEC = 60.0
_POLL_SEC = 0.02
_RECONNECT_TIMEOUT_SEC = 30.0  # a browser that was offline longer reloads the page
_CLOSE_TIMEOUT_SEC = 1.0
_SERVER_ID_BYTES = 8
_BACKLOG = 128  # visitors who wait to be accepted; uvicorn's own value also is what asyncio accepts at once
_MAX_MESSAGE_BYTES = 1_000_000  # of a websocket; Engine.IO's own limit
_FRAME_KEY = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_IMMUTABLE = {"cache-control": "private, max-age=86400, immutable"}
_JOURNAL_LINE = re.compile(r"[0-9]{1,18}\.jpg")
_NO_STORE = {"cache-control": "no-store"}


class WebServer:
    """Serves the page from ``start()`` to ``close()``. NiceGUI allows one server in a process.

    Args:
        backend: Scene memory to show.
        conversation: Conversation of all visitors.
        access: Access rule, with the address to listen on.
        port: Port to listen on; 0 for any free port.
        limits: Limits of the visitors' connections and pages.

    Attributes:
        port: Port of the page.

    Raises:
        ConfigurationError: The address or the port is not available.
    """

    def __init__(
        self,
        backend: Backend,
        conversation: Conversation,
        access: Access,
        port: int,
        limits: VisitorLimits = DEFAULT_LIMITS,
    ) -> None:
        self._access = access
        self._guard = ConnectionGuard(limits, time.monotonic)
        self._socket = bind(access.address, port, "cannot serve the page")
        self.port: int = self._socket.getsockname()[1]
        outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        server_id = secrets.token_hex(_SERVER_ID_BYTES)
        _add_image_routes(outer, backend)
        _add_server_route(outer, server_id)
        add_export_route(outer, backend)
        register_page(backend, conversation, server_id, limits.unopened_pages)
        app.add_static_files("/assets", _ASSETS)
        app.add_exception_handler(404, _not_found)
        app.config.socket_io_js_transports = ["websocket"]
        ui.run_with(
            outer,
            title="Scene memory",
            favicon=_FAVICON,
            dark=None,
            language="en-US",
            binding_refresh_interval=None,
            reconnect_timeout=_RECONNECT_TIMEOUT_SEC,
            tailwind=False,
            show_welcome_message=False,
        )
        config = uvicorn.Config(
            AccessMiddleware(VisitorLimit(outer, lambda: self._guard.has_room_for_page), access),
            http=self._guard.protocol(),
            ws_max_size=_MAX_MESSAGE_BYTES,
            backlog=ACCEPTED_AT_ONCE,
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            lifespan="on",
        )
        limit_server_log()
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web server", daemon=True)

    @property
    def url(self) -> str:
        """URL of the page, with its token."""
        return self._access.url(self.port)

    def start(self) -> None:
        """Start the server thread; return when the page is available.

        Raises:
            ConfigurationError: The server did not start.
        """
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_SEC
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the web server did not start within {_START_TIMEOUT_SEC:g} s: see the messages above; without "
                    "messages, this machine is overloaded"
                )
            time.sleep(_POLL_SEC)
        self._socket.listen(_BACKLOG)

    def close(self, timeout_sec: float = _CLOSE_TIMEOUT_SEC) -> None:
        """Disconnect the browsers and stop the server thread; return after ``timeout_sec`` seconds at the latest."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(timeout_sec)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(handle_loop_error)
        watch = asyncio.create_task(self._guard.watch(report_left_out))
        await self._server.serve(sockets=[self._socket])
        watch.cancel()
        report_left_out(is_last=True)


def _not_found(_request: Request, _error: Exception) -> Response:
    """Answer without NiceGUI's page for this case, which costs memory and a message in the log."""
    return PlainTextResponse("Not found", status_code=404)


def _add_server_route(outer: FastAPI, server_id: str) -> None:
    """Let a browser that has lost the connection find out whether the same server is back (connection.js)."""

    @outer.get("/server")
    async def server() -> PlainTextResponse:
        return PlainTextResponse(server_id, headers=_NO_STORE)


def _add_image_routes(outer: FastAPI, backend: Backend) -> None:
    thumbnails = ThumbnailCache(backend)

    @outer.get("/live/{camera}")
    async def live(camera: str) -> Response:
        image = await asyncio.to_thread(backend.live_image, camera)
        if image is None:
            return Response(status_code=204, headers=_NO_STORE)
        details = {"x-number": str(image.number), "x-size": f"{image.width}x{image.height}"}
        return Response(image.jpeg, media_type="image/jpeg", headers={**_NO_STORE, **details})

    @outer.get("/frames/{key}/{which}")
    async def frame(key: str, which: str) -> Response:
        if not _FRAME_KEY.fullmatch(key) or which not in ("first.jpg", "second.jpg"):
            return Response(status_code=404)
        second = which == "second.jpg"
        images = await thumbnails.get(key, second=second)
        jpeg = (images.second if second else images.first) if images is not None else b""
        if not jpeg:  # the pair left the memory: no error for the browser's console
            return Response(status_code=204, headers=_NO_STORE)
        return Response(jpeg, media_type="image/jpeg", headers=_IMMUTABLE)

    @outer.get("/journal/{name}")
    async def journal_image(name: str) -> Response:
        if not _JOURNAL_LINE.fullmatch(name):
            return Response(status_code=404)
        try:
            jpeg = await asyncio.to_thread(backend.journal_image, int(name.removesuffix(".jpg")))
        except DelayedVlmError:
            jpeg = b""
        if not jpeg:
            return Response(status_code=204, headers=_NO_STORE)
        return Response(jpeg, media_type="image/jpeg", headers=_NO_STORE)
