"""Visitors who overload the page's server: a real process with a low limit of file descriptors and real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from waiting import PATIENCE_SEC

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")
pytest.importorskip("websockets", reason="websockets is not installed: make setup")

from websockets.exceptions import ConnectionClosed
from websockets.sync import client as websockets

from delayed_vlm_ros.web.connections import ConnectionGuard, VisitorLimits

SERVER = Path(__file__).parents[2] / "helpers" / "page_server.py"
DESCRIPTORS = 160
CONNECTIONS = 200
REQUEST_SEC = 2.0
UNSENT_SEC = 1.5
MAX_LOG_BYTES = 100_000
SOCKET_PATH = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
CONNECTED = "40"  # answer to the connect of Socket.IO
UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class PageProcess:
    """A process that serves the page, with short times."""

    def __init__(self, log: Path) -> None:
        self._log = log
        limits = [f"request_sec={REQUEST_SEC}", f"unsent_sec={UNSENT_SEC}", "open_pages=2", "unopened_pages=3"]
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVER), "0", "1", "4", "60", *limits],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        url = self._process.stdout.readline().strip()
        assert url, f"the page did not start: {self.log}"
        self.port = urlsplit(url).port
        self.host = f"127.0.0.1:{self.port}"
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    @property
    def cpu_sec(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def pages(self) -> int:
        self._process.send_signal(signal.SIGUSR1)
        return int(self._process.stdout.readline())

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.host}{path}", timeout=PATIENCE_SEC) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def connect(self, request: str = "", receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(PATIENCE_SEC)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(request.encode("latin-1"))
        return connection

    def status(self, request: bytes) -> int:
        """Return the status of a response to raw bytes."""
        with self.connect(request.decode("latin-1")) as connection:
            return int(connection.makefile("rb").readline().split()[1])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    running = PageProcess(tmp_path_factory.mktemp("page") / "log")
    yield running
    running.close()


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SEC
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def has_ended(connection: socket.socket) -> bool:
    """Send one more byte; return whether the server has closed the connection."""
    try:
        connection.sendall(b"G")
        return not connection.recv(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def client_of(page: PageProcess) -> str:
    """Return NiceGUI's id of a new page."""
    return re.search(r"client_id[^0-9a-f]+([0-9a-f-]{36})", page.get("/")[1])[1]


def half_open_requests(host: str) -> list[str]:
    head = f"GET /server HTTP/1.1\r\nHost: {host}\r\n"
    return [
        "",
        "G",
        f"{head}X: ",
        f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n",
        f"{head}\r\n",  # a connection that stays open after the response
        f"GET {SOCKET_PATH} HTTP/1.1\r\nHost: {host}\r\n{UPGRADE}\r\n",  # a websocket that never speaks
    ]


