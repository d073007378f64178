"""The page in a real browser, with the whole system: demo camera, memory node with the embedded model, page, and DDS.

All tests of this module share one system and run in order. Screenshots are written to build/screenshots.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import pytest
from harness import ROOT, SLOW_SCENE_MEMORY, Client, NodeProcess
from waiting import PATIENCE_SEC, end_process, wait_until

from delayed_vlm_ros.ros.process_group import NODE_MODULES
from delayed_vlm_ros.scenes import render
from delayed_vlm_ros.scenes.story import story_scene
from delayed_vlm_ros.web.dashboard_node import URL_PREFIX

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

COMMAND = Path(sys.executable).with_name("delayed-vlm")
SCREENSHOTS = ROOT / "build" / "screenshots"
NAMESPACE = "/page"
IMAGE, KEY_FRAMES = f"{NAMESPACE}/image", f"{NAMESPACE}/scene_memory/key_frames"
TOKEN = "a-token-of-the-tests"
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> {{1+1}} What is there?"
PATIENCE_MS = PATIENCE_SEC * 1000
VIEWS = ("now", "watches", "memory", "talk", "health")
RECORD_ANSWERS = """() => {
  window.answers = [];
  const record = () => {
    for (const answer of document.querySelectorAll('.exchange:last-child .answer')) {
      if (answer.textContent && window.answers.at(-1) !== answer.textContent) window.answers.push(answer.textContent);
    }
  };
  new MutationObserver(record).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def node_process(
    module: str, environment: dict[str, str] | None = None, command: list[str] | None = None, **parameters: Any
) -> NodeProcess:
    named = {name.replace("__", "."): value for name, value in parameters.items()}
    command = command or ["-m", NODE_MODULES[module]]
    return NodeProcess(NAMESPACE, command, named, {}, environment or {})


def wait_for_url(process: NodeProcess) -> str:
    """Return the URL that a page prints at its start."""

    def url() -> str | None:
        assert process.alive, process.log
        return url_in_text(process.log)

    return wait_until(url, lambda: f"the page to start: {process.log}")


def url_in_text(text: str) -> str | None:
    found = re.search(rf"{URL_PREFIX} (\S+)", text)
    return found and found[1]


def url_in_file(log) -> str | None:
    log.seek(0)
    return url_in_text(log.read())


@dataclass
class System:
    """The running processes, and the hosts and errors that the browser reports."""

    hold: Path
    page: NodeProcess
    memory: NodeProcess
    camera: NodeProcess
    url: str = ""
    hosts: set[str] = field(default_factory=set)
    browser_errors: list[str] = field(default_factory=list)

    def start_memory(self) -> NodeProcess:
        self.memory = scene_memory(self.hold)
        return self.memory


def scene_memory(hold: Path) -> NodeProcess:
    return node_process(
        "scene_memory",
        {"HOLD_ANSWERS": str(hold), "OMP_NUM_THREADS": "1"},
        SLOW_SCENE_MEMORY,
        model__name="demo",
        memory__budget_mb=64.0,
        diagnostics__stale_after_sec=1.5,
        watches__max_duty=1.0,
    )


def demo_camera() -> NodeProcess:
    return node_process("demo_camera", story=True, rate=5.0)


@pytest.fixture(scope="module")
def system(browser, ros, tmp_path_factory):
    hold = tmp_path_factory.mktemp("held") / "hold"
    running = System(hold, node_process("web_dashboard", port=0), scene_memory(hold), demo_camera())
    running.url = wait_for_url(running.page)
    yield running
    for process in (running.page, running.memory, running.camera):
        process.close()


@pytest.fixture(scope="module")
def page(browser, system):
    """One page that stays open through all tests of this module."""
    opened = open_page(browser, system)
    opened.evaluate(RECORD_ANSWERS)
    yield opened
    opened.context.close()


def open_page(browser, system: System, **options: Any):
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **options})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    opened.on("request", lambda request: system.hosts.add(urlsplit(request.url).netloc))
    opened.on(
        "response",
        lambda response: response.status < 400 or system.browser_errors.append(f"{response.status} {response.url}"),
    )
    opened.on("pageerror", lambda error: system.browser_errors.append(str(error)))
    opened.on(
        "console",
        lambda message: system.browser_errors.append(message.text) if message.type in ("error", "warning") else None,
    )
    opened.goto(system.url)
    return opened


