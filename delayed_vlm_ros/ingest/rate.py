"""How often something happens, over the last few seconds."""

from __future__ import annotations

import threading
from collections import deque


class RateWindow:
    """Counts events in a sliding window. Safe to use from several threads; its size is bounded.

    Args:
        window_sec: How far it looks back, in seconds.
        max_events: Most events it remembers; a faster rate is computed over a shorter time.
    """

    def __init__(self, window_sec: float = 5.0, max_events: int = 1000) -> None:
        self._window_sec = window_sec
        self._times: deque[float] = deque(maxlen=max_events)
        self._lock = threading.Lock()

    def tick(self, now: float) -> None:
        """Note one event at ``now``, in seconds on a steady clock."""
        with self._lock:
            self._times.append(now)

    def rate(self, now: float) -> float:
        """Events per second at ``now``; 0.0 when there were none within the window.

        N regular events span N - 1 periods, and the time since the last one counts once it is longer than they are: so
        a rate is right from the second event on, and falls as soon as events stay away.
        """
        with self._lock:
            while self._times and self._times[0] <= now - self._window_sec:
                self._times.popleft()
            times = tuple(self._times)
        if not times:
            return 0.0
        if len(times) == 1:
            return 1.0 / self._window_sec
        period = (times[-1] - times[0]) / (len(times) - 1)
        silence = now - times[-1]
        span = times[-1] - times[0] + max(period, silence)
        return len(times) / span if span > 0 else len(times) / self._window_sec
