"""Captions for pairs that have left the memory: work for a time in which no question waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from delayed_vlm_ros.errors import (
    AskCancelledError,
    AskTimeoutError,
    DelayedVlmError,
    DeviceMemoryError,
    ModelError,
)
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.duty import DutyLimit
from delayed_vlm_ros.inference.finish import STOP
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.memory import KeptPair, Snapshot

MAX_DUTY = 0.1
"""Largest share of the device's time for captions."""

MAX_WAITING = 32
"""Pairs of all cameras together that may wait for a caption; their images stay in memory."""

MAX_TOKENS = 64
"""Longest caption, in tokens; a longer one ends with an ellipsis."""

MAX_CAPTION_SEC = 120.0
"""Longest time for a caption, in seconds: a model server that hangs must not keep the worker from its other tasks."""

_LOGGER = logging.getLogger(__name__)
_MAX_ATTEMPTS = 3  # of one pair; then it is not its turn but the pair that fails
_RETRY_SEC = 10.0


class AnsweringEngine(Protocol):
    """The method of an engine that captions use."""

    def answer(
        self, request: AskRequest, control: AskControl | None = None, *, frames: Snapshot | None = None
    ) -> AskResult:
        """Answer a question about the pairs in ``frames``."""


@dataclass(frozen=True, slots=True)
class WaitingPair:
    """A pair that waits for its caption.

    Attributes:
        camera: Name of its camera.
        kept: The pair as it was kept last.
        attempts: How often a caption has failed because of it.
    """

    camera: str
    kept: KeptPair
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Captioned:
    """A pair with its caption.

    Attributes:
        camera: Name of its camera.
        kept: The pair as it was kept last.
        caption: What the model said; may be empty.
    """

    camera: str
    kept: KeptPair
    caption: str


@dataclass(frozen=True, slots=True)
class CaptionCounts:
    """What has happened since the start.

    Attributes:
        waiting: Pairs that wait for their caption now.
        captioned: Pairs with a caption.
        dropped: Pairs that got none, because too many waited, the model failed repeatedly, or it does not know such
            images.
        device_sec: Time that captions have taken, failed and interrupted ones included, in seconds; without the
            timeouts of a server that hangs.
        error: Why the last caption failed; empty if it did not.
        warnings: Limitations of the last caption, one sentence each.
    """

    waiting: int = 0
    captioned: int = 0
    dropped: int = 0
    device_sec: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()


