"""A question with its limits, and its answer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.inference.time_words import TimeWords
from delayed_vlm_ros.memory import KeptPair, Snapshot

WINDOW_STRETCH = 1.5
"""Longest span of a window, as a multiple of its length."""

NOW_PAIRS = 4
"""Pairs for a question about the present: enough for an answer, and older ones make such answers worse."""

MAX_EVIDENCE = 5
"""Most pairs that are evidence of an answer."""


@dataclass(frozen=True, slots=True)
class AskRequest:
    """One question.

    Attributes:
        question: Text of the question.
        since: Stamp of the oldest frame to use, in seconds; None: unbounded.
        until: Stamp of the newest frame to use, in seconds; None: unbounded.
        last_sec: Time span before the newest kept frame, in seconds; None: unbounded.
        max_new_tokens: Length limit of the answer in tokens; None: the engine's default.
        newest_pairs: Number of the newest pairs within the limits to use; None: all.
        ranks_evidence: Whether to rank the pairs by how much the answer rests on them.
        time_words: The words of the question that ``since`` and ``until`` come from; None: they were not read.
    """

    question: str
    since: float | None = None
    until: float | None = None
    last_sec: float | None = None
    max_new_tokens: int | None = None
    newest_pairs: int | None = None
    ranks_evidence: bool = False
    time_words: TimeWords | None = None

    @property
    def has_time_limit(self) -> bool:
        """Whether the question is limited in time."""
        return (self.since, self.until, self.last_sec) != (None, None, None)

    @property
    def is_limited(self) -> bool:
        """Whether the question is about a part of the memory only."""
        return self.has_time_limit or self.newest_pairs is not None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A pair that an answer rests on.

    Attributes:
        kept: The pair.
        relevance: Share of the answer that rests on it, 0..1; all pairs of the question together have 1.
    """

    kept: KeptPair
    relevance: float


@dataclass(frozen=True, slots=True)
class AskResult:
    """One answer.

    Attributes:
        answer: Text of the answer.
        metrics: Cost of the answer.
        frames_used: Encoded pairs, oldest first.
        evidence: The pairs that the answer rests on most, best first, at most 5; empty if the request does not ask for
            them, or the engine cannot rank pairs.
        is_refused: Whether the model was not asked, because it does not know such images; ``answer`` says so.
    """

    answer: str
    metrics: AskMetrics
    frames_used: Snapshot
    evidence: tuple[Evidence, ...] = ()
    is_refused: bool = False


def check_request(request: AskRequest) -> None:
    """Check a question and its limits.

    Raises:
        BadRequestError: The question is empty, or a limit is negative, not finite, or contradicts another one.
    """
    if not isinstance(request.question, str):
        raise BadRequestError(f"'question' must be text, got {type(request.question).__name__}")
    if not request.question.strip():
        raise BadRequestError("the question is empty: ask about the scene")
    for name, value in (("since", request.since), ("until", request.until), ("last_sec", request.last_sec)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadRequestError(f"'{name}' must be 0 s or more, got {value}: correct it or leave it out")
    if request.since is not None and request.until is not None and request.since > request.until:
        raise BadRequestError(f"'since' ({request.since:.3f} s) is after 'until' ({request.until:.3f} s): swap them")
    for name, value in (("newest_pairs", request.newest_pairs), ("max_new_tokens", request.max_new_tokens)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise BadRequestError(f"'{name}' must be a whole number of 1 or more, got {value}")


def select_frames(snapshot: Snapshot, request: AskRequest) -> Snapshot:
    """Return the pairs that the question is about, those completely within its limits, oldest first.

    Raises:
        NoFramesError: The snapshot is empty, or no pair lies within the limits.
    """
    if not snapshot:
        raise NoFramesError("no frames: the memory is empty. Check that the camera publishes, then ask again")
    since = request.since
    if request.last_sec is not None:
        start = snapshot[-1].stamps[1] - request.last_sec
        since = start if since is None else max(since, start)
    selected = tuple(
        kept
        for kept in snapshot
        if (since is None or kept.stamps[0] >= since) and (request.until is None or kept.stamps[1] <= request.until)
    )
    if not selected:
        understood = request.time_words.text if request.time_words is not None else ""
        limits = f"the limits ({understood})" if understood else "the limits"
        raise NoFramesError(
            f"no frames within {limits}: kept frames reach from {snapshot[0].stamps[0]:.3f} s to "
            f"{snapshot[-1].stamps[1]:.3f} s. Widen since, until or last_sec"
        )
    return selected if request.newest_pairs is None else selected[-request.newest_pairs :]


def window_start(snapshot: Snapshot, window_sec: float) -> float | None:
    """Return the stamp of the start of a window of the newest frames, in seconds; None: all frames.

    The start moves in steps of half of the window. If it moved with every frame, each question would drop the oldest
    pair of the window, and with it the encoding of all others.

    Args:
        snapshot: All kept pairs, oldest first.
        window_sec: Shortest span of the window, in seconds.

    Raises:
        BadRequestError: The length is not a positive number.
    """
    if not (math.isfinite(window_sec) and window_sec > 0):
        raise BadRequestError(f"'window_sec' must be more than 0 s, got {window_sec}")
    if not snapshot:
        return None
    step = (WINDOW_STRETCH - 1.0) * window_sec
    start = (snapshot[-1].stamps[1] - window_sec) // step * step
    return start if start > 0 else None
