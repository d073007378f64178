"""Playback clock: due times of images and the time in between."""

import pytest

from delayed_vlm_ros.cameras.playback_clock import PlaybackClock

SECOND = 10**9
START = 1_700_000_000 * SECOND


class SteadyClock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def steady():
    return SteadyClock()


def paused_clock(steady, rate=1.0, latency_ns=0):
    """Return a clock with a timeline that begins at START."""
    clock = PlaybackClock(rate, steady)
    assert clock.begins_timeline(START, START + latency_ns)
    return clock


def running_clock(steady, **arguments):
    clock = paused_clock(steady, **arguments)
    clock.resume()
    return clock


def play(clock, steady, stamp_ns, recorded_ns=None):
    """Play an image when it is due; return whether it begins a timeline."""
    recorded_ns = stamp_ns if recorded_ns is None else recorded_ns
    steady.now += max(0.0, clock.seconds_until(recorded_ns))
    begins = clock.begins_timeline(stamp_ns, recorded_ns)
    if not begins:
        clock.set_to(stamp_ns, recorded_ns)
    return begins


def test_clock_is_paused_at_the_first_image_until_resumed(steady):
    clock = paused_clock(steady, latency_ns=5_000_000)
    steady.now += 100.0
    assert clock.now_ns() == START
    clock.resume()
    assert clock.now_ns() == START
    assert clock.seconds_until(START + 5_000_000) == 0.0
    steady.now += 0.25
    assert clock.now_ns() == START + SECOND // 4


@pytest.mark.parametrize("rate", [0.5, 1.0, 10.0])
def test_images_are_due_at_the_rate_and_the_clock_runs_between_them(steady, rate):
    clock = running_clock(steady, rate=rate)
    assert clock.seconds_until(START + SECOND) == pytest.approx(1 / rate)
    steady.now += 1 / rate
    assert clock.now_ns() == pytest.approx(START + SECOND, abs=1000)
    assert clock.seconds_until(START + SECOND) == pytest.approx(0.0, abs=1e-6)
    assert clock.seconds_until(START) == pytest.approx(-1 / rate)


def test_clock_follows_stamps_rather_than_recording_times(steady):
    clock = running_clock(steady, latency_ns=40_000_000)
    # when an image was recorded with less latency than the one before
    assert not play(clock, steady, START + SECOND, START + SECOND + 10_000_000)
    # then the clock shows its stamp
    assert clock.now_ns() == START + SECOND
    # when an image was recorded with more latency
    assert not play(clock, steady, START + 2 * SECOND, START + 2 * SECOND + 60_000_000)
    # then the clock does not go back
    assert START + 2 * SECOND <= clock.now_ns() <= START + 2 * SECOND + 50_000_000


def test_late_and_broken_stamps_do_not_set_the_clock(steady):
    clock = running_clock(steady)
    for recorded, stamp in [(1, START + SECOND), (2, START + SECOND // 2), (3, START + 900 * SECOND), (4, 7)]:
        assert not play(clock, steady, stamp, START + recorded * SECOND)
    assert clock.now_ns() == START + 4 * SECOND


@pytest.mark.parametrize("alternation_ns", [0, 16_000_000])
def test_clock_runs_on_while_stamps_are_frozen(steady, alternation_ns):
    clock = running_clock(steady)
    for number in range(1, 101):
        assert not play(clock, steady, START + number % 2 * alternation_ns, START + number * SECOND // 10)
    assert clock.now_ns() == pytest.approx(START + 10 * SECOND, abs=SECOND // 5)


@pytest.mark.parametrize("jump_sec", [-1000, 1000])
def test_lasting_stamp_jump_begins_a_timeline(steady, jump_sec):
    # given
    clock = running_clock(steady)
    assert not play(clock, steady, START + SECOND)
    # when
    jump = jump_sec * SECOND
    begins = [play(clock, steady, START + jump + n * SECOND, START + n * SECOND) for n in (2, 3, 4)]
    # then the clock is paused at the stamp of the third image, as in the memory
    assert begins == [False, False, True]
    steady.now += 3.0
    assert clock.now_ns() == START + jump + 4 * SECOND
    clock.resume()
    assert clock.seconds_until(START + 5 * SECOND) == pytest.approx(1.0)
    assert not play(clock, steady, START + jump + 5 * SECOND, START + 5 * SECOND)
    assert clock.now_ns() == START + jump + 5 * SECOND


def test_delay_postpones_later_images_and_keeps_the_time(steady):
    clock = running_clock(steady)
    steady.now += 3.0
    assert clock.seconds_until(START + SECOND) == pytest.approx(-2.0)
    assert clock.now_ns() == START + 3 * SECOND
    clock.delay(2.0)
    assert clock.seconds_until(START + SECOND) == pytest.approx(0.0)
    assert clock.now_ns() == START + 3 * SECOND


def test_paused_clock_stands_still(steady):
    clock = running_clock(steady)
    steady.now += 1.0
    clock.pause()
    steady.now += 9.0
    assert clock.now_ns() == START + SECOND
