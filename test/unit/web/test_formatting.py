"""Text for times, sizes and errors."""

from __future__ import annotations

import time

import pytest

from delayed_vlm_ros.errors import BadRequestError
from delayed_vlm_ros.web import formatting
from delayed_vlm_ros.web.backend import Latency
from delayed_vlm_ros.web.health_panel import latency_chart


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_duration_has_one_or_two_units(seconds, expected):
    assert formatting.duration(seconds) == expected


def test_age_of_a_recent_or_future_stamp_is_now():
    assert formatting.age(5_000_000_000, 4_200_000_000) == "now"
    assert formatting.age(5_000_000_000, 9_000_000_000) == "now"
    assert formatting.age(65_000_000_000, 5_000_000_000) == "60 s"


@pytest.mark.parametrize(("seconds", "expected"), [(0.0841, "84 ms"), (1.238, "1.24 s"), (12.44, "12.4 s")])
def test_latency_has_significant_digits(seconds, expected):
    assert formatting.latency(seconds) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (812_400, "812 kB"), (14_230_000, "14.2 MB"), (1.31e9, "1.3 GB")]
)
def test_size_has_a_suitable_unit(count, expected):
    assert formatting.size(count) == expected


def test_small_stamps_are_seconds():
    assert formatting.clock(12_340_000_000) == "12.3 s"
    assert ":" in formatting.clock(1_795_714_234_195_195_568)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (BadRequestError("the question is empty: type one"), "The question is empty: type one."),
        ("Already a sentence.", "Already a sentence."),
        ("memory.star.size must be even", "memory.star.size must be even."),
        ("", ""),
    ],
)
def test_message_becomes_a_sentence_and_names_keep_their_case(message, expected):
    assert formatting.sentence(message) == expected


SECOND_NS = 10**9
NOON_NS = 1_795_953_600 * SECOND_NS  # 29 November 2026, 12:00:00 UTC


@pytest.fixture
def in_kathmandu(monkeypatch):
    """Local time with a quarter of an hour."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def in_berlin(monkeypatch):
    """Local time that ends summer time at 25 October 2026, 01:00:00 UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


END_OF_SUMMER = 1_792_890_000


def test_offset_of_local_time_is_constant_without_summer_time(in_kathmandu):
    assert formatting.utc_offsets(NOON_NS - 90 * 86400 * SECOND_NS, NOON_NS) == [
        (NOON_NS // SECOND_NS - 90 * 86400, 20_700)
    ]


@pytest.mark.parametrize("days", [1, 3, 3000])
def test_offset_changes_in_the_second_in_which_summer_time_ends(in_berlin, days):
    since = END_OF_SUMMER - days * 43_200
    offsets = formatting.utc_offsets(since * SECOND_NS, (END_OF_SUMMER + 43_200) * SECOND_NS)
    assert offsets[-2:] == [(offsets[-2][0], 7200), (END_OF_SUMMER, 3600)]
    assert offsets[0][0] == since


def test_recording_without_calendar_has_no_offsets():
    assert formatting.utc_offsets(5 * SECOND_NS, 305 * SECOND_NS) == []


def test_latency_chart_has_two_bars_an_answer():
    chart = latency_chart([Latency(0.5, 1.0), Latency(0.1, 2.0)])
    assert chart.count("<rect") == 4
    assert "2.00 s" in chart
    assert latency_chart([]).count("<rect") == 0
