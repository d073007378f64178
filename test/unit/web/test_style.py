"""Contrast of the page's colours, as WCAG 2 defines it: 4.5 to 1 for text."""

from __future__ import annotations

import re

import pytest

from delayed_vlm_ros.resources import data_folder

MIN_CONTRAST = 4.5
LEVEL_TINT = 0.07  # of a level's colour behind its name
STYLE = (data_folder("web", "assets") / "page.css").read_text()
COLOURS = {
    name: ((light), (dark)) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
}
LEVELS = ("ok", "warn", "error", "stale")
PAIRS = [
    *((ink, ground) for ink in ("ink", "quiet") for ground in ("ground", "panel", "raised", "accent-soft")),
    *((level, "panel") for level in LEVELS),
    ("accent", "accent-soft"),
    ("on-accent", "accent"),
    ("error", "raised"),
    *((level, "raised") for level in ("ink", "warn", "stale")),  # reasons and levels of watches
]


def channels(colour):
    return [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]


def luminance(rgb):
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_is_readable_on_its_background(theme):
    found = {
        (ink, ground): contrast(channels(COLOURS[ink][theme]), channels(COLOURS[ground][theme]))
        for ink, ground in PAIRS
    }
    assert {pair: round(one, 2) for pair, one in found.items() if one < MIN_CONTRAST} == {}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_level_is_readable_on_its_tint(theme):
    assert f"color-mix(in srgb, var(--level) {100 * LEVEL_TINT:.0f}%, transparent)" in STYLE
    panel = channels(COLOURS["panel"][theme])
    for level in LEVELS:
        colour = channels(COLOURS[level][theme])
        tint = [LEVEL_TINT * one + (1 - LEVEL_TINT) * other for one, other in zip(colour, panel, strict=True)]
        assert contrast(colour, tint) >= MIN_CONTRAST, level
