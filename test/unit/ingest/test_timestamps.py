"""Late images, strays, and clocks that jump."""

from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.ingest.timestamps import TimestampMonitor


def seen(stamps, apart=0.1):
    """What the watch says of stamps that arrive one after the other."""
    watch = TimestampMonitor()
    return [watch.jump(stamp, number * apart) for number, stamp in enumerate(stamps)]


def test_time_that_goes_on_does_not_jump():
    assert seen([0.0, 0.1, 0.2, 0.2, 5.0, 4.5, 5.1]) == [0.0] * 7


def test_a_camera_that_pauses_or_is_slow_does_not_jump():
    assert seen([0.0, 100.0, 200.0, 260.0], apart=100.0) == [0.0] * 4


def test_a_slow_camera_in_a_recording_that_is_played_fast_does_not_jump():
    assert seen([0.0, 10.0, 20.0, 30.0], apart=0.2) == [0.0] * 4


def test_a_recording_that_begins_again_is_noticed_at_its_third_image_and_once():
    assert seen([28.0, 29.0, 30.0, 1.0, 1.5, 2.0, 2.5, 3.0]) == [0.0] * 3 + [None, None, -28.0, 0.0, 0.0]


def test_a_recording_that_leaps_ahead_is_noticed_too():
    assert seen([1.0, 2.0, 500.0, 500.5, 501.0, 501.5]) == [0.0, 0.0, None, None, 499.0, 0.0]


def test_late_images_are_strays():
    assert seen([19.0, 20.0, 5.0, 20.5, 6.0, 21.0, 7.0]) == [0.0, 0.0, None, 0.0, None, 0.0, None]


def test_one_stamp_in_the_future_does_not_move_the_time():
    assert seen([10.0, 10.5, 3610.5, 11.0, 11.5, 12.0, 12.5]) == [0.0, 0.0, None, 0.0, 0.0, 0.0, 0.0]


def test_of_two_cameras_with_clocks_of_their_own_on_one_topic_one_is_followed():
    for often in (1, 2, 4, 9):
        stamps = [stamp for n in range(40) for stamp in [*(1000.0 + n + k / 10 for k in range(often)), 10.0 + n]]
        found = seen(stamps, apart=0.1)
        assert set(found) == {0.0, None}
        assert found.count(None) == 40


def test_images_that_come_in_the_wrong_order_are_strays():
    assert seen([10.0, 5.0, 4.0, 3.0, 2.0]) == [0.0] + [None] * 4


def test_the_same_old_image_again_and_again_is_no_time():
    assert seen([10.0, *[5.0] * 10]) == [0.0] + [None] * 10


def test_it_can_go_back_twice():
    stamps = [*range(10), *range(5), *range(5)]
    assert [jump for jump in seen(stamps) if jump] == [-7, -2]


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_after_a_jump_what_follows_counts_from_there(stamps):
    watch = TimestampMonitor()
    for stamp in stamps:
        watch.jump(stamp, 0.0)
    start = -1e6
    found = [watch.jump(start + number, 0.0) for number in range(10)]
    assert found[:2] == [None, None]
    assert found[2] < -9e5
    assert found[3:] == [0.0] * 7
