"""The search box of the page in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from served_page import PHONE, WIDE, open_memory, served

pytest.importorskip("nicegui", reason="NiceGUI is not installed: make setup")

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def url():
    with served("1", "40", "3600", "journal=3") as address:
        yield address


@pytest.fixture(scope="module")
def page(browser, url):
    shown = open_memory(browser, url, WIDE)
    yield shown
    assert shown.faults == []
    shown.context.close()


def search(page, description):
    page.locator(".search input").fill(description)
    page.locator(".search input").press("Enter")


def test_found_moments_are_listed_and_open_their_frame_or_line(page):
    search(page, "a <b>red</b> box")
    page.get_by_text("3 moments found in 7 pairs of frames and 3 lines of the journal.").wait_for()
    cards = page.locator(".found")
    assert cards.count() == 3  # one does not fit
    assert [one.inner_text() for one in cards.locator(".frame-score").all()] == ["0.97", "0.80", "1.00"]
    assert page.locator(".search-warnings .warning").all_inner_texts() == ["Searched for a <b>red</b> box."]
    image = cards.first.locator("img")
    assert image.evaluate("(one) => one.complete && one.naturalWidth") == 64
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "search.png")
    # when
    cards.first.click()
    page.locator(".frame-dialog:visible h2", has_text="Frame of").wait_for()
    page.keyboard.press("Escape")
    page.locator(".frame-dialog").first.wait_for(state="hidden")
    cards.last.click()
    page.locator(".frame-dialog:visible h2", has_text="Journal of").wait_for()
    page.keyboard.press("Escape")
    page.locator(".moment-dialog").wait_for(state="hidden")
    assert "no longer kept" in cards.nth(1).inner_text()


def test_error_and_empty_description_replace_the_moments(page):
    search(page, "fail")
    page.get_by_role("alert").get_by_text("The model is away: start it.").wait_for()
    assert page.locator(".found").count() == 0
    search(page, " ")
    page.get_by_role("alert").get_by_text(re.compile("description is empty")).wait_for()
    search(page, "nothing")
    page.get_by_text(re.compile("^No moment found in 7 pairs")).wait_for()
    assert page.get_by_text(re.compile("description is empty")).count() == 0


def test_one_browser_searches_at_a_time(browser, url, page):
    other = open_memory(browser, url, PHONE, has_touch=True, is_mobile=True)
    search(page, "slow")
    page.get_by_text("Searching…").wait_for()
    assert page.locator(".search .primary").is_disabled()
    search(other, "a red box")
    other.get_by_role("alert").get_by_text(re.compile("A search is running")).wait_for()
    page.get_by_text(re.compile("3 moments found")).wait_for()
    assert page.locator(".search .primary").is_enabled()
    search(other, "a red box")
    other.get_by_text(re.compile("3 moments found")).wait_for()
    assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
    other.screenshot(path=SCREENSHOTS / "search_phone.png")
    assert other.faults == []
    other.context.close()
