"""The page's server: NiceGUI behind the gate, in a thread of its own, from construction until ``stop``."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import app, ui

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.web.access import Access, Gate
from delayed_vlm_ros.web.backend import Backend
from delayed_vlm_ros.web.conversation import Conversation
from delayed_vlm_ros.web.page import Page
from delayed_vlm_ros.web.thumbnail_cache import ThumbnailCache

_ASSETS = data_folder("web", "assets")
_FAVICON = _ASSETS / "favicon.svg"
_STARTING_SEC = 60.0
_LOOK_EVERY_SEC = 0.02
_RECONNECT_SEC = 30.0  # for a browser whose network was away, before its page is loaded anew
_STOPPING_SEC = 1.0
_KEY = re.compile(r"\d{1,20}-\d{1,20}")


class WebServer:
    """Serves the page. One for each process, since NiceGUI has one application in each.

    Args:
        backend: What is shown.
        conversation: Where questions go.
        access: Who may see it, and the address it is bound to.
        port: Its port; 0: any that is free.

    Raises:
        ConfigurationError: The address or the port cannot be had.
    """

    def __init__(self, backend: Backend, conversation: Conversation, access: Access, port: int) -> None:
        self._access = access
        self._socket = _bound(access.address, port)
        self.port: int = self._socket.getsockname()[1]
        outer = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        _add_routes(outer, backend)
        Page(backend, conversation).register()
        app.add_static_files("/assets", _ASSETS)
        ui.run_with(
            outer,
            title="Scene memory",
            favicon=_FAVICON,
            dark=None,
            language="en-US",
            binding_refresh_interval=None,
            reconnect_timeout=_RECONNECT_SEC,
            tailwind=False,
            show_welcome_message=False,
        )
        config = uvicorn.Config(
            Gate(outer, access),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            lifespan="on",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="web server", daemon=True)
        self._thread.start()
        self._wait_until_started()

    @property
    def url(self) -> str:
        """The address to open, token included."""
        host = self._access.address
        if host in ("0.0.0.0", "::"):  # noqa: S104  every address of this machine: its name is one that works
            host = socket.gethostname()
        if ":" in host:
            host = f"[{host}]"
        token = f"?token={self._access.token}" if self._access.token else ""
        return f"http://{host}:{self.port}/{token}"

    def close(self) -> None:
        """Say good-bye to the browsers; returns within a second or so."""
        self._server.should_exit = True
        self._thread.join(_STOPPING_SEC)
        self._socket.close()

    def _wait_until_started(self) -> None:
        deadline = time.monotonic() + _STARTING_SEC
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ConfigurationError(
                    f"the page's server has not come up within {_STARTING_SEC:g} s: what stands above says why, if "
                    "anything does; else this machine is too busy"
                )
            time.sleep(_LOOK_EVERY_SEC)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


def _bound(address: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the page cannot be served at {address}, port {port} ({error}): another program may use that port, or the "
            "address is none of this machine's; give others"
        ) from None
    return bound


def _add_routes(outer: FastAPI, backend: Backend) -> None:
    thumbnails = ThumbnailCache(backend)

    @outer.get("/live/{camera}")
    async def live(camera: str) -> Response:
        image = await asyncio.to_thread(backend.live_image, camera)
        if image is None:
            return Response(status_code=204, headers=_NEVER)
        size = {"x-number": str(image.number), "x-size": f"{image.width}x{image.height}"}
        return Response(image.jpeg, media_type="image/jpeg", headers={**_NEVER, **size})

    @outer.get("/moments/{key}/{which}")
    async def moment(key: str, which: str) -> Response:
        if not _KEY.fullmatch(key) or which not in ("first.jpg", "second.jpg"):
            return Response(status_code=404)
        second = which == "second.jpg"
        images = await thumbnails.get(key, second=second)
        jpeg = (images.second if second else images.first) if images is not None else b""
        if not jpeg:  # it has left the memory meanwhile: nothing to complain about in a browser's console
            return Response(status_code=204, headers=_NEVER)
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=86400, immutable"})


_NEVER = {"cache-control": "no-store"}
