"""The timeline of a day in a real browser: 1,024 frames, 2,000 lines of the journal, 200 alerts and 100 questions.

With ``-s`` the tests print how long frames take while the timeline is moved.
"""

from __future__ import annotations

import json
import re
import statistics
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from served_page import PHONE, WIDE, open_memory, served
from waiting import PATIENCE_SEC

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
DAY = ["1024", "86400", "journal=2000", "alerts=200", "answers=100", "gaps=5", "new=2"]
MOMENTS = 1024 + 2000 + 200 + 100
MAX_MEDIAN_FRAME_MS = 50.0  # 20 frames a second, without a GPU and beside other tests
RECORD_FRAMES = """() => {
  const record = window.record = { frames: [], long: [] };
  let last = performance.now();
  const tick = (now) => {
    record.frames.push(now - last);
    last = now;
    record.request = requestAnimationFrame(tick);
  };
  record.request = requestAnimationFrame(tick);
  const note = (list) => record.long.push(...list.getEntries().map((one) => one.duration));
  record.observer = new PerformanceObserver(note);
  record.observer.observe({ type: 'longtask' });
}"""
STOP = """() => {
  cancelAnimationFrame(window.record.request);
  window.record.observer.disconnect();
  return [window.record.frames, window.record.long];
}"""


@pytest.fixture(scope="module")
def url():
    with served("1", *DAY) as address:
        yield address


def opened(browser, url, size, **options):
    page = open_memory(browser, url, size, **options)
    page.wait_for_function(f"Number(document.querySelector('.timeline-plot').dataset.drawn) >= {MOMENTS}")
    return page


@pytest.fixture(scope="module")
def page(browser, url):
    shown = opened(browser, url, WIDE)
    yield shown
    shown.context.close()


