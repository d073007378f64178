"""Bounded cache of kept images, filled in batches."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from delayed_vlm_ros.web.backend import Backend, KeptFrameImages

_BATCH_DELAY_SEC = 0.02  # a browser requests all thumbnails of a page together: one backend call serves them


class ThumbnailCache:
    """Least-recently-used cache of the images of kept pairs, for one event loop.

    The images of an answer stay available for a while after their pairs leave the memory.

    Args:
        backend: Scene memory that provides the images.
        max_bytes: Upper bound of the cached JPEG data, in bytes.
    """

    def __init__(self, backend: Backend, max_bytes: int = 64_000_000) -> None:
        self._backend = backend
        self._max_bytes = max_bytes
        self._bytes = 0
        self._images: OrderedDict[str, KeptFrameImages] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[KeptFrameImages | None]] = {}
        self._loading: asyncio.Task[None] | None = None

    async def get(self, key: str, *, second: bool = False) -> KeptFrameImages | None:
        """Return the images of a kept pair; None if neither the cache nor the memory has them.

        Args:
            key: ``KeptFrame.key`` of the pair.
            second: Whether the second image is needed, which may have arrived after the pair was cached.
        """
        images = self._images.get(key)
        if images is not None and (images.second or not second):
            self._images.move_to_end(key)
            return images
        waiting = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(waiting)

    async def _load(self) -> None:
        while self._waiting:
            await asyncio.sleep(_BATCH_DELAY_SEC)
            keys = list(self._waiting)
            ids = [int(key.partition("-")[0]) for key in keys]
            try:
                found = await asyncio.to_thread(self._backend.images, ids)
            except Exception:  # noqa: BLE001  the waiting requests must end in any case
                found = {}
            for key in keys:
                images = found.get(key)
                if images is not None:
                    self._add(key, images)
                self._waiting.pop(key).set_result(self._images.get(key))

    def _add(self, key: str, images: KeptFrameImages) -> None:
        self._remove(key)
        self._images[key] = images
        self._bytes += _size(images)
        while self._bytes > self._max_bytes and len(self._images) > 1:
            self._remove(next(iter(self._images)))

    def _remove(self, key: str) -> None:
        images = self._images.pop(key, None)
        if images is not None:
            self._bytes -= _size(images)


def _size(images: KeptFrameImages) -> int:
    return len(images.first) + len(images.second)
