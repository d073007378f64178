"""A question with its limits, and what comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from delayed_vlm_ros.errors import BadRequestError, NoFramesError
from delayed_vlm_ros.inference.metrics import AskMetrics
from delayed_vlm_ros.memory import Snapshot


@dataclass(frozen=True, slots=True)
class AskRequest:
    """One question.

    Attributes:
        question: What to ask.
        since: Only frames at or after this stamp, in seconds; None: unbounded.
        until: Only frames at or before this stamp, in seconds; None: unbounded.
        last_sec: Only frames of the last seconds before the newest kept one; None: unbounded.
        max_new_tokens: Length limit of the answer in tokens; None: the engine's default.
    """

    question: str
    since: float | None = None
    until: float | None = None
    last_sec: float | None = None
    max_new_tokens: int | None = None

    @property
    def is_limited_in_time(self) -> bool:
        """Whether the question looks at a part of the memory only."""
        return (self.since, self.until, self.last_sec) != (None, None, None)


@dataclass(frozen=True, slots=True)
class AskResult:
    """One answer, with the pairs it was made from (oldest first) and what it cost."""

    answer: str
    metrics: AskMetrics
    frames_used: Snapshot


def check_request(request: AskRequest) -> None:
    """Refuse a question that makes no sense.

    Raises:
        BadRequestError: It is empty, or a limit is negative, not a number, or contradicts another.
    """
    if not isinstance(request.question, str):
        raise BadRequestError(f"the question is of type {type(request.question).__name__}: give text")
    if not request.question.strip():
        raise BadRequestError("the question is empty: say what you want to know about the scene")
    for name, value in (("since", request.since), ("until", request.until), ("last_sec", request.last_sec)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadRequestError(f"{name} is {value}: give seconds of 0 or more, or leave it out")
    if request.since is not None and request.until is not None and request.since > request.until:
        raise BadRequestError(
            f"since ({request.since:.3f} s) is after until ({request.until:.3f} s): no frame can lie between; swap them"
        )
    limit = request.max_new_tokens
    if limit is not None and not (isinstance(limit, int) and limit >= 1):
        raise BadRequestError(f"max_new_tokens is {limit}: give a whole number of 1 or more, or leave it out")


def select_frames(snapshot: Snapshot, request: AskRequest) -> Snapshot:
    """The pairs of a snapshot that lie wholly within the question's limits.

    Raises:
        NoFramesError: There are none.
    """
    if not snapshot:
        raise NoFramesError("no frames: nothing has been seen yet. Check that the camera publishes, then ask again")
    since = request.since
    if request.last_sec is not None:
        last = snapshot[-1].stamps[1] - request.last_sec
        since = last if since is None else max(since, last)
    selected = tuple(
        kept
        for kept in snapshot
        if (since is None or kept.stamps[0] >= since) and (request.until is None or kept.stamps[1] <= request.until)
    )
    if not selected:
        raise NoFramesError(
            "no frames within the limits given: kept frames reach from "
            f"{snapshot[0].stamps[0]:.3f} s to {snapshot[-1].stamps[1]:.3f} s. Widen since, until or last_sec"
        )
    return selected
