import pytest

from delayed_vlm_ros.ingest.rate import RateWindow, SilenceWatch


def test_rate_without_events_is_zero():
    assert RateWindow().rate(10.0) == 0.0


@pytest.mark.parametrize("rate", [0.5, 2.0, 30.0, 100.0])
def test_rate_of_regular_events_is_exact(rate):
    window = RateWindow(window_sec=5.0)
    times = [100.0 + count / rate for count in range(int(8 * rate))]
    for now in times:
        window.tick(now)
    assert window.rate(times[-1]) == pytest.approx(rate, rel=0.01)


def test_rate_falls_when_events_stop_and_is_zero_after_the_window():
    window = RateWindow(window_sec=5.0)
    for count in range(60):
        window.tick(count / 30.0)
    rates = [window.rate(2.0 + silence) for silence in (0.0, 1.0, 2.0, 4.0, 6.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.0


@pytest.mark.parametrize("period", [5.0, 10.0, 60.0])
def test_rate_of_slow_regular_events_is_exact_until_they_stop(period):
    window = RateWindow(window_sec=5.0)
    for count in range(5):
        window.tick(count * period)
    for silence in (0.0, 0.5, 1.0, 2.0):
        assert window.rate((4 + silence) * period) == pytest.approx(1.0 / period)
    assert window.rate(7 * period) == 0.0


def test_rate_after_an_outage_is_that_of_the_window():
    window = RateWindow(window_sec=5.0)
    for now in (1.0, 1.1, 500.0):
        window.tick(now)
    assert window.rate(500.1) == pytest.approx(0.2)
    assert window.rate(506.0) == 0.0


def test_rate_above_the_event_limit_is_exact():
    window = RateWindow(window_sec=5.0, max_events=100)
    for count in range(5000):
        window.tick(count / 1000.0)
    assert window.rate(4.999) == pytest.approx(1000.0, rel=0.01)


def test_rate_of_simultaneous_events_is_finite():
    window = RateWindow(window_sec=5.0)
    for _ in range(10):
        window.tick(1.0)
    assert window.rate(1.0) == pytest.approx(2.0)


def watch_of(*times, started_at=0.0):
    watch = SilenceWatch(started_at)
    for now in times:
        watch.tick(now)
    return watch


def test_silence_counts_from_the_last_event_or_from_the_start():
    watch = watch_of(1.0, 1.1, 1.2)
    assert watch.silent_sec(4.1) == 0.0
    assert watch.silent_sec(5.2) == pytest.approx(4.0)
    assert watch_of().silent_sec(3.5) == pytest.approx(3.5)


def test_slow_regular_events_are_no_silence():
    watch = watch_of(5.0, 10.0)
    assert watch.silent_sec(19.0) == 0.0
    assert watch.silent_sec(23.0) == pytest.approx(13.0)


@pytest.mark.parametrize("period", [15.0, 60.0, 600.0])
@pytest.mark.parametrize("group", [1, 2, 3])
def test_one_image_or_a_small_group_a_minute_is_no_silence_after_two_periods(period, group):
    # given
    watch = watch_of(*(cycle * period + number / 10 for cycle in range(1, 3) for number in range(group)))
    for cycle in range(3, 8):
        # then
        for number in range(group):
            now = cycle * period + number / 10
            assert watch.silent_sec(now) == 0.0
            watch.tick(now)
    assert watch.silent_sec(now + 2.0 * period) == 0.0
    assert watch.silent_sec(now + 3.0 * period) == pytest.approx(3.0 * period)


def test_silence_after_a_short_group_of_slow_images_is_noticed_soon_once_they_are_fast():
    watch = watch_of(60.0, 120.0, 180.0, *(180.0 + number / 10 for number in range(1, 20)))
    assert watch.silent_sec(186.0) > 4.0


def test_silence_after_an_outage_is_noticed():
    assert watch_of(1.0, 500.0).silent_sec(530.0) == pytest.approx(30.0)
