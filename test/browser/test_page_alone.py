"""The page in a real browser: a server that dies, hangs and returns, the keyboard, and the first view on a phone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest
from served_page import SERVER
from waiting import PATIENCE_SEC

from delayed_vlm_ros.web.access import TOKEN_VARIABLE

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

TOKEN = "a+token&of=the#tests%2B"  # a link must carry any character
MAX_SILENT_SEC = 3.0
DAY_SEC = 24 * 3600
RECORD_LOSS = """() => new MutationObserver(() => {
  if (document.documentElement.dataset.connection === 'lost') window.lostAt ||= Date.now() / 1000;
}).observe(document.documentElement, { attributes: true })"""


class Server:
    """A process that serves the page; ``restart`` keeps its port."""

    def __init__(self, token: str = "", cameras: int = 1, frames: int = 100, span_sec: int = DAY_SEC) -> None:
        self.token = token
        self._arguments = [str(cameras), str(frames), str(span_sec)]
        self._port = 0
        self.restart()

    def restart(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), str(self._port), *self._arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, TOKEN_VARIABLE: self.token},
        )
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the page did not start"
        self._port = urlsplit(self.url).port

    def send(self, number: signal.Signals) -> float:
        """Send a signal; return the time of day, in seconds."""
        now = time.time()
        self._process.send_signal(number)
        return now

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def opened(browser, server: Server, width: int = 1440, height: int = 900) -> Iterator:
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_SEC * 1000)
    try:
        page = context.new_page()
        page.goto(server.url)
        page.locator(".status.level-ok", has_text="Live").wait_for()
        yield page
    finally:
        server.send(signal.SIGCONT)  # for the next test, if this one failed while the server was stopped
        context.close()


@pytest.fixture(scope="module")
def server():
    server = Server(cameras=2)
    yield server
    server.close()


@pytest.fixture
def server_with_token():
    running = Server(TOKEN)
    yield running
    running.close()


def wait_until_lost(page, since: float, at_most_sec: float = MAX_SILENT_SEC) -> None:
    page.wait_for_function("window.lostAt !== undefined")
    assert page.evaluate("window.lostAt") - since < at_most_sec
    assert "Connection lost" in page.locator(".connection:visible").inner_text()
    assert not page.locator(".status").is_visible()
    assert float(page.evaluate("getComputedStyle(document.querySelector('.live img')).opacity")) < 0.5
    page.evaluate("delete window.lostAt")


def wait_until_live(page) -> None:
    page.locator(".connection").wait_for(state="hidden")
    page.locator(".status.level-ok", has_text="Live").wait_for()
    number = page.locator(".live").get_attribute("data-number") or ""
    page.wait_for_function("before => (document.querySelector('.live').dataset.number || '') !== before", arg=number)


def is_same_document(page) -> bool:
    return page.evaluate("window.isOpenSince === 'start'")


def test_page_of_a_killed_server_is_stale_within_three_seconds_and_live_after_its_restart(browser, server_with_token):
    server = server_with_token
    with opened(browser, server) as page:
        page.evaluate(RECORD_LOSS)

        # when
        wait_until_lost(page, server.send(signal.SIGKILL))

        # then a question is kept, not sent
        page.get_by_label("Question").fill("What is there?")
        page.keyboard.press("Enter")
        server.close()
        server.restart()
        wait_until_live(page)
        assert page.get_by_label("Question").input_value() == "What is there?"
        assert page.locator(".exchange").count() == 0

        # when the token is another one
        page.evaluate(RECORD_LOSS)
        wait_until_lost(page, server.send(signal.SIGKILL))
        server.close()
        server.token = "another+token&of=the#tests%2B"
        server.restart()

        # then the page says what to do
        page.locator(".connection-text", has_text="another token").wait_for()
        page.get_by_role("button", name="Enter the token").click()
        page.get_by_label("Token").fill(server.token)
        page.get_by_role("button", name="Open").click()
        wait_until_live(page)


def test_page_of_a_hung_server_is_stale_within_three_seconds_and_live_when_it_continues(browser, server):
    with opened(browser, server) as page:
        page.evaluate("window.isOpenSince = 'start'")
        page.evaluate(RECORD_LOSS)

        # when
        wait_until_lost(page, server.send(signal.SIGSTOP))
        server.send(signal.SIGCONT)

        # then
        wait_until_live(page)
        assert is_same_document(page)

        # when a network in between drops the messages of an open connection
        since = time.time()
        page.evaluate("window.socket.io.engine.transport.ws.onmessage = () => {}")
        wait_until_lost(page, since)

        # then
        wait_until_live(page)


def test_page_that_returns_from_the_background_reports_a_lost_connection_at_once(browser, server):
    with opened(browser, server) as page:
        page.evaluate(RECORD_LOSS)
        session = page.context.new_cdp_session(page)

        # when a phone sleeps, and the server hangs meanwhile
        session.send("Page.setWebLifecycleState", {"state": "frozen"})
        server.send(signal.SIGSTOP)
        time.sleep(MAX_SILENT_SEC)
        since = time.time()
        session.send("Page.setWebLifecycleState", {"state": "active"})

        # then
        wait_until_lost(page, since, MAX_SILENT_SEC / 2)

        # when
        server.send(signal.SIGCONT)

        # then
        wait_until_live(page)
        assert not page.locator(".live.old").count()


def presses_to(page, key: str, selector: str, most: int = 20) -> int:
    """Press a key until an element has the focus; return the number of presses."""
    for presses in range(1, most + 1):
        page.keyboard.press(key)
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return presses
    raise AssertionError(f"{selector} does not have the focus after {most} presses of {key}")


def test_question_is_three_tab_presses_away_and_each_group_of_frames_one(browser, server):
    with opened(browser, server) as page:
        page.locator(".strip-star .frame-card").nth(20).wait_for()
        assert presses_to(page, "Tab", "#question") <= 3
        assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "2px"
        for group in (".timeline-plot", ".strip-star .frame-card", ".strip-stream .frame-card"):
            presses_to(page, "Tab", group, most=24 if group == ".timeline-plot" else 1)

        # when
        newest = page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("ArrowLeft")
        second = page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("End")

        # then
        assert second != newest
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == newest
        assert page.locator("[data-grid]:visible").count() == page.locator("[data-grid] [tabindex='0']:visible").count()


def test_image_of_one_camera_is_never_shown_for_another(browser, server):
    with opened(browser, server) as page:
        page.locator(".live img").wait_for()
        page.get_by_role("button", name="camera1").click()
        page.locator(".live img").wait_for(state="hidden")
        assert page.locator(".live-size").inner_text() == ""
        page.get_by_role("button", name="camera0").click()
        page.locator(".live img").wait_for()


def test_answer_shows_frames_spread_over_its_time(browser, server):
    with opened(browser, server) as page:
        page.get_by_label("Question").fill("What is there?")
        page.keyboard.press("Enter")
        page.locator(".used .frame-card").nth(4).wait_for()
        labels = [card.get_attribute("aria-label") for card in page.locator(".used .frame-card").all()]
        ids = [int(re.search(r"/(\d+)-", image.get_attribute("src"))[1]) for image in page.locator(".used img").all()]
        assert ids == [0, 25, 49, 74, 99]
        assert all(re.search(r"\d\d:\d\d:\d\d", label) for label in labels)
        assert "5 of the 100 pairs" in page.locator(".exchange").last.inner_text()
        assert page.get_by_role("region", name="Talk").get_by_role("status").inner_text() == "What is there?"


@pytest.fixture
def foreign_site(server, tmp_path):
    """A site on another port that links to the page and embeds the camera's image."""
    (tmp_path / "index.html").write_text(f'<a href="{server.url}">page</a><img src="{server.url}live/camera0">')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        Thread(target=site.serve_forever).start()
        yield f"http://localhost:{site.server_port}/"
        site.shutdown()


def test_other_site_links_to_the_page_but_embeds_no_image_of_it(browser, server, foreign_site):
    context = browser.new_context()
    page = context.new_page()
    page.goto(foreign_site)
    page.wait_for_function("document.images[0].complete")
    assert page.evaluate("document.images[0].naturalWidth") == 0
    page.get_by_role("link").click()
    page.locator(".status.level-ok", has_text="Live").wait_for()
    page.locator(".live img").wait_for()
    context.close()


def test_phone_opens_on_the_question(browser, server):
    with opened(browser, server, 390, 640) as page:
        question = page.get_by_label("Question").bounding_box()
        assert question["y"] + question["height"] <= 640
        assert "All browsers share this conversation" in page.locator(".talk").inner_text()
        page.get_by_role("button", name="Memory").click()
        page.locator(".timeline-plot[data-drawn]").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
