"""Play a source of images in a thread, at its own pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from delayed_vlm_ros.errors import DelayedVlmError

Source = TypeVar("Source", bound=AbstractContextManager[Any])
Due = TypeVar("Due", contravariant=True)  # noqa: PLC0105  the time of an image, in the unit of its schedule

CLOSE_TIMEOUT_SEC = 0.5
"""Default time to wait for a read that blocks, such as a camera driver's."""

_MAX_LATENESS_SEC = 1.0
_TICK_SEC = 0.02


class Schedule(Protocol[Due]):
    """Maps the times of a source's images to waiting times."""

    def seconds_until(self, due: Due) -> float:
        """Return the seconds until an image is due; negative if it is late."""

    def delay(self, seconds: float) -> None:
        """Postpone all later images."""


@dataclass(frozen=True)
class PlayerStatus:
    """State of a player.

    Attributes:
        error: Latest error; empty while images are played.
        has_ended: Whether the source was played to its end.
        is_retrying: Whether the source is opened again after the error.
    """

    error: str = ""
    has_ended: bool = False
    is_retrying: bool = False


class Player(Generic[Source]):
    """Plays a source from ``start()`` until its end or ``close()``, in its own thread.

    All callbacks run in that thread.

    Args:
        source: Open source for the first round. The player closes it.
        play: Plays a source and returns the number of images; returns early when ``wait`` or ``wait_until`` returns
            False. A source without images is not repeated.
        reopen: Opens the source again.
        loop: Whether to repeat the source at its end.
        retry_sec: Pause before a failed source is opened again, in seconds; None to end at the first error. Only errors
            of this package are retried.
        on_open: Callback for the first opening and for each recovery from an error, called with the source.
        on_retry: Callback for the first of consecutive errors, called before the pause.
        on_late: Callback for a source that plays too slowly.
        on_finish: Callback for the end of playback, called with its error, or with None at the end of the source; not
            called after ``close()``.
    """

    def __init__(
        self,
        source: Source,
        play: Callable[[Source], int],
        *,
        reopen: Callable[[], Source],
        loop: bool,
        retry_sec: float | None = None,
        on_open: Callable[[Source], None] | None = None,
        on_retry: Callable[[Exception], None] | None = None,
        on_late: Callable[[], None] | None = None,
        on_finish: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self._source: Source | None = source
        self._play = play
        self._reopen = reopen
        self._loop = loop
        self._retry_sec = retry_sec
        self._on_open = on_open
        self._on_retry = on_retry
        self._on_late = on_late
        self._on_finish = on_finish
        self._status = PlayerStatus()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    @property
    def status(self) -> PlayerStatus:
        """Current state."""
        return self._status

    @property
    def is_closing(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closing.is_set()

    def start(self) -> None:
        """Start playing."""
        self._thread.start()

    def close(self, timeout_sec: float = CLOSE_TIMEOUT_SEC) -> bool:
        """Stop playing.

        Args:
            timeout_sec: Longest time to wait for the thread, in seconds.

        Returns:
            Whether the thread has ended. Otherwise it ends after the read that blocks it.
        """
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_sec)
        return not self._thread.is_alive()

    def wait(self, seconds: float, on_wait: Callable[[], None] | None = None) -> bool:
        """Wait; return whether playback continues, False after ``close()``.

        Args:
            seconds: Waiting time; zero or less does not wait.
            on_wait: Callback every 20 ms while waiting.
        """
        if on_wait is None:
            return not self._closing.wait(max(0.0, seconds))
        deadline = time.monotonic() + seconds
        while (remaining_sec := deadline - time.monotonic()) > 0:
            on_wait()
            if self._closing.wait(min(remaining_sec, _TICK_SEC)):
                return False
        return not self._closing.is_set()

    def wait_until(self, schedule: Schedule[Due], due: Due, on_wait: Callable[[], None] | None = None) -> bool:
        """Wait until an image is due; return whether playback continues, False after ``close()``.

        If the image is more than a second late, postpone all later ones: playback slows down and skips nothing.
        """
        wait_sec = schedule.seconds_until(due)
        if wait_sec < -_MAX_LATENESS_SEC:
            if self._on_late is not None:
                self._on_late()
            schedule.delay(-wait_sec)
        return self.wait(wait_sec, on_wait)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                count = self._play_once()
            except Exception as error:  # noqa: BLE001  libraries that read recordings have no common error class
                if self._closing.is_set():
                    return
                if not self._retry(error):
                    self._finish(error)
                    return
            else:
                if self._closing.is_set():
                    return
                if not (self._loop and count):
                    self._status = PlayerStatus(has_ended=True)
                    self._finish(None)
                    return

    def _play_once(self) -> int:
        source, self._source = self._source, None
        is_recovery = bool(self._status.error)
        is_first = source is not None
        if source is None:
            source = self._reopen()
        with source:
            self._status = PlayerStatus()
            if self._on_open is not None and (is_first or is_recovery):
                self._on_open(source)
            return self._play(source)

    def _retry(self, error: Exception) -> bool:
        is_first = not self._status.error
        is_retrying = self._retry_sec is not None and isinstance(error, DelayedVlmError)
        self._status = PlayerStatus(error=str(error) or type(error).__name__, is_retrying=is_retrying)
        if self._retry_sec is None or not is_retrying:
            return False
        if is_first and self._on_retry is not None:
            self._on_retry(error)
        self.wait(self._retry_sec)
        return True

    def _finish(self, error: Exception | None) -> None:
        if self._on_finish is not None:
            self._on_finish(error)
