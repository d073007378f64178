"""Access control of the page. test/browser/test_web_page.py tests it on the real page."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode, urlsplit

import pytest

from delayed_vlm_ros.errors import ConfigurationError
from delayed_vlm_ros.web.access import TOKEN_VARIABLE, Access, AccessMiddleware, make_access

TOKEN = "sixteen-characters"
PORT = 8123


def visit(access, *, path="/", query="", kind="http", method="GET", **headers):
    """Make one connection; return its status (``passed`` when accepted), headers and body."""
    sent = []
    accepted = []

    async def app(scope, receive, send):
        accepted.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind,
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "server": ("127.0.0.1", PORT),
        "headers": [
            (name.encode(), value.encode()) for name, value in {"host": f"127.0.0.1:{PORT}", **headers}.items()
        ],
    }
    asyncio.run(AccessMiddleware(app, access)(scope, None, send))
    start = sent[0]
    if start["type"] == "websocket.close":
        return "closed", {}, ""
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return ("passed" if accepted else start["status"]), found, sent[1]["body"].decode()


def cookie_of(headers):
    return headers["set-cookie"].partition(";")[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_address_needs_no_token(address):
    assert make_access(address, "").token == ""


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "robot.local"])
def test_other_address_gets_a_random_or_the_given_token(address):
    tokens = {make_access(address, "").token for _ in range(3)}
    assert len(tokens) == 3
    assert all(len(token) >= 32 for token in tokens)
    assert make_access(address, TOKEN).token == TOKEN


@pytest.mark.parametrize("token", ["short", "with spaces in it all", "wörter-mit-umlauten", "line\nbreaks-in-a-token"])
def test_unusable_token_is_rejected(token):
    with pytest.raises(ConfigurationError, match=TOKEN_VARIABLE):
        make_access("127.0.0.1", token)


def test_token_is_exchanged_for_a_cookie():
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


def test_cookie_survives_a_restart_with_the_same_token_only():
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
def test_connection_without_valid_token_or_cookie_is_rejected(query, cookie, path):
    access = Access("0.0.0.0", TOKEN)
    assert visit(access, path=path, query=query, cookie=cookie)[0] == 401
    assert visit(access, path=path, query=query, cookie=cookie, kind="websocket")[0] == "closed"
    assert visit(access, path=path, query=query, cookie=cookie, method="POST")[0] == 401


def test_websocket_with_token_in_its_url_is_rejected():
    assert visit(Access("0.0.0.0", TOKEN), query=f"token={TOKEN}", kind="websocket")[0] == "closed"


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_request_from_another_site_is_rejected(kind):
    own_origin, foreign_origin = f"http://127.0.0.1:{PORT}", "http://evil.example"
    rejected = 403 if kind == "http" else "closed"
    access = Access("127.0.0.1", "")
    assert visit(access, kind=kind)[0] == "passed"
    assert visit(access, kind=kind, origin=own_origin)[0] == "passed"
    assert visit(access, kind=kind, origin=foreign_origin)[0] == rejected
    assert visit(access, kind=kind, origin="null")[0] == rejected
    # a foreign name that resolves to this machine (DNS rebinding)
    assert visit(access, kind=kind, host="evil.example", origin=foreign_origin)[0] == rejected
    assert visit(access, kind=kind, host=f"localhost:{PORT}")[0] == "passed"
    assert visit(access, kind=kind, host=f"[::1]:{PORT}")[0] == "passed"


ODD_TOKEN = "".join(character for character in map(chr, range(33, 127)))


@pytest.mark.parametrize("token", [ODD_TOKEN, "a+b&c=d#e%2Bf?g/h", "%25%2B%zz%26token=x", "token=&token=+++++++"])
def test_link_and_form_carry_any_token(token):
    access = make_access("0.0.0.0", token)
    link = urlsplit(access.url(PORT))
    assert (link.path, link.fragment, link.port) == ("/", "", PORT)
    for query in (link.query, urlencode({"token": token})):
        status, headers, _ = visit(access, query=query)
        assert status == 303
        assert visit(access, cookie=cookie_of(headers))[0] == "passed"


def test_link_typed_by_hand_may_contain_a_plus_sign():
    assert visit(Access("0.0.0.0", "sixteen+characters"), query="token=sixteen+characters")[0] == 303


@pytest.mark.parametrize("before", ['{"a":1}; ', "=;;=; ", "a b=\xff; ", f"delayed_vlm_{PORT}=old; ", 'x="; '])
def test_cookie_of_another_server_does_not_hide_the_cookie_of_the_page(before):
    access = Access("0.0.0.0", TOKEN)
    cookie = f"delayed_vlm_{PORT}={access.cookie}"
    assert visit(access, cookie=f"{before}{cookie}")[0] == "passed"
    assert visit(access, cookie=f"{before}{cookie[:-1]}")[0] == 401


def fetched(site, mode="no-cors", destination="image"):
    return {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": destination}


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unknown"])
@pytest.mark.parametrize("access", [Access("127.0.0.1", ""), Access("0.0.0.0", TOKEN)], ids=["open", "token"])
def test_other_site_opens_the_page_but_embeds_nothing_of_it(access, site):
    cookie = f"delayed_vlm_{PORT}={access.cookie}"
    for path in ("/", "/live/camera", "/server", "/assets/page.js"):
        for destination in ("image", "script", "style", "empty", "iframe"):
            assert visit(access, path=path, cookie=cookie, **fetched(site, destination=destination))[0] == 403
    assert visit(access, kind="websocket", cookie=cookie, **fetched(site, "websocket", "websocket"))[0] == "closed"
    opened = fetched(site, "navigate", "document")
    assert visit(access, cookie=cookie, **opened)[0] == "passed"
    assert visit(access, cookie=cookie, path="/live/camera", **opened)[0] == 403
    assert visit(access, cookie=cookie, **fetched(site, "navigate", "iframe"))[0] == 403
    if access.token:
        assert visit(access, query=f"token={TOKEN}", **opened)[0] == 303


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_page_and_address_bar_may_request_everything(site):
    for path in ("/", "/live/camera", "/assets/page.js"):
        assert visit(Access("127.0.0.1", ""), path=path, **fetched(site))[0] == "passed"


@pytest.mark.parametrize(
    "host", ["", "[::1", "[::1]x", "a b", "\u00e4", "localhost:x", "localhost:65536", "a,b", "a@b", "a/"]
)
@pytest.mark.parametrize("access", [Access("127.0.0.1", ""), Access("0.0.0.0", TOKEN)], ids=["open", "token"])
def test_malformed_host_is_a_bad_request(access, host):
    assert visit(access, host=host)[0] == 400
    assert visit(access, host=host, kind="websocket")[0] == "closed"


@pytest.mark.parametrize("path", ["/assets/\0", "/a\r\nb", "/\x7f"])
def test_control_character_in_the_path_is_a_bad_request(path):
    assert visit(Access("127.0.0.1", ""), path=path)[0] == 400


@pytest.mark.parametrize("origin", ["", "null", "http://[", "javascript:", f"http://127.0.0.1:{PORT}/x", "\u00ff"])
def test_malformed_origin_is_rejected(origin):
    assert visit(Access("127.0.0.1", ""), origin=origin)[0] == 403


@pytest.mark.parametrize("headers", [{"content-length": "1"}, {"transfer-encoding": "chunked"}])
def test_request_with_a_body_is_rejected(headers):
    access = Access("127.0.0.1", "")
    status, answer, _ = visit(access, **headers)
    assert (status, answer["connection"]) == (405, "close")
    assert visit(access, method="POST")[0] == 405
    assert visit(access, **{"content-length": "0"})[0] == "passed"


def test_every_response_carries_security_headers():
    for response in (visit(Access("127.0.0.1", "")), visit(Access("0.0.0.0", TOKEN))):
        policy = response[1]["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http:" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response[1]["referrer-policy"] == "no-referrer"
        assert response[1]["cross-origin-resource-policy"] == "same-origin"
        assert response[1]["cross-origin-opener-policy"] == "same-origin"
        assert "sec-fetch-site" in response[1]["vary"]
