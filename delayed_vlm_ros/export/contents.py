"""What an export contains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pose:
    """Where the camera was: position in metres, orientation as a quaternion.

    Attributes:
        frame_id: Coordinate frame.
        position: x, y, z.
        orientation: x, y, z, w.
    """

    frame_id: str
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float]


@dataclass(frozen=True)
class ExportedPair:
    """A kept pair of frames. Stamps are in nanoseconds on the camera's clock.

    Attributes:
        id: Identifier of the pair.
        camera: Name of the camera.
        stamp_ns: Stamp of the first image.
        end_stamp_ns: Stamp of the second image.
        importance: Score from 0 to 1.
        reason: Why the pair is a key frame; empty if it is not.
        in_star: Whether Star memory holds the pair.
        in_stream: Whether Stream memory holds the pair.
        marked: Whether the pair is marked.
        label: Label of the mark.
        pose: Where the camera was; None if it is not known.
    """

    id: int
    camera: str
    stamp_ns: int
    end_stamp_ns: int
    importance: float
    reason: str
    in_star: bool
    in_stream: bool
    marked: bool
    label: str
    pose: Pose | None = None


@dataclass(frozen=True)
class PairImages:
    """A pair with its images.

    Attributes:
        pair: The pair.
        first: PNG data of its first image.
        second: PNG data of its second image; empty if it has none.
    """

    pair: ExportedPair
    first: bytes
    second: bytes


@dataclass(frozen=True)
class LeftPair:
    """A pair that left the memory before its images were read."""

    id: int


@dataclass(frozen=True)
class Evidence:
    """A pair that an answer rests on.

    Attributes:
        pair_id: Identifier of the pair.
        stamp_ns: Stamp of its first image.
        relevance: Share of the answer that rests on it, from 0 to 1; None if it is not known.
    """

    pair_id: int
    stamp_ns: int
    relevance: float | None


@dataclass(frozen=True)
class ExportedAnswer:
    """A question with its answer.

    Attributes:
        stamp_ns: Time of the answer, in nanoseconds.
        camera: Camera of the question; empty for the first one, ``*`` for all.
        question: Text of the question.
        answer: Text of the answer; empty after an error.
        error: Why there is no answer; empty on success.
        pair_ids: Identifiers of the pairs that the answer is based on.
        evidence: Pairs that the answer rests on most, best first; empty if they are not known.
        warnings: Reasons why the answer may be less accurate than usual.
    """

    stamp_ns: int
    camera: str
    question: str
    answer: str
    error: str
    pair_ids: tuple[int, ...]
    evidence: tuple[Evidence, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ExportedAlert:
    """A change of a standing question between yes and no.

    Attributes:
        stamp_ns: Stamp of the newest frame of the check, in nanoseconds.
        camera: Name of the camera.
        watch: Name of the standing question.
        question: Its text.
        is_rising: Whether it changed to yes.
        p_yes: Probability of yes.
        pair_ids: Identifiers of the pairs of its evidence.
    """

    stamp_ns: int
    camera: str
    watch: str
    question: str
    is_rising: bool
    p_yes: float
    pair_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalLine:
    """A line of the journal, about a pair that is no longer kept.

    Attributes:
        id: Number of the line.
        camera: Name of the camera.
        stamp_ns: Stamp of the first image, in nanoseconds.
        end_stamp_ns: Stamp of the second image.
        caption: Text of the line.
        reason: Why the pair was a key frame.
        label: Label of its mark; empty without one.
    """

    id: int
    camera: str
    stamp_ns: int
    end_stamp_ns: int
    caption: str
    reason: str = ""
    label: str = ""


@dataclass(frozen=True)
class Records:
    """Everything in an export but the frames.

    Attributes:
        source: Name of the memory, for people.
        created_ns: Time of the export, in nanoseconds since 1970.
        since_ns: Start of the exported time; 0 for no limit.
        until_ns: End of the exported time; 0 for no limit.
        answers: Questions with their answers, oldest first.
        alerts: Alerts, oldest first.
        lines: Lines of the journal, oldest first.
        warnings: What is missing, one sentence each.
    """

    source: str
    created_ns: int
    since_ns: int = 0
    until_ns: int = 0
    answers: tuple[ExportedAnswer, ...] = ()
    alerts: tuple[ExportedAlert, ...] = ()
    lines: tuple[JournalLine, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportCounts:
    """What an export has written.

    Attributes:
        pairs: Pairs of frames with their images.
        images: PNG files.
        pairs_left: Pairs that left the memory before their images were read.
        answers: Questions with their answers.
        alerts: Alerts.
        lines: Lines of the journal.
    """

    pairs: int
    images: int
    pairs_left: int
    answers: int
    alerts: int
    lines: int


def is_within(stamp_ns: int, limits_ns: tuple[int, int]) -> bool:
    """Return whether a stamp is within limits; 0 is no limit."""
    since_ns, until_ns = limits_ns
    return since_ns <= stamp_ns and (not until_ns or stamp_ns <= until_ns)
