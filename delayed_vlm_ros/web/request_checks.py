"""Checks of a request's headers, path and method: well-formed, for this machine, and from the page itself."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from delayed_vlm_ros.web.responses import Scope

WEBSOCKET_PATH = "/_nicegui_ws/"
"""Start of the path of NiceGUI's websocket."""

_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]{1,255})(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_MAX_PORT = 65535
_CONTROL = re.compile("[\0-\x1f\x7f]")
_OWN_SITE = ("", "none", "same-origin")  # an old browser, the address bar, the page itself


def is_loopback(address: str) -> bool:
    """Return whether an address or host name is this machine's own."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; the values of a repeated header are joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        separator = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{separator}{value}" if name in headers else value
    return headers


def host_name(headers: Mapping[str, str]) -> str | None:
    """Return the host name or address in the header ``Host``; None if there is none, or more than one."""
    found = _HOST.fullmatch(headers.get("host", ""))
    if found is None or int(found["port"] or 0) > _MAX_PORT:
        return None
    name = found["name"].lower()
    if not name.startswith("["):
        return name
    try:
        return str(ipaddress.IPv6Address(name[1:-1]))
    except ValueError:
        return None


def is_malformed(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether no browser sends such a request."""
    is_known_version = scope["http_version"] in ("1.0", "1.1")
    return not is_known_version or host_name(headers) is None or _CONTROL.search(scope["path"]) is not None


def has_unexpected_content(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether a request has a body. The page has no use for one: all that visitors do arrives by websocket."""
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return scope["type"] == "http" and (has_body or scope["method"] not in ("GET", "HEAD"))


def is_from_other_site(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Return whether another site made the request; a link to the page, opened by the user, does not count.

    Browsers let any site open a websocket to this server, but they send its origin. They also let any site embed an
    image or a script of this server; most then say so in ``Sec-Fetch-Site``.
    """
    host = headers.get("host", "")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        return True
    return headers.get("sec-fetch-site", "") not in _OWN_SITE and not _is_opened_link(scope, headers)


def _is_opened_link(scope: Scope, headers: Mapping[str, str]) -> bool:
    is_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
    return is_page and (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
