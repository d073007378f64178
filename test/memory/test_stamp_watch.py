"""Late pictures, and clocks that were set back."""

from hypothesis import given
from hypothesis import strategies as st

from delayed_vlm_ros.memory.stamp_watch import StampWatch


def seen(stamps):
    watch = StampWatch()
    return [watch.went_back(stamp) for stamp in stamps]


def test_time_that_goes_on_has_not_gone_back():
    assert seen([0.0, 0.1, 0.2, 0.2, 500.0, 499.5, 500.1]) == [None] * 7


def test_a_recording_that_begins_again_is_noticed_at_its_third_picture_and_once():
    assert seen([10.0, 20.0, 30.0, 1.0, 1.5, 2.0, 2.5, 3.0, 30.0]) == [None] * 5 + [28.0] + [None] * 3


def test_late_pictures_have_not_set_back_the_clock():
    assert seen([10.0, 20.0, 5.0, 20.5, 6.0, 21.0, 7.0]) == [None] * 7


def test_two_cameras_on_one_topic_with_clocks_of_their_own_have_not_either():
    stamps = [stamp for number in range(20) for stamp in (1000.0 + number, 10.0 + number)]
    assert set(seen(stamps)) == {None}


def test_pictures_that_come_in_the_wrong_order_have_not_either():
    assert seen([10.0, 5.0, 4.0, 3.0, 2.0]) == [None] * 5


def test_the_same_old_picture_again_and_again_is_no_time():
    assert seen([10.0, *[5.0] * 10]) == [None] * 11


def test_it_can_go_back_twice():
    assert [back for back in seen([*range(10), *range(5), *range(5)]) if back is not None] == [7, 2]


@given(st.lists(st.floats(0, 1e9), max_size=30))
def test_after_it_is_noticed_what_follows_counts_from_there(stamps):
    watch = StampWatch()
    for stamp in stamps:
        watch.went_back(stamp)
    start = (max(stamps) if stamps else 0.0) - 1e6
    assert [watch.went_back(start + number) for number in range(10)].count(None) >= 9
