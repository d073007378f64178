import pytest

from delayed_vlm_ros.ingest.rate import RateWindow


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
