"""Times in options: local times, dates with a zone, seconds; and their text."""

from datetime import datetime, timedelta, timezone

import pytest

from delayed_vlm_ros.cli.stamps import parse_stamp, stamp_text
from delayed_vlm_ros.errors import BadRequestError

NOW = datetime(2026, 11, 30, 12, 0, 0).astimezone()


def local_ns(*fields):
    return round(datetime(*fields).astimezone().timestamp()) * 10**9


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("", 0),
        ("  ", 0),
        ("10:30", local_ns(2026, 11, 30, 10, 30)),
        ("9:05", local_ns(2026, 11, 30, 9, 5)),
        ("9:05:07", local_ns(2026, 11, 30, 9, 5, 7)),
        ("23:59:58", local_ns(2026, 11, 29, 23, 59, 58)),  # not yet today
        ("12:00", local_ns(2026, 11, 30, 12, 0)),
        ("2026-11-29 10:30", local_ns(2026, 11, 29, 10, 30)),
        ("2026-11-29T10:30:00Z", 1_795_948_200 * 10**9),
        ("2026-11-29T10:30:00+02:00", 1_795_941_000 * 10**9),
        ("1795948200", 1_795_948_200 * 10**9),
        ("12.25", 12_250_000_000),  # of a simulation
        ("1795948200.123456789", 1_795_948_200_123_456_789),
    ],
)
def test_time_is_read(text, nanoseconds):
    assert parse_stamp("--since", text, NOW) == nanoseconds


@pytest.mark.parametrize(
    "text", ["soon", "25:00", "10:61", "2026-13-01 10:00", "1795948200000", "-5", "1e9", "nan", "0", "٣:٠٠"]
)
def test_other_text_is_refused_with_the_name_of_the_option(text):
    with pytest.raises(BadRequestError, match="--since must be a time"):
        parse_stamp("--since", text, NOW)


def test_text_of_a_time_can_be_read_again():
    for moment in (NOW, NOW - timedelta(days=3)):
        nanoseconds = round(moment.timestamp()) * 10**9
        assert parse_stamp("--since", stamp_text(nanoseconds, NOW), NOW) == nanoseconds
    assert stamp_text(round(NOW.timestamp()) * 10**9, NOW) == "12:00:00"
    assert stamp_text(12_250_000_000, NOW) == "12.2 s"
    assert stamp_text(round(datetime(2026, 11, 29, tzinfo=timezone.utc).timestamp()) * 10**9, NOW)[:7] == "2026-11"
