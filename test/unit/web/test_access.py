"""Who may see the page. The gate is driven by itself; test/browser/test_web_page.py has it before the real page."""

from __future__ import annotations

import asyncio

import pytest

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.web.access import Access, Gate, make_access

TOKEN = "sixteen-characters"
PORT = 8123


def visit(access, *, path="/", query="", kind="http", method="GET", **headers):
    """One connection; gives its status and headers, or None where it was let through."""
    sent = []
    passed = []

    async def behind(scope, receive, send):
        passed.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "server": ("127.0.0.1", PORT),
        "headers": [
            (name.encode(), value.encode()) for name, value in {"host": f"127.0.0.1:{PORT}", **headers}.items()
        ],
    }
    asyncio.run(Gate(behind, access)(scope, None, send))
    start = sent[0]
    if start["type"] == "websocket.close":
        return "closed", {}, ""
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return ("passed" if passed else start["status"]), found, sent[1]["body"].decode()


def cookie_of(headers):
    return headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_this_machine_needs_no_token(address):
    assert make_access(address, "").token == ""


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "robot.local"])
def test_any_other_address_has_one(address):
    tokens = {make_access(address, "").token for _ in range(3)}
    assert len(tokens) == 3
    assert all(len(token) >= 32 for token in tokens)
    assert make_access(address, TOKEN).token == TOKEN


@pytest.mark.parametrize("token", ["short", "with spaces in it all", "wörter-mit-umlauten", "line\nbreaks-in-a-token"])
def test_a_token_that_cannot_be_one_is_refused(token):
    with pytest.raises(ConfigurationError, match="16 or more"):
        make_access("127.0.0.1", token)


def test_the_token_is_exchanged_for_a_cookie():
    access = Access("0.0.0.0", TOKEN)

    # when
    status, headers, _ = visit(access, query=f"token={TOKEN}")

    # then
    assert status == 303
    assert headers["location"] == "/"
    assert "HttpOnly" in headers["set-cookie"]
    assert TOKEN not in headers["set-cookie"]
    assert visit(access, cookie=cookie_of(headers))[0] == "passed"
    assert visit(access, cookie=cookie_of(headers), kind="websocket")[0] == "passed"


def test_a_cookie_outlives_a_restart_but_not_another_token():
    _, headers, _ = visit(Access("0.0.0.0", TOKEN), query=f"token={TOKEN}")
    assert visit(Access("0.0.0.0", TOKEN), cookie=cookie_of(headers))[0] == "passed"
    assert visit(Access("0.0.0.0", "another-token-of-ours"), cookie=cookie_of(headers))[0] == 401


@pytest.mark.parametrize(
    ("query", "cookie"),
    [
        ("", ""),
        ("token=", ""),
        ("token=another-token-of-ours", ""),
        (f"token={TOKEN}x", ""),
        ("token=%ff%00", ""),
        ("", f"delayed_vlm_{PORT}={TOKEN}"),
        ("", f"delayed_vlm_{PORT}="),
        ("", "nonsense;;=\u00e9"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/live/camera", "/_nicegui_ws/socket.io/"])
def test_without_it_nothing_is_let_through(query, cookie, path):
    access = Access("0.0.0.0", TOKEN)
    assert visit(access, path=path, query=query, cookie=cookie)[0] == 401
    assert visit(access, path=path, query=query, cookie=cookie, kind="websocket")[0] == "closed"
    assert visit(access, path=path, query=query, cookie=cookie, method="POST")[0] == 401


def test_a_websocket_takes_no_token_in_its_address():
    assert visit(Access("0.0.0.0", TOKEN), query=f"token={TOKEN}", kind="websocket")[0] == "closed"


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_strangers_page_is_refused(kind):
    here, elsewhere = f"http://127.0.0.1:{PORT}", "http://evil.example"
    refused = 403 if kind == "http" else "closed"
    open_page = Access("127.0.0.1", "")
    assert visit(open_page, kind=kind)[0] == "passed"
    assert visit(open_page, kind=kind, origin=here)[0] == "passed"
    assert visit(open_page, kind=kind, origin=elsewhere)[0] == refused
    assert visit(open_page, kind=kind, origin="null")[0] == refused
    # a name that was made to lead to this machine
    assert visit(open_page, kind=kind, host="evil.example", origin=elsewhere)[0] == refused
    assert visit(open_page, kind=kind, host=f"localhost:{PORT}")[0] == "passed"
    assert visit(open_page, kind=kind, host=f"[::1]:{PORT}")[0] == "passed"


def test_all_that_is_sent_allows_the_page_only_what_is_its_own():
    for answer in (visit(Access("127.0.0.1", "")), visit(Access("0.0.0.0", TOKEN))):
        policy = answer[1]["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http:" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer[1]["referrer-policy"] == "no-referrer"
