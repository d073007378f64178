"""The result of a check: one line for people."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from delayed_vlm_ros.doctor.text import printable


class Level(IntEnum):
    """Severity of a finding, in rising order."""

    OK = 0
    WARN = 1
    ERROR = 2


@dataclass(frozen=True)
class Finding:
    """One result of a check. Its texts are made printable.

    Attributes:
        level: Severity.
        subject: What was checked.
        text: What was found.
        remedy: What to do; empty if nothing is to be done or ``text`` says it.
    """

    level: Level
    subject: str
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        for field in ("subject", "text", "remedy"):
            object.__setattr__(self, field, printable(getattr(self, field)))

    @property
    def sentence(self) -> str:
        """Subject, finding and remedy on one line."""
        return ": ".join(filter(None, (self.subject, self.text, self.remedy)))

    @property
    def line(self) -> str:
        """Level and sentence."""
        return f"{self.level.name:<5}  {self.sentence}"


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, subject, text)


def warn(subject: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that limits what works."""
    return Finding(Level.WARN, subject, text, remedy)


def error(subject: str, text: str, remedy: str = "") -> Finding:
    """Return a finding that prevents the node from working."""
    return Finding(Level.ERROR, subject, text, remedy)
