"""Thumbnail cache: batched, stored, bounded."""

from __future__ import annotations

import asyncio

from delayed_vlm_ros.web.backend import KeptFrameImages
from delayed_vlm_ros.web.thumbnail_cache import ThumbnailCache


class FakeBackend:
    """Holds images by key, given as ``_<id>_<stamp>=(first, second)``."""

    def __init__(self, **images):
        self.kept = {key.strip("_").replace("_", "-"): KeptFrameImages(*pair) for key, pair in images.items()}
        self.calls = []

    def images(self, ids):
        self.calls.append(sorted(ids))
        return {key: pair for key, pair in self.kept.items() if int(key.partition("-")[0]) in ids}


def run(work):
    return asyncio.run(work())


def test_concurrent_requests_are_fetched_in_one_call():
    backend = FakeBackend(_1_10=(b"a", b"b"), _2_20=(b"c", b""))

    async def work():
        thumbnails = ThumbnailCache(backend)
        found = await asyncio.gather(thumbnails.get("1-10"), thumbnails.get("2-20"), thumbnails.get("3-30"))
        await thumbnails.get("1-10")
        return found

    first, second, missing = run(work)
    assert (first.first, second.first, missing) == (b"a", b"c", None)
    assert backend.calls == [[1, 2, 3]]


def test_reused_id_of_a_restarted_node_is_another_frame():
    backend = FakeBackend(_1_99=(b"new", b""))
    assert run(lambda: ThumbnailCache(backend).get("1-10")) is None


def test_second_image_that_arrived_later_is_fetched():
    backend = FakeBackend(_1_10=(b"a", b""))

    async def work():
        thumbnails = ThumbnailCache(backend)
        await thumbnails.get("1-10")
        backend.kept["1-10"] = KeptFrameImages(b"a", b"b")
        return await thumbnails.get("1-10", second=True)

    assert run(work).second == b"b"


def test_evicted_images_stay_cached_within_the_bound():
    backend = FakeBackend(**{f"_{number}_1": (bytes(100), b"") for number in range(1, 6)})

    async def work():
        thumbnails = ThumbnailCache(backend, max_bytes=300)
        for number in range(1, 6):
            await thumbnails.get(f"{number}-1")
        backend.kept.clear()
        return [await thumbnails.get(f"{number}-1") is not None for number in range(1, 6)]

    assert run(work) == [False, False, True, True, True]


def test_backend_error_returns_no_image():
    class BrokenBackend:
        def images(self, ids):
            raise RuntimeError("raised by the test")

    assert run(lambda: ThumbnailCache(BrokenBackend()).get("1-10")) is None
