"""Record of the times in which a camera sent images, from counts that a backend observes."""

from __future__ import annotations

import threading
from collections import deque

from delayed_vlm_ros.ingest.rate import SilenceWatch
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of
from delayed_vlm_ros.web.backend import CameraSpan

MIN_GAP_SEC = 5.0
"""Shortest time without an image that is a gap, in seconds; for slow cameras 2.5 of their periods."""

_MAX_SPANS = 500
_SAME_TIME_NS = NANOSECONDS_PER_SECOND  # two threads may observe in another order than they read the clock


class CameraRecord:
    """Times with images and gaps of one camera, as far as they were observed. Thread-safe.

    Args:
        max_unobserved_sec: Longest time between two observations about which they say something, in seconds; None if
            no image can arrive unobserved.
    """

    def __init__(self, max_unobserved_sec: float | None) -> None:
        self._max_unobserved_sec = max_unobserved_sec
        self._lock = threading.Lock()
        self._spans: deque[CameraSpan] = deque(maxlen=_MAX_SPANS)
        self._observed: tuple[int, int] | None = None  # time in nanoseconds, and images until then
        self._last_image_ns = 0
        self._silence = SilenceWatch(0.0, MIN_GAP_SEC)

    @property
    def spans(self) -> tuple[CameraSpan, ...]:
        """All spans, oldest first."""
        with self._lock:
            return tuple(span for span in self._spans if span.since_ns < span.until_ns)

    def observe(self, now_ns: int, images: int) -> None:
        """Record an observation.

        Args:
            now_ns: Time of the observation on the camera's clock, in nanoseconds. If it is before the last one, the
                record begins again.
            images: Number of images that have arrived; a smaller one than before means that the count was restarted.
        """
        with self._lock:
            self._observe(now_ns, images)

    def _observe(self, now_ns: int, images: int) -> None:
        before = self._observed
        if before is not None and 0 <= before[0] - now_ns <= _SAME_TIME_NS:
            now_ns = before[0]
        self._observed = now_ns, images
        if before is None or self._is_unobserved(before, now_ns, images):
            if before is not None and now_ns < before[0]:
                self._spans.clear()
            self._begin(now_ns)
        elif images > before[1]:
            self._add_image(now_ns)
        elif self._silence.silent_sec(seconds_of(now_ns)):
            self._extend(self._last_image_ns, now_ns, has_images=False)

    def _is_unobserved(self, before: tuple[int, int], now_ns: int, images: int) -> bool:
        since_sec = seconds_of(now_ns - before[0])
        is_too_long = self._max_unobserved_sec is not None and since_sec > self._max_unobserved_sec
        return since_sec < 0 or images < before[1] or is_too_long

    def _begin(self, now_ns: int) -> None:
        self._last_image_ns = now_ns
        self._silence = SilenceWatch(seconds_of(now_ns), MIN_GAP_SEC)
        if self._spans and self._spans[-1].since_ns == self._spans[-1].until_ns:
            self._spans.pop()
        self._spans.append(CameraSpan(now_ns, now_ns, has_images=False))  # the next observation decides

    def _add_image(self, now_ns: int) -> None:
        is_gap = bool(self._silence.silent_sec(seconds_of(now_ns)))
        self._extend(self._last_image_ns, now_ns, has_images=not is_gap)
        self._last_image_ns = now_ns
        self._silence.tick(seconds_of(now_ns))

    def _extend(self, since_ns: int, until_ns: int, *, has_images: bool) -> None:
        newest = self._spans[-1]
        if newest.has_images == has_images or newest.since_ns == newest.until_ns:
            self._spans[-1] = CameraSpan(newest.since_ns, until_ns, has_images)
        else:
            self._spans.append(CameraSpan(since_ns, until_ns, has_images))
