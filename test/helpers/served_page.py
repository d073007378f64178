"""The page of ``page_server.py``, served by a process of its own and opened in a browser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE_SEC

SERVER = Path(__file__).with_name("page_server.py")
WIDE, PHONE = (1440, 1100), (390, 844)
_NARROW = 800  # [px] a narrower page has tabs


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """Yield the URL of a page with the arguments of ``page_server.py`` after the port."""
    process = subprocess.Popen([sys.executable, str(SERVER), "0", *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def open_memory(browser: Any, url: str, size: tuple[int, int], **options: Any) -> Any:
    """Return a page that shows the memory. Its attribute ``faults`` lists the browser's errors and warnings.

    Args:
        browser: Browser of playwright.
        url: Address of the page.
        size: Width and height of the window, in pixels.
        **options: Further options of the browser's context.
    """
    width, height = size
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE_SEC * 1000)
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on(
        "console", lambda message: page.faults.append(message.text) if message.type in ("error", "warning") else None
    )
    page.goto(url, wait_until="commit")
    page.locator(".status.level-ok", has_text="Live").wait_for()
    if width < _NARROW:
        page.locator(".tabs .tab", has_text="Memory").click()
    return page
