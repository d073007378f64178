"""A watch: a yes/no question with the settings of its checks and alerts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from delayed_vlm_ros.errors import BadRequestError

MAX_NAME_CHARACTERS = 64
"""Longest name of a watch."""

ALERTS_KEPT = 20
"""Number of the newest alerts that a client receives which connects later."""

MAX_SECONDS = 86_400.0
"""Upper bound of the times in a watch, in seconds; the lifetime has none."""

MIN_PERIOD_SEC = 0.1
"""Lower bound of the time between two checks, in seconds."""

_MAX_CHECKS = 100


class Gate(Enum):
    """When a watch whose period has passed is checked. Nothing but new images opens a gate."""

    EVERY = "every"
    """Always."""

    ON_CHANGE = "on_change"
    """When the view has changed since the last check, and until the window shows no change any more."""

    ON_EVENT = "on_event"
    """When a pair has entered Star memory since the last check, and until the window has passed it."""


@dataclass(frozen=True)
class Watch:
    """A yes/no question that is checked again and again.

    Attributes:
        name: Unique name.
        question: The question.
        camera: Name of the camera; empty: the first one.
        last_sec: Time span before the newest frame that the question is about, in seconds; 0: all kept frames. The
            span may be up to half longer, because its start moves in steps.
        period_sec: Shortest time between two checks, in seconds.
        gate: When a check that is due is made.
        threshold: Probability of yes from which a check counts as yes.
        release: Probability of yes below which the watch changes from yes to no.
        hold_sec: Time for which all checks must count as yes before the watch changes to yes, in seconds.
        yes_checks: Checks among the last ``of_checks`` that must count as yes as well; 1: the first yes suffices, which
            single wrong answers of the model turn into false alerts.
        of_checks: See ``yes_checks``.
        cooldown_sec: Shortest time between two rising alerts, in seconds.
        once: Whether the watch ends with its first rising alert.
        lifetime_sec: Time after which the watch ends, in seconds; 0: never.
    """

    name: str
    question: str
    camera: str = ""
    last_sec: float = 10.0
    period_sec: float = 2.0
    gate: Gate = Gate.EVERY
    threshold: float = 0.6
    release: float = 0.4
    hold_sec: float = 0.0
    yes_checks: int = 2
    of_checks: int = 2
    cooldown_sec: float = 0.0
    once: bool = False
    lifetime_sec: float = 0.0


def check_watch(watch: Watch) -> None:
    """Check the settings of a watch.

    Raises:
        BadRequestError: A setting is invalid, or contradicts another one.
    """
    if not (watch.name.isprintable() and 1 <= len(watch.name.strip()) <= len(watch.name) <= MAX_NAME_CHARACTERS):
        raise BadRequestError(
            f"'name' must have 1 to {MAX_NAME_CHARACTERS} printable characters, got {len(watch.name)} characters"
        )
    if not watch.question.strip():
        raise BadRequestError(f"the question of watch '{watch.name}' is empty: ask a yes/no question about the scene")
    _check_range("period_sec", watch.period_sec, MIN_PERIOD_SEC, MAX_SECONDS)
    for name in ("last_sec", "hold_sec", "cooldown_sec"):
        _check_range(name, getattr(watch, name), 0.0, MAX_SECONDS)
    _check_range("lifetime_sec", watch.lifetime_sec, 0.0, math.inf)
    if not 0.0 < watch.release <= watch.threshold < 1.0:
        raise BadRequestError(
            f"'release' and 'threshold' must be between 0 and 1, and 'release' not above 'threshold', got "
            f"{watch.release:g} and {watch.threshold:g}"
        )
    if not 1 <= watch.yes_checks <= watch.of_checks <= _MAX_CHECKS:
        raise BadRequestError(
            f"'yes_checks' must be at least 1 and not above 'of_checks' (at most {_MAX_CHECKS}), got "
            f"{watch.yes_checks} of {watch.of_checks}"
        )


def _check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    if not (math.isfinite(value) and minimum <= value <= maximum):
        limits = f"{minimum:g} to {maximum:g}" if math.isfinite(maximum) else f"{minimum:g} or more"
        raise BadRequestError(f"'{name}' must be {limits} seconds, got {value}")