def ask(page, question: str) -> int:
    """Ask a question; return its number."""
    number = page.locator(".exchange").count() + 1
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")
    page.wait_for_function("number => document.querySelectorAll('.exchange').length === number", arg=number)
    return number


def newest(page):
    """Return the newest exchange."""
    return page.locator(".exchange").last


def wait_for_answer(page, number: int) -> None:
    """Wait until question ``number`` is the newest one and has ended."""
    page.wait_for_function(
        "number => document.querySelectorAll('.exchange').length === number "
        "&& !document.querySelector('.exchange:last-child .stage:not(.hidden)')",
        arg=number,
    )


def test_page_shows_live_image_and_memory(page):
    page.wait_for_function("document.querySelector('.live-size').textContent === '640 × 480'")
    page.locator(".strip-stream .frame-card").nth(2).wait_for()
    first = page.locator(".live").get_attribute("data-number")
    page.wait_for_function("first => document.querySelector('.live').dataset.number !== first", arg=first)
    page.wait_for_function("[...document.querySelectorAll('.strip img')].every(one => one.naturalWidth > 0)")
    page.locator(".status.level-ok", has_text="Live").wait_for()
    assert "fps" in page.locator(".now .panel-head").inner_text()
    assert "Model" in page.locator(".diagnostics").inner_text()
    page.wait_for_function("Number(document.querySelector('.timeline-plot').dataset.drawn) >= 3")


def test_answer_grows_and_shows_its_frames_and_cost(page, system):
    # given
    page.locator(".strip-star .frame-card").nth(1).wait_for()
    system.hold.touch()

    # when
    number = ask(page, "What was on the left at the start?")
    page.wait_for_function("window.answers.length > 0")
    partial = newest(page).locator(".answer").inner_text()
    stage = newest(page).locator(".stage").inner_text()
    system.hold.unlink()
    wait_for_answer(page, number)

    # then
    complete = newest(page).locator(".answer").inner_text()
    assert stage == "Answering…"
    assert complete.startswith(partial)
    assert len(partial) < len(complete)
    cost = newest(page).locator(".cost").inner_text()
    frames, encoded, reused = map(int, re.match(r"(\d+) frames: (\d+) encoded, (\d+) reused", cost).groups())
    assert frames == encoded + reused > 0
    assert re.search(r"time to first token [\d.]+ m?s / total [\d.]+ m?s", cost)
    used = newest(page).locator(".used .frame-card")
    assert used.count() == min(5, -(-frames // 2))
    page.wait_for_function("[...document.querySelectorAll('.used img')].every(one => one.naturalWidth > 0)")
    assert "demo model" in newest(page).locator(".warning").first.inner_text().lower()
    assert "demo model" in page.locator("form.ask .warning").inner_text().lower()
    page.locator(".latencies rect").first.wait_for()


def test_second_question_reuses_encoded_frames(page):
    wait_for_answer(page, ask(page, "What is there?"))
    assert int(re.search(r"(\d+) reused", newest(page).locator(".cost").inner_text())[1]) > 0


def test_stop_button_ends_a_question_early(page, system):
    # given
    system.hold.touch()
    number = ask(page, "What was on the left at the start?")
    newest(page).locator(".stage", has_text="Answering").wait_for()

    # when
    page.get_by_role("button", name="Stop").click()

    # then it ends while the model is still held
    wait_for_answer(page, number)
    assert "Stopped." in newest(page).inner_text()
    system.hold.unlink()
    page.get_by_role("button", name="Ask", exact=True).wait_for()


def test_markup_is_shown_as_text(page):
    title = page.title()
    wait_for_answer(page, ask(page, MARKUP))
    assert newest(page).locator(".question").inner_text() == MARKUP
    assert newest(page).locator(".question > *, .answer > *").count() == 0
    assert page.title() == title


def test_frame_is_opened_marked_and_unmarked(page):
    # given
    page.locator(".strip-star .frame-card").first.click()
    dialog = page.locator(".frame-dialog")
    dialog.locator("img").first.wait_for()

    # when
    page.get_by_label("Label").fill("keys <b>here</b>")
    dialog.get_by_role("button", name="Mark", exact=False).first.click()

    # then the memory reports the mark
    dialog.get_by_role("button", name="Unmark").wait_for()
    assert "keys <b>here</b>" in dialog.locator(".facts").inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    marked = page.locator(".strip-star .frame-card", has_text="keys <b>here</b>")
    marked.locator(".frame-mark").wait_for()

    # when
    marked.click()
    dialog.get_by_role("button", name="Unmark").click()

    # then
    marked.locator(".frame-mark").wait_for(state="hidden")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_questions_can_be_limited_to_the_time_before_a_frame(page):
    page.locator(".strip-star .frame-card").first.click()
    page.get_by_role("button", name="Ask up to here").click()
    limit = page.locator(".limit")
    limit.wait_for()
    wait_for_answer(page, ask(page, "What is there?"))
    assert "up to" in newest(page).locator(".asked").inner_text()
    assert newest(page).locator(".cost").count() == 1, newest(page).inner_text()
    limit.click()
    limit.wait_for(state="hidden")


def test_page_works_with_the_keyboard_alone(page):
    # given no element has the focus
    number = page.locator(".exchange").count() + 1
    page.evaluate("document.activeElement.blur()")

    # when
    page.keyboard.press("/")
    page.keyboard.type("What is there?")
    page.keyboard.press("Enter")

    # then
    wait_for_answer(page, number)

    # when the oldest key frame is opened; the newest ones may leave the memory before the key arrives
    page.locator(".strip-star .frame-card").last.focus()
    page.keyboard.press("Enter")

    # then
    title = page.locator(".frame-dialog h2")
    title.wait_for()
    before = title.inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('.frame-dialog h2').textContent !== before", arg=before)
    page.keyboard.press("Escape")
    page.locator(".frame-dialog").wait_for(state="hidden")


def test_views_fit_wide_and_narrow_screens_in_light_and_dark(page):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width, height, views in ((1440, 900, ("all",)), (390, 844, VIEWS)):
        page.set_viewport_size({"width": width, "height": height})
        for view in views:
            if view != "all":
                page.locator(".tabs .tab", has_text=view.capitalize()).click()
            shown = [name for name in VIEWS if page.locator(f".{name}").is_visible()]
            assert shown == (list(VIEWS) if view == "all" else [view])
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, (width, view)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=SCREENSHOTS / f"page_{width}_{view}_{scheme}.png")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1440, "height": 900})


