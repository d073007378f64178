"""Times of agents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.agents.times import format_time, parse_time
from delayed_vlm_ros.errors import BadRequestError

HALF_PAST_TEN_NS = 1_796_034_600_000_000_000  # 2026-11-30 10:30 UTC


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (None, 0),
        (12.5, 12_500_000_000),
        ("2026-11-30T10:30:00Z", HALF_PAST_TEN_NS),
        ("2026-11-30t10:30z", None),
        ("2026-11-30 10:30z", HALF_PAST_TEN_NS),
        (" 2026-11-30T12:30:00.000+02:00 ", HALF_PAST_TEN_NS),
        ("2026-11-30T05:00:00-0530", HALF_PAST_TEN_NS),
        ("2026-11-30T10:30:00.000000001Z", HALF_PAST_TEN_NS + 1),
        ("1970-01-01T00:00:12,5Z", 12_500_000_000),
    ],
)
def test_time_is_read(value, nanoseconds):
    if nanoseconds is None:
        with pytest.raises(BadRequestError):
            parse_time("since", value)
    else:
        assert parse_time("since", value) == nanoseconds


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2026-11-30T10:30:00", "no time zone"),
        ("2026-11-30", "date and time such as"),
        ("1796034600", "seconds since 1970 as a number"),
        ("yesterday", "date and time such as"),
        ("2026-02-30T10:30:00Z", "day is out of range"),
        ("2026-11-30T10:30:00+99:00", "no valid time"),
        (1_796_034_600_000, "milliseconds must be divided by 1000"),
        (-60.0, "a time relative to now is 'last_sec'"),
        (0.0, "between 1970 and 2038"),
        ("2038-01-20T00:00:00Z", "between 1970 and 2038"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
    ],
)
def test_wrong_time_is_refused_with_its_remedy(value, reason):
    with pytest.raises(BadRequestError, match="'until'") as caught:
        parse_time("until", value)
    assert reason in str(caught.value)


@given(st.integers(1, 2**31 * 10**9 - 1))
def test_written_time_is_read_as_the_same_nanoseconds(nanoseconds):
    assert parse_time("since", format_time(nanoseconds)) == nanoseconds


def test_unknown_time_is_empty():
    assert format_time(0) == ""
    assert format_time(HALF_PAST_TEN_NS) == "2026-11-30T10:30:00.000Z"