@pytest.fixture(scope="module")
def phone(browser, url):
    shown = opened(browser, url, PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    yield shown
    shown.context.close()


@pytest.fixture
def whole_day(page):
    """The page with the whole day on the timeline and no dialog open."""
    page.keyboard.press("Escape")
    page.locator(".frame-dialog").first.wait_for(state="hidden")
    page.locator("[data-range=all]").click()
    page.locator(".timeline-range", has_text="the whole time").wait_for()
    return page


def range_of(page) -> str:
    return page.locator(".timeline-range").inner_text()


def measured(page, what: str, move) -> None:
    """Move the timeline, and check how long the frames take meanwhile."""
    page.evaluate(RECORD_FRAMES)
    move()
    frames, long_tasks = page.evaluate(STOP)
    median, slow = statistics.median(frames), statistics.quantiles(frames, n=20)[-1]
    print(
        f"{what}: {len(frames)} frames, median {median:.0f} ms, 95 % below {slow:.0f} ms, longest {max(frames):.0f} ms;"
        f" {len(long_tasks)} long tasks, longest {max(long_tasks, default=0):.0f} ms"
    )
    assert median < MAX_MEDIAN_FRAME_MS


def test_all_moments_and_gaps_of_the_day_are_shown(page):
    summary = page.locator(".timeline > p.quiet").inner_text()
    assert re.match(
        r"1\d\d\d kept pairs, 200 alerts, 100 questions, 2000 journal lines\. 5 gaps of the camera", summary
    )
    assert "1 h 15 min in total" in summary
    page.locator(".memory").screenshot(path=SCREENSHOTS / "timeline_wide.png")


def test_timeline_of_a_day_stays_smooth_while_it_is_moved(whole_day):
    page = whole_day
    page.locator(".timeline-plot").scroll_into_view_if_needed()
    box = page.locator(".timeline-plot").bounding_box()
    x, y = box["x"] + box["width"] * 0.6, box["y"] + 60

    def zoom():
        page.mouse.move(x, y)
        page.keyboard.down("Control")
        for step in range(40):
            page.mouse.wheel(0, -60 if step < 20 else 60)
            page.wait_for_timeout(16)
        page.keyboard.up("Control")

    def drag():
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(40):
            page.mouse.move(x - 6 * step, y)
            page.wait_for_timeout(16)
        page.mouse.up()

    measured(page, "wide, zoom", zoom)
    page.locator("[data-zoom=in]").click()
    page.locator("[data-zoom=in]").click()
    before = range_of(page)
    measured(page, "wide, drag", drag)
    assert range_of(page) != before
    measured(page, "wide, at rest", lambda: page.wait_for_timeout(3000))
    assert page.faults == []


def test_wheel_without_a_key_scrolls_the_page_and_leaves_the_timeline(whole_day):
    page = whole_day
    page.locator(".timeline-plot").hover()
    page.evaluate("window.scrollTo(0, 1)")
    page.wait_for_function("window.scrollY === 1")
    box = page.locator(".timeline-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.wheel(0, 300)
    page.wait_for_function("window.scrollY > 1")
    assert range_of(page) == "the whole time"


def select(page, *keys: str) -> str:
    """Press keys on the timeline; return the description of the moment that is selected then."""
    page.locator(".timeline-plot").focus()
    for key in keys:
        page.keyboard.press(key)
    return page.locator(".timeline-spoken").text_content()


def test_keyboard_moves_between_moments_and_zooms(whole_day):
    first = select(whole_day, "Home")
    second = select(whole_day, "ArrowRight")
    assert re.match(r".*\d\d:\d\d:\d\d (Frame|Journal|Alert|Question)", first)
    assert second != first
    assert select(whole_day, "ArrowLeft") == first
    select(whole_day, "+", "+")
    whole_day.wait_for_function("document.querySelector('.timeline-range').textContent !== 'the whole time'")
    select(whole_day, "0")
    whole_day.locator(".timeline-range", has_text="the whole time").wait_for()


def test_frame_is_opened_by_a_click_and_a_question_asked_about_it(whole_day):
    # given
    page = whole_day
    select(page, "Home")
    while not select(page, "ArrowRight").split(" ", 3)[-1].startswith("Frame"):
        pass
    ring = page.locator(".timeline-ring").bounding_box()

    # when
    page.mouse.click(ring["x"] + ring["width"] / 2 + 2, ring["y"] + ring["height"] / 2)
    page.locator(".frame-dialog img").first.wait_for()
    page.get_by_role("button", name="Ask about this", exact=True).click()

    # then
    page.locator(".limit", has_text=re.compile(r"from .* up to .*✕")).wait_for()
    page.wait_for_function("document.activeElement.id === 'question'")
    page.locator(".limit").click()


@pytest.mark.parametrize("seconds", [3600, 600, 60])
def test_short_window_shows_the_newest_time(whole_day, seconds):
    page = whole_day
    page.locator(f"[data-range='{seconds}000']").click()
    page.locator(".timeline-range", has_text="now").wait_for()
    page.wait_for_timeout(1500)
    select(page, "End")
    box, ring = page.locator(".timeline-plot").bounding_box(), page.locator(".timeline-ring").bounding_box()
    assert ring["x"] + ring["width"] / 2 > box["x"] + 0.8 * box["width"]


def test_visible_time_limits_the_question(whole_day):
    page = whole_day
    page.locator("[data-range='3600000']").click()
    page.locator(".timeline-range", has_text="now").wait_for()
    page.get_by_role("button", name="Ask about this time").click()
    page.locator(".limit", has_text="from").wait_for()
    assert "up to" not in page.locator(".limit").inner_text()
    assert re.match(r"from (\d\d \w+ )?\d\d:\d\d:\d\d\s+✕", page.locator(".limit").inner_text())
    limit, shown = (
        datetime.strptime(re.search(r"\d\d:\d\d:\d\d", text)[0], "%H:%M:%S")
        for text in (page.locator(".limit").inner_text(), range_of(page))
    )
    assert (shown - limit).total_seconds() % 86400 < PATIENCE_SEC
    page.locator(".limit").click()


@pytest.mark.parametrize(
    ("lane", "texts"),
    [
        ("Journal", ["eine Tür 門 <b>offen</b>", "no longer kept"]),
        ("Question", ["What happened <i>then</i>?", "A box came.", "1 of its 3 pairs are no longer kept"]),
    ],
)
def test_moment_of_the_past_shows_its_text_as_text(whole_day, lane, texts):
    page = whole_day
    select(page, "End")
    for _ in range(60):
        if f" {lane}: " in select(page, "ArrowLeft"):
            break
    page.keyboard.press("Enter")
    dialog = page.locator(".moment-dialog")
    dialog.wait_for()
    for text in texts:
        assert text in dialog.inner_text()
    assert dialog.locator("b, i").count() == 0
    page.wait_for_function("[...document.querySelectorAll('.moment-dialog img')].every(one => one.naturalWidth > 0)")
    dialog.get_by_role("button", name="Ask from here on").click()
    page.locator(".limit", has_text="from").wait_for()
    page.locator(".limit").click()


def test_export_saves_the_visible_time(whole_day):
    page = whole_day
    page.locator("[data-range='3600000']").click()
    page.locator(".timeline-range", has_text="now").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("export.json")]
        counts = json.loads(archive.read(name))["counts"]
        images = sum(name.endswith(".png") for name in archive.namelist())
    assert images == counts["images"] > 0
    assert counts["pairs"] + counts["pairs_left"] < 100  # of 1,024
    assert counts["alerts"] in (8, 9)  # one in 432 s
    assert counts["answers"] in (4, 5)  # one in 864 s
    assert page.locator(".timeline").is_visible()


def test_alert_opens_its_frames(whole_day):
    select(whole_day, "End")
    for _ in range(60):
        if " Alert: " in select(whole_day, "ArrowLeft"):
            break
    whole_day.keyboard.press("Enter")
    whole_day.locator(".frame-dialog img").first.wait_for()


def test_timeline_fits_a_phone_and_stays_smooth(phone):
    # given
    assert phone.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    phone.screenshot(path=SCREENSHOTS / "timeline_phone.png")
    box = phone.locator(".timeline-plot").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 40
    session = phone.context.new_cdp_session(phone)

    def touch(kind, *points):
        touches = [{"x": at, "y": y, "id": number} for number, at in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    def pinch():
        touch("touchStart", x - 20, x + 20)
        for step in range(30):
            touch("touchMove", x - 20 - 3 * step, x + 20 + 3 * step)
            phone.wait_for_timeout(16)
        touch("touchEnd")

    def swipe():
        touch("touchStart", x)
        for step in range(30):
            touch("touchMove", x + 3 * step)
            phone.wait_for_timeout(16)
        touch("touchEnd")

    # when
    measured(phone, "phone, pinch", pinch)
    zoomed = range_of(phone)
    measured(phone, "phone, swipe", swipe)

    # then
    assert zoomed != "the whole time"
    assert range_of(phone) != zoomed
    assert phone.faults == []


def test_tap_on_a_phone_opens_the_nearest_moment(phone):
    phone.locator("[data-range='60000']").tap()
    phone.locator(".timeline-range", has_text="now").wait_for()
    select(phone, "End")
    ring = phone.locator(".timeline-ring").bounding_box()
    phone.touchscreen.tap(ring["x"] + ring["width"] / 2 - 8, ring["y"] + ring["height"] / 2)
    phone.locator(".frame-dialog img").first.wait_for()