class Captioner:
    """Holds pairs that wait for a caption, and asks the model about one after another. Thread-safe.

    Args:
        question: Question whose answer is the caption.
        on_caption: Called with each caption, in the thread of ``work``. Must neither block nor call this object.
        steady: Steady clock, in seconds.
    """

    def __init__(
        self, question: str, on_caption: Callable[[Captioned], None], *, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._request = AskRequest(question, max_new_tokens=MAX_TOKENS)
        self._on_caption = on_caption
        self._steady = steady
        self._duty = DutyLimit(MAX_DUTY)
        self._not_before = 0.0
        self._lock = threading.Lock()  # guards the next three
        self._waiting: deque[WaitingPair] = deque()
        self._counts = CaptionCounts()
        self._times_cleared = 0

    def offer(self, camera: str, kept: KeptPair) -> None:
        """Add a pair. While too many wait, the least important one is dropped; of equal ones, the oldest."""
        with self._lock:
            self._waiting.append(WaitingPair(camera, kept))
            self._drop_excess()

    def _drop_excess(self) -> None:
        while len(self._waiting) > MAX_WAITING:
            importances = [pair.kept.importance for pair in self._waiting]
            del self._waiting[importances.index(min(importances))]
            self._counts = replace(self._counts, dropped=self._counts.dropped + 1)

    @property
    def needs_model(self) -> bool:
        """Whether so many pairs wait that the model should be loaded for them."""
        return len(self._waiting) >= MAX_WAITING // 2

    @property
    def counts(self) -> CaptionCounts:
        """What has happened since the start."""
        with self._lock:
            return replace(self._counts, waiting=len(self._waiting))

    def clear(self) -> int:
        """Drop all waiting pairs, and the one at work; return the number of those that waited."""
        with self._lock:
            dropped = len(self._waiting)
            self._waiting.clear()
            self._times_cleared += 1
            return dropped

    def work(self, engines: Mapping[str, AnsweringEngine], control: AskControl, *, uses_server: bool = False) -> bool:
        """Ask for the caption of the next pair, if the limit of device time allows it.

        Args:
            engines: Engine of each camera.
            control: Control of the work, which a question cancels.
            uses_server: Whether the model is on a server. A server that hangs is away, and does not work: its timeouts
                are no device time, and no failure of the pair.

        Returns:
            Whether the model was asked.

        Raises:
            AskCancelledError: The work was cancelled; the pair waits for the next call.
            DeviceMemoryError: The device ran out of memory; the pair waits for the next call.
            MemoryError: The process ran out of memory; the pair waits for the next call.
        """
        began = self._steady()
        if began < self._not_before or not self._duty.allows(began):
            return False
        with self._lock:
            if not self._waiting:
                return False
            pair = self._waiting.popleft()
            times_cleared = self._times_cleared
        control.deadline = time.monotonic() + MAX_CAPTION_SEC
        is_away = False
        try:
            result = engines[pair.camera].answer(self._request, control, frames=(pair.kept,))
        except AskCancelledError:
            self._return(pair, times_cleared)
            raise
        except (DeviceMemoryError, MemoryError) as error:
            self._return(pair, times_cleared)
            self._count(error=str(error) or type(error).__name__)
            raise
        except DelayedVlmError as error:
            is_away = uses_server and isinstance(error, AskTimeoutError)
            self._retry(pair, times_cleared, error, is_due_to_pair=not (is_away or isinstance(error, ModelError)))
        except Exception as error:
            _LOGGER.exception("a caption of the journal failed")
            self._retry(pair, times_cleared, error, is_due_to_pair=True)
        else:
            self._take(pair, times_cleared, result)
        finally:
            if not is_away:
                ended = self._steady()
                self._duty.add(ended - began, ended)
                self._count(device_sec=self._counts.device_sec + ended - began)
        return True

    def _take(self, pair: WaitingPair, times_cleared: int, result: AskResult) -> None:
        """Pass a caption on, unless the pairs were cleared meanwhile, or the model does not know such images."""
        if result.is_refused:
            dropped = self._counts.dropped + 1
            self._count(error=f"no caption: {result.answer}", warnings=result.metrics.warnings, dropped=dropped)
            return
        self._count(error="", warnings=result.metrics.warnings, captioned=self._counts.captioned + 1)
        with self._lock:  # after ``clear`` has returned, no earlier caption follows
            if times_cleared == self._times_cleared:
                self._on_caption(Captioned(pair.camera, pair.kept, _caption(result)))

    def _count(self, **values: object) -> None:
        with self._lock:
            self._counts = replace(self._counts, **values)  # type: ignore[arg-type]

    def _return(self, pair: WaitingPair, times_cleared: int) -> None:
        """Let a pair wait once more, before the others, unless the pairs were cleared meanwhile."""
        with self._lock:
            if times_cleared == self._times_cleared:
                self._waiting.appendleft(pair)
                self._drop_excess()

    def _retry(self, pair: WaitingPair, times_cleared: int, error: Exception, *, is_due_to_pair: bool) -> None:
        """Note a failure; the pair waits once more, unless it has failed too often."""
        self._not_before = self._steady() + _RETRY_SEC
        text = str(error) if isinstance(error, DelayedVlmError) else f"internal error, {type(error).__name__}: {error}"
        attempts = pair.attempts + is_due_to_pair
        if attempts < _MAX_ATTEMPTS:
            self._return(replace(pair, attempts=attempts), times_cleared)
            self._count(error=text)
        else:
            self._count(error=text, dropped=self._counts.dropped + 1)


def _caption(result: AskResult) -> str:
    """Return the answer on one line; an ellipsis ends one that is not complete."""
    caption = " ".join(result.answer.split())
    return caption if result.metrics.finish_reason == STOP or not caption else f"{caption} …"
