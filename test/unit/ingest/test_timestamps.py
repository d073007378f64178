"""Late images, outliers and time jumps."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.ingest.timestamps import FrozenStampDetector, TimestampMonitor


def jumps_of(stamps, interval=0.1):
    """Feed stamps to a monitor, one image every `interval` seconds; return its result for each."""
    monitor = TimestampMonitor()
    return [monitor.update(stamp, number * interval) for number, stamp in enumerate(stamps)]


def test_advancing_stamps_make_no_jump():
    assert jumps_of([0.0, 0.1, 0.2, 0.2, 5.0, 4.5, 5.1]) == [0.0] * 7


def test_slow_or_pausing_camera_makes_no_jump():
    assert jumps_of([0.0, 100.0, 200.0, 260.0], interval=100.0) == [0.0] * 4


def test_slow_camera_in_a_fast_played_recording_makes_no_jump():
    assert jumps_of([0.0, 10.0, 20.0, 30.0], interval=0.2) == [0.0] * 4


def test_restarted_recording_is_one_jump_at_its_third_image():
    assert jumps_of([28.0, 29.0, 30.0, 1.0, 1.5, 2.0, 2.5, 3.0]) == [0.0] * 3 + [None, None, -28.0, 0.0, 0.0]


def test_forward_leap_is_one_jump_at_its_third_image():
    assert jumps_of([1.0, 2.0, 500.0, 500.5, 501.0, 501.5]) == [0.0, 0.0, None, None, 499.0, 0.0]


def test_late_images_are_outliers():
    assert jumps_of([19.0, 20.0, 5.0, 20.5, 6.0, 21.0, 7.0]) == [0.0, 0.0, None, 0.0, None, 0.0, None]


def test_single_future_stamp_does_not_move_the_baseline():
    assert jumps_of([10.0, 10.5, 3610.5, 11.0, 11.5, 12.0, 12.5]) == [0.0, 0.0, None, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("images", [1, 2, 4, 9])
def test_second_publisher_with_another_clock_is_rejected(images):
    stamps = [stamp for n in range(40) for stamp in [*(1000.0 + n + k / 10 for k in range(images)), 10.0 + n]]
    found = jumps_of(stamps)
    assert set(found) == {0.0, None}
    assert found.count(None) == 40


def test_old_images_in_reverse_order_are_outliers():
    assert jumps_of([10.0, 5.0, 4.0, 3.0, 2.0]) == [0.0] + [None] * 4


def test_repeated_old_stamp_is_an_outlier_each_time():
    assert jumps_of([10.0, *[5.0] * 10]) == [0.0] + [None] * 10


def test_two_restarts_are_two_jumps():
    stamps = [*range(10), *range(5), *range(5)]
    assert [jump for jump in jumps_of(stamps) if jump] == [-7, -2]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_jump_moves_the_baseline_after_any_history(stamps):
    monitor = TimestampMonitor()
    for stamp in stamps:
        monitor.update(stamp, 0.0)
    start = -1e6
    found = [monitor.update(start + number, 0.0) for number in range(10)]
    assert found[:2] == [None, None]
    assert found[2] < -9e5
    assert found[3:] == [0.0] * 7


@given(st.lists(st.tuples(st.floats(0.01, 100.0), st.floats(0.0, 1000.0)), min_size=1, max_size=40))
def test_no_history_of_delays_makes_a_jump(images):
    # given a camera with a right clock, whose images arrive in order and with any delays
    monitor = TimestampMonitor()
    stamp = arrival = 100.0
    found = [monitor.update(stamp, arrival)]
    for period, delay in images:
        stamp += period
        arrival = max(arrival, stamp + delay)
        found.append(monitor.update(stamp, arrival))
    assert set(found) == {0.0}


def test_jittering_delays_do_not_hide_a_jump():
    # given an hour of images of 10 Hz with delays of up to half a second
    monitor = TimestampMonitor()
    jitter = random.Random(1)
    arrival = 0.0
    for number in range(36000):
        arrival = max(arrival, number / 10 + jitter.uniform(0.0, 0.5))
        assert monitor.update(number / 10, arrival) == 0.0
    # then
    found = [monitor.update(3610.0 + number / 10, 3600.5 + number / 10) for number in range(3)]
    assert found == [None, None, pytest.approx(10.0, abs=0.7)]


SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
GOOD_STAMPS = {
    "advancing": lambda number: START + number * SECOND // 10,
    "one in ten far ahead": lambda number: START * 2 if number % 10 == 9 else START + number * SECOND // 10,
    "one in ten long ago": lambda number: SECOND if number % 10 == 9 else START + number * SECOND // 10,
    "a loop of two seconds": lambda number: START + number % 20 * SECOND // 10,
    "a loop of three and a half seconds": lambda number: START + number % 35 * SECOND // 10,
}
FROZEN_STAMPS = {
    "constant": lambda number: START,
    "alternating": lambda number: START + number % 2 * 3600 * SECOND,
    "five in turn": lambda number: START + number % 5 * SECOND,
    "a counter of nanoseconds": lambda number: START + number,
}


@pytest.mark.parametrize("kind", GOOD_STAMPS)
def test_single_far_off_stamps_and_short_loops_are_not_frozen(kind):
    detector = FrozenStampDetector()
    found = [detector.update(GOOD_STAMPS[kind](number), START + number * SECOND // 10) for number in range(600)]
    assert not any(found)


@pytest.mark.parametrize("kind", FROZEN_STAMPS)
def test_constant_repeated_and_counted_stamps_are_frozen_after_two_windows(kind):
    detector = FrozenStampDetector()
    found = [detector.update(FROZEN_STAMPS[kind](number), START + number * SECOND // 10) for number in range(600)]
    assert all(found[45:])
