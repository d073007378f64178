"""The web page: its port, its token and its files."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any

from delayed_vlm_ros.doctor.finding import Finding, error, ok, warn
from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, make_access

_PORT = 8080
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  reached through loopback
_ASSETS = ("page.css", "page.js", "favicon.svg")
_TITLE = b"<title>Scene memory</title>"
_TIMEOUT_SEC = 2.0
_READ_BYTES = 200_000


def page_findings(parameters: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Check the page's address, token and files.

    Args:
        parameters: Parameters of a running ``web_dashboard``; None without one.
        environment: Environment variables.
    """
    settings = parameters or {}
    address, port = str(settings.get("address", "127.0.0.1")), int(settings.get("port", _PORT))
    served = [] if parameters is not None and port == 0 else [_served(address, port, is_running=parameters is not None)]
    return [*served, _token(environment), *_assets()]


def _served(address: str, port: int, *, is_running: bool) -> Finding:
    host = _EVERY_ADDRESS.get(address, address)
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    try:
        body = _get(url)
    except ConnectionRefusedError:
        if is_running:
            return error("page", f"web_dashboard runs, but {url} refuses connections", "see its log, and restart it")
        return ok("page", f"not running; port {port} is free")
    except HTTPException:  # another protocol
        body = b""
    except OSError as failure:
        return _no_page(
            f"no answer from {url} ({failure})",
            "see the log of the page, or of the program that listens there",
            is_running=is_running,
        )
    if _TITLE in body:
        return ok("page", f"answers at {url}")
    return _no_page(
        f"another program serves {url}", "choose another port for the page (port:=, --port)", is_running=is_running
    )


def _no_page(text: str, remedy: str, *, is_running: bool) -> Finding:
    """Return a warning if the page is running; otherwise a hint."""
    return warn("page", text, remedy) if is_running else ok("page", f"not running; {text}: {remedy}")


def _get(url: str) -> bytes:
    """Return the beginning of a page, also of one that asks for a token.

    Raises:
        OSError: Nobody answers with HTTP.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=_TIMEOUT_SEC) as response:
            return bytes(response.read(_READ_BYTES))
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.read(_READ_BYTES)
    except urllib.error.URLError as failure:
        raise failure.reason if isinstance(failure.reason, OSError) else OSError(str(failure.reason)) from None


def _token(environment: Mapping[str, str]) -> Finding:
    """Check the token without showing it."""
    token = environment.get(TOKEN_VARIABLE, "")
    if not token:
        return ok("page token", f"{TOKEN_VARIABLE} is not set: one is generated where the page needs it")
    try:
        make_access("127.0.0.1", token)
    except ConfigurationError as failure:
        return error("page token", str(failure))
    return ok("page token", f"set in {TOKEN_VARIABLE}")


def _assets() -> list[Finding]:
    folder = data_folder("web", "assets")
    missing = [name for name in _ASSETS if not (folder / name).is_file()]
    if not missing:
        return []
    return [error("page files", f"{folder} lacks {', '.join(missing)}", "install the package again")]
