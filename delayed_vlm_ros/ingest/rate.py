"""Event rate over the last few seconds, and the silence after the last event."""

from __future__ import annotations

import threading
from collections import deque

_MAX_PERIODS = 2.5
"""Longest silence between regular events, in periods."""

_MAX_PERIOD_SEC = 10.0
"""Longest period that is believed if it occurs once; a longer one may be an outage."""

_RECENT_PERIODS = 8
"""Number of periods that are compared: events may come in small groups."""


_SLOW_EVENTS = 3
"""Number of events that are kept whatever their age, so that two periods can be compared."""

_MAX_PERIOD_RATIO = 2.0
"""Largest ratio of two periods of regular events."""


def _slow_rate(times: tuple[float, ...], now: float) -> float:
    """Return the rate of the last events, per second, if they are regular and have not stopped; 0.0 otherwise."""
    if len(times) < _SLOW_EVENTS:
        return 0.0
    first, second, third = times[-_SLOW_EVENTS:]
    shorter, longer = sorted((second - first, third - second))
    is_regular = longer <= _MAX_PERIOD_RATIO * shorter and now - third <= _MAX_PERIODS * longer
    return 2.0 / (third - first) if is_regular and longer > 0 else 0.0


class RateWindow:
    """Measures an event rate in a sliding window. Thread-safe, with bounded memory.

    Args:
        window_sec: Length of the window, in seconds.
        max_events: Maximum number of stored events; faster rates are computed over a shorter time.
    """

    def __init__(self, window_sec: float = 5.0, max_events: int = 1000) -> None:
        self._window_sec = window_sec
        self._times: deque[float] = deque(maxlen=max_events)
        self._lock = threading.Lock()

    def tick(self, now: float) -> None:
        """Count one event at ``now``, in seconds on a steady clock."""
        with self._lock:
            self._times.append(now)

    def rate(self, now: float) -> float:
        """Return the events per second at ``now``; 0.0 without events in the window.

        N regular events span N - 1 periods. The time since the last event counts once it exceeds a period. The rate is
        therefore correct from the second event on, and falls as soon as events stop. Regular events slower than the
        window count from the third one on.
        """
        with self._lock:
            while len(self._times) > _SLOW_EVENTS and self._times[0] <= now - self._window_sec:
                self._times.popleft()
            stored = tuple(self._times)
        times = [time for time in stored if time > now - self._window_sec]
        if len(times) < _SLOW_EVENTS - 1:
            return _slow_rate(stored, now) or len(times) / self._window_sec
        period = (times[-1] - times[0]) / (len(times) - 1)
        silence = now - times[-1]
        span = times[-1] - times[0] + max(period, silence)
        return len(times) / span if span > 0 else len(times) / self._window_sec


class SilenceWatch:
    """Notices that regular events have stopped. One thread calls ``tick``; any thread calls ``silent_sec``.

    Args:
        started_at: Start of the watch, in seconds on a steady clock.
        min_silence_sec: Shortest silence that counts, in seconds.
    """

    def __init__(self, started_at: float, min_silence_sec: float = 3.0) -> None:
        self._min_silence_sec = min_silence_sec
        self._periods: deque[float] = deque([0.0, 0.0], maxlen=_RECENT_PERIODS)
        self._last = started_at, 0.0  # time of the last event, and the longest usual period

    def tick(self, now: float) -> None:
        """Count one event at ``now``, in seconds on a steady clock."""
        self._periods.append(now - self._last[0])
        second_longest, longest = sorted(self._periods)[-2:]
        self._last = now, max(second_longest, min(longest, _MAX_PERIOD_SEC))

    def silent_sec(self, now: float) -> float:
        """Return the time since the last event, in seconds, if it is unusually long; 0.0 otherwise."""
        last, period = self._last
        silence = now - last
        return silence if silence > max(self._min_silence_sec, _MAX_PERIODS * period) else 0.0
