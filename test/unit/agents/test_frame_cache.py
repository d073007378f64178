"""Cached images of the frames of answers."""

from types import SimpleNamespace

from delayed_vlm_ros.agents.frame_cache import CachedFrame, FrameCache


def frame(number, size=10):
    image = SimpleNamespace(format="jpeg", data=b"x" * size)
    return CachedFrame(SimpleNamespace(id=number), image, SimpleNamespace(format="", data=b""))


def test_oldest_frames_leave_beyond_the_bound():
    cache = FrameCache(max_bytes=25)
    for number in (1, 2, 3):
        cache.add(frame(number))
    assert [cache.get(number) is not None for number in (1, 2, 3)] == [False, True, True]


def test_replaced_frame_counts_once_and_is_the_newest():
    cache = FrameCache(max_bytes=25)
    replaced = frame(1, 12)
    for one in (frame(1), frame(2), replaced, frame(3)):
        cache.add(one)
    assert (cache.get(1), cache.get(2)) == (replaced, None)


def test_frame_larger_than_the_bound_is_not_kept():
    cache = FrameCache(max_bytes=5)
    cache.add(frame(1))
    assert cache.get(1) is None


def test_cleared_cache_has_room_again():
    cache = FrameCache(max_bytes=25)
    for number in (1, 2):
        cache.add(frame(number))
    cache.clear()
    for number in (3, 4):
        cache.add(frame(number))
    assert [cache.get(number) is not None for number in (1, 2, 3, 4)] == [False, False, True, True]
