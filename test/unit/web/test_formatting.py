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


@pytest.mark.parametrize(
    ("span_sec", "labels"),
    [
        (60, ["17:44:15", "17:44:30", "17:44:45", "17:45:00"]),
        (600, ["17:36", "17:38", "17:40", "17:42", "17:44"]),
        (3600, ["17:00", "17:15", "17:30", "17:45"]),
        (6 * 3600, ["12:00", "14:00", "16:00"]),
        (24 * 3600, ["18:00", "29 Nov", "06:00", "12:00"]),
        (5 * 24 * 3600, ["25 Nov", "26 Nov", "27 Nov", "28 Nov", "29 Nov"]),
    ],
)
def test_time_marks_are_at_round_local_times(in_kathmandu, span_sec, labels):
    marks = formatting.time_marks(NOON_NS - span_sec * SECOND_NS + 1, NOON_NS)
    assert [label for _, label in marks] == labels


@pytest.mark.parametrize("span_sec", [0, 1, 10, 47, 86399, 90_000, 30 * 86400, 56 * 365 * 86400])
def test_time_marks_are_few_increasing_and_within_the_axis(span_sec):
    for until_ns in (NOON_NS, (span_sec + 5) * SECOND_NS):
        marks = [stamp for stamp, _ in formatting.time_marks(until_ns - span_sec * SECOND_NS, until_ns)]
        assert len(marks) <= 6
        assert marks == sorted(set(marks))
        assert all(until_ns - span_sec * SECOND_NS <= mark <= until_ns for mark in marks)


def test_time_marks_of_a_recording_count_from_its_start():
    labels = [label for _, label in formatting.time_marks(5 * SECOND_NS, 305 * SECOND_NS)]
    assert labels == ["1 min", "2 min", "3 min", "4 min", "5 min"]
    assert formatting.time_marks(0, 40 * SECOND_NS)[1] == (10 * SECOND_NS, "10 s")


def test_latency_chart_has_two_bars_an_answer():
    chart = latency_chart([Latency(0.5, 1.0), Latency(0.1, 2.0)])
    assert chart.count("<rect") == 4
    assert "2.00 s" in chart
    assert latency_chart([]).count("<rect") == 0
