"""The limits and the promises of the page's document are those of its code."""

import re
from pathlib import Path

import pytest

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

from uvicorn import Config
from uvicorn.protocols.http import h11_impl

from delayed_vlm_ros.web import connections, log_limit, server, visitors
from delayed_vlm_ros.web.backend import Backend

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "web.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "delayed_vlm_ros" / "web" / "assets" / "connection.js").read_text(encoding="utf-8")
LIMITS = connections.DEFAULT_LIMITS


def documented_limits():
    """Return the numbers of each line of the table of limits, by the start of the line."""
    lines = re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", PAGE.split("### Limits")[1], re.MULTILINE)
    return {what: [int(number) for number in re.findall(r"\d+", limit)] for what, limit in lines}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("connections", [LIMITS.connections]),
        ("time for a request's header", [LIMITS.request_sec, Config(None).timeout_keep_alive]),
        ("time for which a visitor with data", [LIMITS.unsent_sec]),
        ("open pages", [LIMITS.open_pages]),
        ("pages in memory, including", [visitors.MAX_PAGES]),
        ("pages in memory whose", [LIMITS.unopened_pages]),
        ("pages built at the same time", [1, visitors.MAX_QUEUED_PAGES]),
        ("a message of a websocket", [server._MAX_MESSAGE_BYTES / 1_000_000]),
        ("a header", [h11_impl.DEFAULT_MAX_INCOMPLETE_EVENT_SIZE // 1000]),
        ("messages of the web server", [log_limit._MAX_RECORDS]),
    ],
)
def test_documented_limit_is_the_one_of_the_code(what, expected):
    (found,) = [numbers for line, numbers in documented_limits().items() if line.startswith(what)]
    assert found == expected


def test_documented_time_without_a_server_is_the_one_of_the_script():
    (milliseconds,) = re.findall(r"FIRST_HEARTBEAT_MS = (\d+);", SCRIPT)
    assert f"({int(milliseconds) // 1000} s while the page is still starting in the browser)" in PAGE


def test_page_can_only_show_ask_mark_and_watch():
    assert "The page cannot reset the memory or change parameters." in PAGE
    methods = {name for name in vars(Backend) if not name.startswith("_")}
    reads = {"state", "live_image", "images", "find", "journal", "journal_image"}
    assert methods == {*reads, "mark", "unmark", "watch", "unwatch", "ask"}
