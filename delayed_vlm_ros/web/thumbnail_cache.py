"""Images of kept moments, fetched when a browser asks for them and remembered for the next one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from delayed_vlm_ros.web.backend import Backend, KeptFrameImages

_GATHERING_SEC = 0.02
"""A page asks for all of its thumbnails at once: one call of the memory answers them together."""


class ThumbnailCache:
    """For one event loop. The images of an answer stay for a while after the memory has let them go.

    Args:
        backend: Where they come from.
        max_bytes: Most bytes that are remembered; those that nobody has looked at for longest go first.
    """

    def __init__(self, backend: Backend, max_bytes: int = 64_000_000) -> None:
        self._backend = backend
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, KeptFrameImages] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[KeptFrameImages | None]] = {}
        self._loading: asyncio.Task[None] | None = None

    async def get(self, key: str, *, second: bool = False) -> KeptFrameImages | None:
        """The images of a moment; None where nobody has them any more.

        Args:
            key: ``Moment.key``.
            second: Whether the second image is wanted, which may have come since they were fetched.
        """
        kept = self._kept.get(key)
        if kept is not None and (kept.second or not second):
            self._kept.move_to_end(key)
            return kept
        waiting = self._waiting.setdefault(key, asyncio.get_running_loop().create_future())
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(self._load())
        return await asyncio.shield(waiting)

    async def _load(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHERING_SEC)
            keys = list(self._waiting)
            ids = [int(key.partition("-")[0]) for key in keys]
            try:
                found = await asyncio.to_thread(self._backend.images, ids)
            except Exception:  # noqa: BLE001  whoever waits must hear that there is nothing
                found = {}
            for key in keys:
                images = found.get(key)
                if images is not None:
                    self._keep(key, images)
                self._waiting.pop(key).set_result(self._kept.get(key))

    def _keep(self, key: str, images: KeptFrameImages) -> None:
        self._forget(key)
        self._kept[key] = images
        self._bytes += _size(images)
        while self._bytes > self._max_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: str) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)


def _size(images: KeptFrameImages) -> int:
    return len(images.first) + len(images.second)
