"""Scores of a watch's alerts against expected times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.replay.watch_scores import FALSE, REPEATED, RIGHT, score_alerts, total, verdicts

EXPECT = [(10.0, 20.0), (30.0, 40.0)]


@pytest.mark.parametrize(
    ("at", "verdict"),
    [
        (8.9, FALSE),
        (9.0, RIGHT),  # a second early: people note times to about a second
        (20.0, RIGHT),
        (23.0, RIGHT),  # 2 s of grace and a second
        (23.1, FALSE),
        (28.9, FALSE),
        (40.0, RIGHT),
    ],
)
def test_alert_is_right_within_an_expected_time(at, verdict):
    assert verdicts([at], EXPECT, grace_sec=2.0) == [verdict]


def test_second_alert_of_an_expected_time_is_repeated():
    assert verdicts([11.0, 15.0, 31.0, 50.0], EXPECT, 0.0) == [RIGHT, REPEATED, RIGHT, FALSE]


def test_alert_within_a_time_belongs_to_it_and_not_to_the_grace_of_another():
    assert verdicts([11.0, 20.5], [(10.0, 20.0), (20.4, 30.0)], grace_sec=5.0) == [RIGHT, RIGHT]
    assert verdicts([11.0, 19.5], [(10.0, 20.0), (20.4, 30.0)], grace_sec=5.0) == [RIGHT, REPEATED]


def test_scores_of_a_watch():
    scores = score_alerts([5.0, 12.0, 13.0, 50.0], EXPECT, grace_sec=1.0, duration_sec=1800.0)
    assert (scores.expected, scores.found, scores.alerts, scores.false_alarms) == (2, 1, 4, 2)
    assert (scores.precision, scores.recall, scores.delay_sec) == (0.5, 0.5, 2.0)
    assert scores.false_alarms_per_hour == 4.0


def test_scores_without_alerts_or_expected_times_have_no_value():
    silent = score_alerts([], EXPECT, 0.0, 100.0)
    assert (silent.precision, silent.recall, silent.delay_sec) == (None, 0.0, None)
    never = score_alerts([], [], 0.0, 100.0)
    assert (never.precision, never.recall, never.false_alarms_per_hour) == (None, None, 0.0)
    assert score_alerts([], [], 0.0, 0.0).false_alarms_per_hour is None


def test_early_alert_has_no_negative_delay():
    assert score_alerts([9.5], EXPECT, 0.0, 100.0).delays == (0.0,)


def test_total_adds_counts_and_takes_the_median_of_all_delays():
    one = score_alerts([12.0, 33.0], EXPECT, 0.0, 3600.0)
    other = score_alerts([1.0, 19.0], [(10.0, 20.0)], 0.0, 3600.0)
    both = total([one, other])
    assert (both.expected, both.found, both.alerts, both.false_alarms) == (3, 3, 4, 1)
    assert (both.precision, both.recall, both.delay_sec, both.false_alarms_per_hour) == (0.75, 1.0, 3.0, 0.5)


@given(st.lists(st.floats(0.0, 60.0), max_size=12).map(sorted), st.floats(0.0, 5.0))
def test_counts_are_consistent(rising, grace_sec):
    scores = score_alerts(rising, EXPECT, grace_sec, 60.0)
    given_verdicts = verdicts(rising, EXPECT, grace_sec)
    assert len(given_verdicts) == scores.alerts == len(rising)
    assert scores.found == given_verdicts.count(RIGHT) <= len(EXPECT)
    assert all(delay >= 0 for delay in scores.delays)
    assert len(scores.delays) == scores.found
