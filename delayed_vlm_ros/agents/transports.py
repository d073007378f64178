"""Running the MCP server over standard input and output, or over HTTP, until a signal or the end of the input."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from mcp.server.stdio import stdio_server

from delayed_vlm_ros.agents.access import Access, AccessMiddleware
from delayed_vlm_ros.agents.server import SceneServer
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.web.listening import bind

PATH = "/mcp"
"""Path of the server over HTTP."""

MAX_REQUEST_BYTES = 256_000
"""Largest request over HTTP in bytes."""

_MAX_SESSIONS = 64
_MAX_CONNECTIONS = 128
_SESSION_IDLE_SEC = 600.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve_stdio(scene: SceneServer) -> None:
    """Serve one client on standard input and output until its end of input, or a signal.

    After a signal the process ends here, because nothing interrupts the thread that reads standard input.

    Args:
        scene: The server.
    """
    try:
        asyncio.run(_serve_stdio(scene))
    except Exception as error:
        cause = _innermost(error)
        if not isinstance(cause, BrokenPipeError):  # the client is gone, and its end of input follows
            raise cause from error


def _innermost(error: BaseException) -> BaseException:
    """Return the first error in groups of errors, in which task groups raise them."""
    while members := getattr(error, "exceptions", ()):
        error = members[0]
    return error


async def _serve_stdio(scene: SceneServer) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        scene.close()
        sys.stderr.flush()
        os._exit(0)

    for number in _SIGNALS:
        loop.add_signal_handler(number, end)
    async with stdio_server() as (reads, writes):
        await scene.server.run(reads, writes, scene.server.create_initialization_options())


class HttpServer:
    """Serves clients over streamable HTTP until a signal.

    Args:
        scene: The server.
        access: Access rule, with the address to listen on.
        port: Port to listen on; 0 for any free port.

    Attributes:
        url: URL of the server, for the configuration of clients.

    Raises:
        ConfigurationError: The address or the port is not available.
    """

    def __init__(self, scene: SceneServer, access: Access, port: int) -> None:
        self._scene = scene
        self._socket = bind(access.address, port, "cannot serve")
        host = f"[{access.address}]" if ":" in access.address else access.address
        self.url = f"http://{host}:{self._socket.getsockname()[1]}{PATH}"
        app = scene.server.streamable_http_app(
            streamable_http_path=PATH,
            max_request_body_size=MAX_REQUEST_BYTES,
            max_sessions=_MAX_SESSIONS,
            session_idle_timeout=_SESSION_IDLE_SEC,
            host=access.address,
        )
        config = uvicorn.Config(
            AccessMiddleware(app, access),
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=1,
            lifespan="on",
        )
        self._server = _Uvicorn(config)

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until a signal.

        Args:
            on_ready: Called when the server accepts connections.

        Raises:
            ConfigurationError: The server did not start.
        """
        asyncio.run(self._run(on_ready))
        if not self._server.started:
            raise ConfigurationError("the MCP server did not start: see the messages above")

    async def _run(self, on_ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._end)
        self._server.on_started = on_ready
        await self._server.serve(sockets=[self._socket])

    def _end(self) -> None:
        self._scene.cancel_calls()
        self._server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn without signal handlers of its own: they end the process by the signal that they have caught."""

    on_started: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the caller."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``on_started``."""
        await super().startup(sockets=sockets)
        if self.started:
            self.on_started()