def test_half_open_connections_at_the_descriptor_limit_leave_room_for_a_visitor(page):
    # given
    page.get("/")
    wait_until(lambda: page.descriptors < DESCRIPTORS // 4, "connections of earlier requests stay")
    before = page.descriptors
    started, cpu_sec, log_bytes = time.monotonic(), page.cpu_sec, len(page.log)

    # when
    requests = half_open_requests(page.host)
    connections = [page.connect(requests[number % len(requests)]) for number in range(CONNECTIONS)]

    # then
    assert page.descriptors < DESCRIPTORS * 3 // 4
    assert page.get("/server")[0] == 200
    wait_until(lambda: page.descriptors <= before + 1, "half-open connections stay")
    assert page.cpu_sec - cpu_sec < (time.monotonic() - started) / 2
    assert page.get("/")[0] == 200
    assert len(page.log) - log_bytes < MAX_LOG_BYTES
    for connection in connections:
        connection.close()


def test_request_sent_byte_by_byte_ends_after_the_time_for_a_request(page):
    started = time.monotonic()
    with page.connect() as connection:
        connection.settimeout(0.1)
        wait_until(lambda: has_ended(connection), "the connection stays")
    assert time.monotonic() - started > REQUEST_SEC


def test_websocket_that_never_speaks_ends_and_one_of_a_page_stays(page):
    client = client_of(page)
    with (
        page.connect(f"GET {SOCKET_PATH} HTTP/1.1\r\nHost: {page.host}\r\n{UPGRADE}\r\n") as silent,
        websockets.connect(f"ws://{page.host}{SOCKET_PATH}&client_id={client}") as spoken,
    ):
        spoken.send("40")
        while silent.recv(1000):
            pass
        spoken.send("3")
        assert spoken.recv(timeout=PATIENCE_SEC).startswith("0")
        assert page.get("/server")[0] == 200


def test_page_is_refused_while_too_many_browsers_have_it_open(page):
    client = client_of(page)
    with ExitStack() as sockets:
        for _ in range(2):
            opened = sockets.enter_context(websockets.connect(f"ws://{page.host}{SOCKET_PATH}&client_id={client}"))
            opened.send("40")
        wait_until(lambda: page.get("/")[0] == 503, "a third page is served")
        assert "Too many browsers" in page.get("/")[1]
        assert page.get("/server")[0] == 200

    # then
    wait_until(lambda: page.get("/")[0] == 200, "the page is refused after the others have left")


def test_errors_reported_by_a_browser_are_escaped_and_limited_in_the_log(page):
    client = client_of(page)
    report = json.dumps(["log", {"client_id": client, "level": "error", "message": "reported \x1b[31m\nERROR: forged"}])
    with websockets.connect(f"ws://{page.host}{SOCKET_PATH}&client_id={client}") as opened:
        opened.send("40")
        for _ in range(100):
            opened.send(f"42{report}")
        wait_until(lambda: "reported" in page.log, "no report in the log")
    wait_until(lambda: page.get("/server")[0] == 200, "the server does not answer")
    assert 1 <= page.log.count("reported") <= 10
    assert "\x1b" not in page.log
    assert "\nERROR" not in page.log


def test_visitor_who_reads_nothing_is_disconnected(page):
    script = re.search(r'"(/_nicegui/[^"]+/vue[^"]+\.js)"', page.get("/")[1])[1]
    request = f"GET {script} HTTP/1.1\r\nHost: {page.host}\r\n\r\n" * 60
    before = page.descriptors
    with page.connect(request, receive_buffer=4096):
        wait_until(lambda: page.descriptors > before, "the connection was not accepted")
        started = time.monotonic()
        wait_until(lambda: page.descriptors <= before, "the connection stays")
        assert time.monotonic() - started > UNSENT_SEC / 2


def test_visitor_who_reads_slowly_and_steadily_stays(page):
    script = re.search(r'"(/_nicegui/[^"]+/vue[^"]+\.js)"', page.get("/")[1])[1]
    request = f"GET {script} HTTP/1.1\r\nHost: {page.host}\r\n\r\n" * 60
    before = page.descriptors
    with page.connect(request, receive_buffer=4096) as connection:
        wait_until(lambda: page.descriptors > before, "the connection was not accepted")
        started = time.monotonic()
        while time.monotonic() - started < 3 * UNSENT_SEC:
            connection.recv(2000)
            assert page.descriptors > before, "disconnected"
            time.sleep(0.05)


def test_websockets_that_speak_late_open_no_more_pages_than_allowed(page):
    client = client_of(page)
    wait_until(lambda: page.get("/")[0] == 200, "pages of the tests above are open")
    with ExitStack() as sockets:
        opened = [
            sockets.enter_context(websockets.connect(f"ws://{page.host}{SOCKET_PATH}&client_id={client}"))
            for _ in range(12)
        ]
        # when
        for one in opened:
            one.send("40")
        # then
        codes = [close_code(one, unless=CONNECTED) for one in opened]
        assert codes.count(None) == 2
        assert codes.count(1013) == 10
        assert page.get("/server")[0] == 200
    assert "Traceback" not in page.log


def close_code(opened, *, unless=None):
    """Return the code with which the server closes a websocket; None if a message starts with ``unless`` before."""
    try:
        for message in iter(lambda: opened.recv(timeout=PATIENCE_SEC), None):
            if unless and message.startswith(unless):
                return None
    except ConnectionClosed as closed:
        return closed.rcvd.code


def test_message_of_more_than_a_megabyte_closes_the_websocket(page):
    client = client_of(page)
    with websockets.connect(f"ws://{page.host}{SOCKET_PATH}&client_id={client}") as opened:
        opened.send("40")
        opened.send("4" + "x" * 1_100_000)
        assert close_code(opened) == 1009
    assert page.get("/server")[0] == 200


def test_defect_of_a_check_is_logged_and_the_checks_continue(caplog, monkeypatch):
    # given
    guard = ConnectionGuard(VisitorLimits(check_sec=0.001), time.monotonic)
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("planted")
        if len(calls) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(guard, "check", check)
    # when
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(guard.watch())
    # then
    assert [record.exc_info[1].args for record in caplog.records] == [("planted",)]


def test_pages_that_no_browser_opens_are_deleted(page):
    for _ in range(10):
        assert page.get("/")[0] == 200
    assert page.pages <= 5  # three unopened ones, and two of the tests above
    for number in range(100):
        page.status(f"GET /unknown{number} HTTP/1.1\r\nHost: {page.host}\r\n\r\n".encode())
    assert page.pages <= 5
    assert len(page.log) < MAX_LOG_BYTES


HOSTS = [
    *(b"[::1", b"a b", b"\xc3\xa4", b"", b"localhost:x", b"localhost:99999", b"[::1]x", b"[1.2.3.4]", b"x" * 65536),
    *(b"localhost,localhost", b"localhost@evil", b"%6cocalhost", b"localhost/", b"a\\b", b"localhost:\xd9\xa1"),
]
ORIGINS = [b"null", b"http://[", b"\xff\xfe", b"", b"file://", b"javascript:", b"http://[" + b"a" * 3000]
PATHS = [
    *(b"/%00", b"/assets/%00", b"/assets/..%2f..%2fserver.py", b"/assets/../server.py", b"/live/..%2f", b"/%ed%a0%80"),
    *(b"/frames/99999999999999999999-1/first.jpg", b"/frames/%d9%a1-1/first.jpg", b"//", b"*", b"/\xff"),
    *(b"http://evil/", b"/" + b"a" * 9000, b"/assets/" + b"a" * 5000, b"/_nicegui/x", b"/assets/%0d%0aX:%20y"),
    *(b"/_nicegui_ws/socket.io/?EIO=4&transport=polling", b"/_nicegui_ws/socket.io/?EIO=4&transport=\xff"),
]
METHODS = [b"POST", b"PUT", b"FOO", b"CONNECT", b"OPTIONS", b"TRACE", b"G\x00T", b"PRI"]
VERSIONS = [b"HTTP/2.0", b"HTTP/9.9", b"HTTP/0.9", b"http/1.1", b"HTTP/1.1.1", b""]
HEADERS = [
    *(b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: x", b"Content-Length: 9"),
    *(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Sec-Fetch-Site: \xff"),
    *(b"Upgrade: websocket\r\nConnection: Upgrade", b"Host: localhost", b"Sec-Fetch-Site: cross-site"),
]


def malformed_requests(host: bytes) -> list[bytes]:
    head, good = b"GET /server HTTP/1.1\r\n", b"Host: " + host + b"\r\n"
    return [
        *(head + b"Host: " + name + b"\r\n\r\n" for name in HOSTS),
        *(head + good + b"Origin: " + origin + b"\r\n\r\n" for origin in ORIGINS),
        *(b"GET " + path + b" HTTP/1.1\r\n" + good + b"\r\n" for path in PATHS),
        *(method + b" /server HTTP/1.1\r\n" + good + b"\r\n" for method in METHODS),
        *(b"GET /server " + version + b"\r\n" + good + b"\r\n" for version in VERSIONS),
        *(head + good + header + b"\r\n\r\n" for header in HEADERS),
        b"GET /server HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
    ]


def test_malformed_request_is_a_client_error_without_a_traceback(page):
    statuses = {request: page.status(request) for request in malformed_requests(page.host.encode())}
    assert {request[:60]: status for request, status in statuses.items() if not 400 <= status < 500} == {}
    assert "Traceback" not in page.log
    assert page.get("/server")[0] == 200


@pytest.mark.parametrize(
    "headers",
    ["Cookie: =;;=", "Cookie: a=\xff", 'Cookie: {"a":1}; x="', "X-Forwarded-For: \xff,[::1", "Range: bytes=9-1,x"],
)
def test_header_of_other_servers_does_not_matter(page, headers):
    request = f"GET /server HTTP/1.1\r\nHost: {page.host}\r\n{headers}\r\n\r\n"
    assert page.status(request.encode("latin-1")) == 200