def test_conversation_survives_a_reload(page):
    number = ask(page, "What is there to be remembered?")
    wait_for_answer(page, number)
    page.reload()
    wait_for_answer(page, number)
    assert newest(page).locator(".question").inner_text() == "What is there to be remembered?"
    page.evaluate(RECORD_ANSWERS)


def test_lost_camera_is_reported_until_it_returns(page, system):
    # when
    system.camera.close()

    # then
    message = page.locator(".live-message:not(.hidden)")
    message.wait_for()
    page.locator(".status.level-stale").wait_for()

    # when
    system.camera = demo_camera()

    # then
    message.wait_for(state="hidden")
    number = page.locator(".live").get_attribute("data-number")
    page.wait_for_function("number => document.querySelector('.live').dataset.number !== number", arg=number)


def watch(page, question: str, period: str = "1"):
    """Add a standing question; return its row."""
    page.get_by_label("New watch").fill(question)
    page.locator(".watch-form select[name=last]").select_option("5")
    page.locator(".watch-form select[name=period]").select_option(period)
    page.get_by_role("button", name="Watch", exact=True).click()
    row = page.locator(".watch", has_text=question)
    row.wait_for()
    return row


def test_watch_changes_to_yes_with_the_camera_and_is_removed(page):
    # given the story has begun again, without the cylinder that comes after 19 s
    row = watch(page, "Is there a yellow cylinder?")
    page.locator(".watch-no", has_text="cylinder").wait_for()
    assert page.get_by_label("New watch").input_value() == ""
    assert re.search(r"probability 0\.\d\d · since .* · last 5 s, every 1 s · \d+ s of device time", row.inner_text())

    # when
    page.locator(".watch-yes", has_text="cylinder").wait_for()

    # then
    assert row.locator(".level").inner_text() == "Yes"
    alert = page.locator(".alert-yes", has_text="cylinder").first
    alert.wait_for()
    page.wait_for_function("document.querySelector('.alert-yes img').naturalWidth > 0")
    page.locator(".timeline > p.quiet", has_text="alert").wait_for()
    assert "1 of 1 yes" in page.locator(".watches .panel-head").inner_text()
    page.screenshot(path=SCREENSHOTS / "page_watches.png")
    alert.click()
    page.locator(".frame-dialog img").first.wait_for()
    page.keyboard.press("Escape")
    page.locator(".frame-dialog").wait_for(state="hidden")

    # when
    page.get_by_role("button", name="Remove Is there a yellow cylinder?").click()

    # then
    row.wait_for(state="detached")


