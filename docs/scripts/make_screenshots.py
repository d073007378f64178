"""Take the screenshots of the web page in docs/images: the demo's story in a real browser, and a made-up day.

It takes about two minutes; ``make_screenshots.py timeline`` takes those of the timeline only.

Needs Chromium: ``sudo apt-get install chromium``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"
PAGE_SERVER = Path(__file__).parents[2] / "test" / "helpers" / "page_server.py"
_QUALITY = 86
_STORY_MS = 34_000
_TIMEOUT_MS = 180_000
_DAY = ("1", "90", "86400", "journal=160", "alerts=14", "answers=9", "gaps=4", "new=0.5")
_WATCH = "Is there a yellow cylinder?"
_QUESTIONS = ("What was on the left at the start?", "What happened?")


def main() -> None:
    """Start the demo, add a watch, ask, mark a frame, and take the screenshots."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("Chromium is not installed: sudo apt-get install chromium")
    _serve([str(PAGE_SERVER), "0", *_DAY], chromium, _take_timeline)
    if sys.argv[1:] != ["timeline"]:
        _serve(["-m", "delayed_vlm_ros.cli.main", "web", "--demo", "--model", "demo", "--port", "0"], chromium, _take)


def _serve(arguments: list[str], chromium: str, take: Callable[[Browser, str], None]) -> None:
    """Start a page, and take screenshots of it."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as served:  # noqa: S603  ours
        try:
            line = served.stdout.readline() if served.stdout is not None else ""
            with sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                take(browser, line.split()[-1])
                browser.close()
        finally:
            served.terminate()


def _take_timeline(browser: Browser, link: str) -> None:
    page = _open(browser, link, 1440, 1100)
    page.locator(".timeline-plot[data-drawn]").wait_for()
    page.locator(".timeline-plot").focus()
    for key in ("End", *["ArrowLeft"] * 30, "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
    page.wait_for_timeout(1500)
    wide = Image.open(BytesIO(page.locator(".timeline").screenshot())).convert("RGB")
    wide.save(IMAGES / "web_timeline.jpg", quality=_QUALITY)


def _take(browser: Browser, link: str) -> None:
    page = _open(browser, link, 1440, 900)
    page.locator(".frame-card").first.wait_for()
    page.get_by_label("New watch").fill(_WATCH)
    page.locator(".watch-form select[name=last]").select_option("5")
    page.keyboard.press("Enter")
    page.locator(".watch", has_text=_WATCH).wait_for()
    page.wait_for_timeout(_STORY_MS)
    page.locator(".watch-yes").wait_for()
    for question in _QUESTIONS:
        page.get_by_label("Question").fill(question)
        page.keyboard.press("Enter")
        page.locator(".exchange", has_text=question).locator(".cost").wait_for()
    page.locator(".strip-star .frame-card").nth(3).click()
    page.get_by_label("Label").fill("the blue ball")
    page.get_by_role("button", name="★ Mark").click()
    page.get_by_role("button", name="Unmark").wait_for()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    _write("web_page", [_shot(page)])
    phone = [
        _phone(browser, link, view, scheme)
        for view, scheme in (("watches", "light"), ("memory", "light"), ("talk", "dark"))
    ]
    _write("web_page_phone", phone)


def _open(browser: Browser, link: str, width: int, height: int, scheme: str = "light") -> Page:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(_TIMEOUT_MS)
    page = context.new_page()
    page.goto(link)
    page.locator(".status.level-ok, .status.level-warn").first.wait_for()
    return page


def _phone(browser: Browser, link: str, view: str, scheme: str) -> Image.Image:
    page = _open(browser, link, 390, 844, scheme)
    page.locator(".tabs .tab", has_text=view.capitalize()).click()
    page.wait_for_timeout(1500)
    return _shot(page)


def _shot(page: Page) -> Image.Image:
    return Image.open(BytesIO(page.screenshot())).convert("RGB")


def _write(name: str, images: list[Image.Image]) -> None:
    gap = 20
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    sheet = Image.new("RGB", (width, images[0].height), "white")
    left = 0
    for image in images:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    sheet.save(IMAGES / f"{name}.jpg", quality=_QUALITY)


if __name__ == "__main__":
    main()
