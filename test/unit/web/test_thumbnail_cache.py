"""Images of moments for browsers: fetched together, remembered, bounded."""

from __future__ import annotations

import asyncio

from delayed_vlm_ros.web.backend import KeptFrameImages
from delayed_vlm_ros.web.thumbnail_cache import ThumbnailCache


class Source:
    def __init__(self, **images):
        self.kept = {key.replace("_", "-"): KeptFrameImages(*two) for key, two in images.items()}
        self.calls = []

    def images(self, ids):
        self.calls.append(sorted(ids))
        return {key: two for key, two in self.kept.items() if int(key.partition("-")[0]) in ids}


def run(work):
    return asyncio.run(work())


def test_those_asked_for_at_once_are_fetched_together():
    source = Source(**{"1_10": (b"a", b"b"), "2_20": (b"c", b"")})

    async def work():
        thumbnails = ThumbnailCache(source)
        found = await asyncio.gather(thumbnails.get("1-10"), thumbnails.get("2-20"), thumbnails.get("3-30"))
        await thumbnails.get("1-10")
        return found

    first, second, gone = run(work)
    assert (first.first, second.first, gone) == (b"a", b"c", None)
    assert source.calls == [[1, 2, 3]]


def test_an_id_of_a_node_started_again_is_another_moment():
    source = Source(**{"1_99": (b"new", b"")})
    assert run(lambda: ThumbnailCache(source).get("1-10")) is None


def test_a_second_image_that_came_later_is_fetched():
    source = Source(**{"1_10": (b"a", b"")})

    async def work():
        thumbnails = ThumbnailCache(source)
        await thumbnails.get("1-10")
        source.kept["1-10"] = KeptFrameImages(b"a", b"b")
        return await thumbnails.get("1-10", second=True)

    assert run(work).second == b"b"


def test_what_the_memory_has_let_go_stays_within_bounds():
    source = Source(**{f"{number}_1": (bytes(100), b"") for number in range(1, 6)})

    async def work():
        thumbnails = ThumbnailCache(source, max_bytes=300)
        for number in range(1, 6):
            await thumbnails.get(f"{number}-1")
        source.kept.clear()
        return [await thumbnails.get(f"{number}-1") is not None for number in range(1, 6)]

    assert run(work) == [False, False, True, True, True]


def test_an_error_is_no_image():
    class Broken:
        def images(self, ids):
            raise RuntimeError("planted by the test")

    assert run(lambda: ThumbnailCache(Broken()).get("1-10")) is None