def test_watch_that_cannot_be_added_or_checked_says_why(page):
    # when
    page.get_by_label("New watch").fill(" ")
    page.get_by_role("button", name="Watch", exact=True).click()
    page.locator(".watches .error", has_text="The question is empty").wait_for()
    title = page.title()
    row = watch(page, MARKUP)

    # then
    page.locator(".watch-unknown", has_text="Not taken as a yes/no question").wait_for()
    assert row.locator(".watch-question").inner_text() == MARKUP
    assert row.locator(".watch-question > *").count() == 0
    assert page.title() == title
    page.locator(".watches .error", has_text="empty").wait_for(state="hidden")

    # when
    page.get_by_label("New watch").fill(MARKUP)
    page.get_by_role("button", name="Watch", exact=True).click()

    # then
    page.locator(".watches .error", has_text="asked already").wait_for()
    row.get_by_role("button").click()
    row.wait_for(state="detached")


def test_restarted_node_is_used_again(page, system):
    # given a running question
    system.hold.touch()
    number = ask(page, "What is there?")
    newest(page).locator(".stage", has_text="Answering").wait_for()

    # when
    system.memory.process.kill()
    system.memory.process.wait()

    # then the page and the question report it
    page.locator(".status.level-error", has_text="Not connected").wait_for()
    wait_for_answer(page, number)
    assert "page/scene_memory" in newest(page).locator(".error").inner_text()
    wait_for_answer(page, ask(page, "What is there?"))
    assert "page/scene_memory" in newest(page).locator(".error").inner_text()

    # when
    system.hold.unlink()
    system.memory.close()
    system.start_memory()

    # then
    page.locator(".strip-stream .frame-card").nth(1).wait_for()
    page.wait_for_function("document.querySelector('.talk .panel-head').textContent.includes('demo')")
    page.wait_for_function("[...document.querySelectorAll('.strip img')].every(one => one.naturalWidth > 0)")

    def is_answered() -> bool:  # the frames on the page may still be those of the killed node
        wait_for_answer(page, ask(page, "What is there?"))
        return newest(page).locator(".cost").count() == 1

    wait_until(is_answered, lambda: newest(page).inner_text())


def test_browser_contacted_only_the_page_and_reported_no_errors(page, system):
    assert {host for host in system.hosts if host} == {urlsplit(system.url).netloc}
    assert system.browser_errors == []


@pytest.fixture(scope="module")
def observer(ros):
    """A client that only counts subscriptions."""
    client = Client("/observer")
    yield client
    client.close()


def test_open_page_subscribes_to_camera_and_key_frames_until_it_is_left(page, observer):
    count = observer.node.count_subscribers
    wait_until(lambda: count(IMAGE) == 2, "the memory and the page to subscribe to the camera")
    wait_until(lambda: count(KEY_FRAMES) == 1, "the page to subscribe to the key frames")
    # when, for the tests until the one of the unsubscribed page: it waits thirty seconds for a browser to return
    page.goto("about:blank")


def test_page_on_all_addresses_requires_its_token(browser, system):
    # given a page that is reachable from other machines
    environment = {"DELAYED_VLM_WEB_TOKEN": TOKEN}
    process = node_process("web_dashboard", environment, address="0.0.0.0", port=0)
    try:
        url = wait_for_url(process)
        assert url.endswith(f"?token={TOKEN}")
        address = f"http://127.0.0.1:{urlsplit(url).port}/"
        context = browser.new_context()
        visitor = context.new_page()

        # then
        assert visitor.goto(address).status == 401
        assert visitor.goto(f"{address}assets/page.js").status == 401
        assert visitor.goto(f"{address}?token=another-token-of-tests").status == 401
        assert "Wrong token" in visitor.content()
        assert rejects_websocket(urlsplit(url).port)

        # when
        visitor.goto(address)
        visitor.get_by_label("Token").fill(TOKEN)
        visitor.get_by_role("button", name="Open").click()

        # then the page opens, and its URL has no token
        visitor.get_by_role("heading", name="Scene memory").wait_for()
        visitor.locator(".live-message:not(.hidden)").or_(visitor.locator(".live img")).first.wait_for()
        assert TOKEN not in visitor.url
        (cookie,) = context.cookies()
        assert cookie["httpOnly"]
        assert TOKEN not in cookie["value"]
        context.close()
    finally:
        code, _ = process.end()
        process.close()
    assert code == 0


