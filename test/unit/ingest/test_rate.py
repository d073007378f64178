import pytest

from delayed_vlm_ros.ingest.rate import RateWindow


def test_nothing_yet():
    assert RateWindow().rate(10.0) == 0.0


@pytest.mark.parametrize("rate", [0.5, 2.0, 30.0, 100.0])
def test_regular_events_give_their_rate(rate):
    window = RateWindow(window_sec=5.0)
    times = [100.0 + count / rate for count in range(int(8 * rate))]
    for now in times:
        window.tick(now)
    assert window.rate(times[-1]) == pytest.approx(rate, rel=0.01)


def test_the_rate_falls_as_soon_as_events_stay_away_and_ends_with_the_window():
    window = RateWindow(window_sec=5.0)
    for count in range(60):
        window.tick(count / 30.0)
    rates = [window.rate(2.0 + silence) for silence in (0.0, 1.0, 2.0, 4.0, 6.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.0


def test_its_size_is_bounded_and_the_rate_still_right():
    window = RateWindow(window_sec=5.0, max_events=100)
    for count in range(5000):
        window.tick(count / 1000.0)
    assert window.rate(4.999) == pytest.approx(1000.0, rel=0.01)


def test_events_of_one_instant_give_a_finite_rate():
    window = RateWindow(window_sec=5.0)
    for _ in range(10):
        window.tick(1.0)
    assert window.rate(1.0) == pytest.approx(2.0)
