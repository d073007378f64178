"""The time of a recording that is played: what is due when, and what time it is then."""

import pytest

from delayed_vlm_ros.cameras.playback_clock import PlaybackClock

SECOND = 10**9
START = 1_700_000_000 * SECOND


class Steady:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def steady():
    return Steady()


def started(steady, rate=1.0, latency_ns=0):
    time = PlaybackClock(rate, steady)
    assert time.begins(START, START + latency_ns)
    return time


def see(time, stamp_ns, recorded_ns=None):
    """An image comes when it is due."""
    recorded_ns = stamp_ns if recorded_ns is None else recorded_ns
    time._steady.now += max(0.0, time.seconds_until(recorded_ns))
    begins = time.begins(stamp_ns, recorded_ns)
    if not begins:
        time.reach(stamp_ns, recorded_ns)
    return begins


def test_it_stands_at_the_first_image_until_it_runs(steady):
    time = started(steady, latency_ns=5_000_000)
    steady.now += 100.0
    assert time.now_ns() == START
    time.run()
    assert time.now_ns() == START
    assert time.seconds_until(START + 5_000_000) == 0.0
    steady.now += 0.25
    assert time.now_ns() == START + SECOND // 4


@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
def test_images_are_due_at_the_rate_and_the_time_runs_on_between_them(steady, rate):
    time = started(steady, rate)
    time.run()
    assert time.seconds_until(START + SECOND) == pytest.approx(1 / rate)
    steady.now += 1 / rate
    assert time.now_ns() == pytest.approx(START + SECOND, abs=1000)
    assert time.seconds_until(START + SECOND) == pytest.approx(0.0, abs=1e-6)
    assert time.seconds_until(START) == pytest.approx(-1 / rate)


def test_it_follows_the_stamps_and_not_the_times_of_recording(steady):
    time = started(steady, latency_ns=40_000_000)
    time.run()
    # when the recorder gets an image sooner after it was taken than the one before
    assert not see(time, START + SECOND, START + SECOND + 10_000_000)
    # then it is the time of that image
    assert time.now_ns() == START + SECOND
    # when it gets one later
    assert not see(time, START + 2 * SECOND, START + 2 * SECOND + 60_000_000)
    # then the time does not go back for it
    assert START + 2 * SECOND <= time.now_ns() <= START + 2 * SECOND + 50_000_000


def test_late_and_broken_stamps_move_no_time(steady):
    time = started(steady)
    time.run()
    for recorded, stamp in [(1, START + SECOND), (2, START + SECOND // 2), (3, START + 900 * SECOND), (4, 7)]:
        assert not see(time, stamp, START + recorded * SECOND)
    assert time.now_ns() == START + 4 * SECOND


@pytest.mark.parametrize("apart_ns", [0, 16_000_000])
def test_time_runs_on_where_stamps_stand_still(steady, apart_ns):
    time = started(steady)
    time.run()
    for number in range(1, 101):
        assert not see(time, START + number % 2 * apart_ns, START + number * SECOND // 10)
    assert time.now_ns() == pytest.approx(START + 10 * SECOND, abs=SECOND // 5)


@pytest.mark.parametrize("leap_sec", [-1000, 1000])
def test_stamps_that_jump_for_good_begin_a_new_time(steady, leap_sec):
    # given
    time = started(steady)
    time.run()
    assert not see(time, START + SECOND)
    # when
    leap = leap_sec * SECOND
    begins = [see(time, START + leap + n * SECOND, START + n * SECOND) for n in (2, 3, 4)]
    # then, with the third image as in the memory, it stands at that one's stamp
    assert begins == [False, False, True]
    steady.now += 3.0
    assert time.now_ns() == START + leap + 4 * SECOND
    time.run()
    assert time.seconds_until(START + 5 * SECOND) == pytest.approx(1.0)
    assert not see(time, START + leap + 5 * SECOND, START + 5 * SECOND)
    assert time.now_ns() == START + leap + 5 * SECOND


def test_playing_too_slowly_delays_all_that_comes_and_takes_no_time_back(steady):
    time = started(steady)
    time.run()
    steady.now += 3.0
    assert time.seconds_until(START + SECOND) == pytest.approx(-2.0)
    assert time.now_ns() == START + 3 * SECOND
    time.delay(2.0)
    assert time.seconds_until(START + SECOND) == pytest.approx(0.0)
    assert time.now_ns() == START + 3 * SECOND


def test_at_the_end_it_stands(steady):
    time = started(steady)
    time.run()
    steady.now += 1.0
    time.stand()
    steady.now += 9.0
    assert time.now_ns() == START + SECOND