def rejects_websocket(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SEC) as connection:
        connection.sendall(
            b"GET /_nicegui_ws/socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        return connection.recv(64).startswith(b"HTTP/1.1 403")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("video") / "room.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (320, 240))
    for number in range(50):
        writer.write(cv2.cvtColor(render(story_scene(), number / 5, 240, 320), cv2.COLOR_RGB2BGR))
    writer.release()
    return file


def _accept_sigint() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and so would the command


@contextmanager
def served(*arguments: str, cwd: Path) -> Iterator[str]:
    """Run the installed ``delayed-vlm web``; yield the URL of the page; end it with Ctrl-C."""
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} is not installed: make setup")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [str(COMMAND), "web", "--port", "0", *arguments],
            stdout=log,
            stderr=log,
            cwd=cwd,
            env=environment,
            preexec_fn=_accept_sigint,  # noqa: PLW1509  no thread of this process holds a lock then
        )
        try:
            url = wait_until(lambda: url_in_file(log) or process.poll() is not None, "the page to start")
            log.seek(0)
            assert url is not True, log.read()
            yield url
            code, _ = end_process(process, signal.SIGINT)
            log.seek(0)
            assert code == 0, log.read()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("mode", ["node", "demo", "video"])
def test_installed_command_serves_style_and_script_from_another_folder(browser, ros, video, tmp_path, mode):
    file = ["--video", str(video), "--loop", "--model", "demo"]
    arguments = {"node": [], "demo": ["--demo", "--model", "demo"], "video": file}
    with served(*arguments[mode], cwd=tmp_path) as url:
        # when
        running = System(tmp_path, None, None, None, url=url)
        opened = open_page(browser, running)
        theme = opened.get_by_role("button", name="Switch between light and dark")
        theme.wait_for()

        # then
        colour = "getComputedStyle(document.body).backgroundColor"
        opened.wait_for_function(f"{colour} === 'rgb(245, 246, 248)'")
        theme.click()
        opened.wait_for_function(f"{colour} === 'rgb(15, 18, 22)'")
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        opened.screenshot(path=SCREENSHOTS / f"installed_{mode}.png")
        if mode == "video":
            check_answer_about_video(opened)
        assert running.browser_errors == []
        opened.context.close()


def check_answer_about_video(opened):
    """Check that a question is answered without ROS."""
    opened.locator(".live-size", has_text="320 × 240").wait_for()
    opened.locator(".strip-stream .frame-card").nth(1).wait_for()
    wait_for_answer(opened, ask(opened, "What is there?"))
    assert newest(opened).locator(".cost").count() == 1, newest(opened).inner_text()
    opened.wait_for_function("[...document.querySelectorAll('.used img')].every(one => one.naturalWidth > 0)")
    check_watch_of_video(opened)


def check_watch_of_video(opened):
    """Check that a watch is added, checked and removed without ROS."""
    row = watch(opened, "Is there a red box?")
    opened.locator(".watch-yes, .watch-no").wait_for()
    row.get_by_role("button").click()
    row.wait_for(state="detached")


def test_without_an_open_page_camera_and_key_frames_are_unsubscribed(system, observer):
    count = observer.node.count_subscribers
    wait_until(lambda: count(IMAGE) == 1, "the page to unsubscribe from the camera")
    wait_until(lambda: count(KEY_FRAMES) == 0, "the page to unsubscribe from the key frames")


def test_page_node_exits_cleanly_with_an_open_browser(browser, system):
    opened = open_page(browser, system)
    opened.locator(".live img").wait_for()
    code, seconds = system.page.end(times=2)
    opened.context.close()
    assert code == 0, system.page.log
    assert seconds < 5, system.page.log
    assert "Traceback" not in system.page.log
