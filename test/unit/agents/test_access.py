"""Access to the MCP server over HTTP."""

import pytest

from delayed_vlm_ros.agents.access import TOKEN_VARIABLE, Access, make_access
from delayed_vlm_ros.errors import ConfigurationError

TOKEN = "0123456789abcdef"
SCOPE = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/mcp"}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_loopback_address_needs_no_token(address):
    assert make_access(address, "") == Access(address, "")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.5", "robot"])
def test_other_address_needs_a_token(address):
    with pytest.raises(ConfigurationError, match=f"set {TOKEN_VARIABLE}"):
        make_access(address, "")
    assert make_access(address, TOKEN).token == TOKEN


@pytest.mark.parametrize("token", [TOKEN[:-1], "0123 456789abcdef", "0123456789abcdeß", "0123456789abcdef\n"])
def test_unusable_token_is_refused_and_not_shown(token):
    with pytest.raises(ConfigurationError, match=TOKEN_VARIABLE) as caught:
        make_access("127.0.0.1", token)
    assert token.strip() not in str(caught.value)
    assert TOKEN not in repr(Access("127.0.0.1", TOKEN))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Bearer {TOKEN}x"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": f"bearer {TOKEN}"}, None),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://example.com"}, 403),
        ({"authorization": f"Bearer {TOKEN}", "origin": "http://robot:8090"}, None),
        ({"authorization": f"Bearer {TOKEN}", "host": "a host"}, 400),
    ],
)
def test_request_needs_the_token_and_no_other_site(headers, status):
    rejection = Access("0.0.0.0", TOKEN).rejection(SCOPE, {"host": "robot:8090", **headers})
    assert (rejection and rejection[0]) == status


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1:8090", None), ("[::1]:8090", None), ("localhost", None), ("example.com", 403)]
)
def test_foreign_host_is_refused_without_a_token(host, status):
    """Under DNS rebinding, a page of another site sends requests with its own name."""
    rejection = Access("127.0.0.1", "").rejection(SCOPE, {"host": host})
    assert (rejection and rejection[0]) == status
