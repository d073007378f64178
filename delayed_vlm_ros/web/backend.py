"""Interface between the page and a scene memory, which runs in another node or in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.inference.moments import does_fit
from delayed_vlm_ros.inference.progress import Progress
from delayed_vlm_ros.watches import Level as WatchLevel
from delayed_vlm_ros.watches import Watch

ALL_CAMERAS = "*"
"""Value of ``Question.camera`` that queries every camera, one after the other."""

WATCH_DIAGNOSTIC = "watch "
"""Start of the name of a standing question's diagnostic; its name follows."""


MAX_ALERTS = 1000
"""Number of alerts that a backend remembers."""

MAX_ANSWERS = 1000
"""Number of answered questions that a backend remembers."""


MAX_JOURNAL_LINES = 5000
"""Number of lines of the journal that the page shows, the newest ones."""


class Level(Enum):
    """Severity of a diagnostic."""

    OK = "ok"
    WARN = "warn"
    STALE = "stale"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A pair of frames in memory.

    Attributes:
        id: Identifier of the pair, unique for the life of the memory.
        camera: Name of the camera.
        stamp_ns: Stamp of the first image, in nanoseconds on the camera's clock.
        end_stamp_ns: Stamp of the second image; equal to ``stamp_ns`` until that image arrives.
        importance: Score from 0 to 1.
        reason: Reason for the score; empty for an unremarkable pair.
        in_star: Whether Star memory holds the pair.
        in_stream: Whether Stream memory holds the pair.
        marked: Whether the pair is protected from eviction.
        label: Label of the mark.
    """

    id: int
    camera: str
    stamp_ns: int
    end_stamp_ns: int
    importance: float
    reason: str
    in_star: bool
    in_stream: bool
    marked: bool = False
    label: str = ""

    @property
    def key(self) -> str:
        """Identifier that stays unique across restarts of the node, which may reuse ids."""
        return f"{self.id}-{self.stamp_ns}"


@dataclass(frozen=True, slots=True)
class MemoryCounts:
    """Size of one camera's memory. All counts are frames; a pair has two.

    Attributes:
        added: Frames added since the start.
        unique: Frames in Star or Stream memory, each counted once.
        star: Frames in Star memory.
        stream: Frames in Stream memory.
        compression_ratio: Frames added per frame kept; 0 for an empty memory.
        pixel_bytes: Bytes of the images.
        feature_bytes: Bytes of the cached vision features.
        kv_bytes: Bytes of the KV cache.
        budget_bytes: Upper bound of the three together; 0 for no bound.
    """

    added: int = 0
    unique: int = 0
    star: int = 0
    stream: int = 0
    compression_ratio: float = 0.0
    pixel_bytes: int = 0
    feature_bytes: int = 0
    kv_bytes: int = 0
    budget_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CameraSpan:
    """A time for which it is known whether a camera sent images. Between two spans nothing is known.

    Attributes:
        since_ns: Start, in nanoseconds on the camera's clock.
        until_ns: End; for the newest span, the last observation.
        has_images: Whether images arrived; False for a gap.
    """

    since_ns: int
    until_ns: int
    has_images: bool


@dataclass(frozen=True, slots=True)
class CameraState:
    """State of a camera and its memory.

    Attributes:
        name: Name of the camera.
        topic: Image topic, for display.
        input_rate_hz: Rate of arriving images over the last seconds.
        sampled_rate_hz: Rate of images added to the memory over the last seconds.
        dropped: Images since the start that were due for the memory but unusable.
        newest_age_sec: Age of the newest kept frame; None for an empty memory.
        silent_sec: Time since the page received an image, in seconds, if that is unusually long; 0 otherwise.
        counts: Frames and bytes in memory.
        frames: All kept pairs, oldest first.
        spans: Times with images and gaps that the page's process has observed, oldest first.
    """

    name: str
    topic: str = ""
    input_rate_hz: float = 0.0
    sampled_rate_hz: float = 0.0
    dropped: int = 0
    newest_age_sec: float | None = None
    silent_sec: float = 0.0
    counts: MemoryCounts = MemoryCounts()
    frames: tuple[KeptFrame, ...] = ()
    spans: tuple[CameraSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """State of one component.

    Attributes:
        name: Name of the component, such as ``model`` or ``camera front``.
        level: Severity.
        message: Explanation in one sentence.
    """

    name: str
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one answer, in seconds."""

    first_token_sec: float
    total_sec: float


@dataclass(frozen=True, slots=True)
class WatchedQuestion:
    """A standing question with its state.

    Attributes:
        watch: Its settings.
        level: Its level; ``UNKNOWN`` never means no.
        since_ns: Stamp of the newest frame of the first check at this level, in nanoseconds; 0 if it is not yes or no.
        p_yes: Probability of yes at the last check; None before the first.
        reason: Why the level is unknown or inactive; empty otherwise.
        warning: Why it is checked less often than its period demands; empty otherwise.
        device_sec_per_hour: Device time that it takes in an hour, in seconds.
    """

    watch: Watch
    level: WatchLevel
    since_ns: int
    p_yes: float | None
    reason: str
    warning: str
    device_sec_per_hour: float

    def unknown(self, reason: str) -> WatchedQuestion:
        """Return the same question with an unknown level.

        Args:
            reason: Why it is unknown.
        """
        return replace(self, level=WatchLevel.UNKNOWN, since_ns=0, reason=reason, warning="")


@dataclass(frozen=True, slots=True)
class WatchAlert:
    """A change of a standing question between yes and no.

    Attributes:
        id: Sequence number of the alert.
        watch: Name of the standing question.
        question: Its text.
        camera: Its camera.
        is_rising: Whether it changed to yes.
        p_yes: Probability of yes at the check that caused the change.
        stamp_ns: Stamp of the newest frame of that check, in nanoseconds.
        evidence: Newest pair of the first check that counted as yes, and of the last one if it is another.
    """

    id: int
    watch: str
    question: str
    camera: str
    is_rising: bool
    p_yes: float
    stamp_ns: int
    evidence: tuple[KeptFrame, ...]

    @property
    def key(self) -> str:
        """Identifier that stays unique across restarts of the node, which may count from 1 again."""
        return f"{self.id}-{self.stamp_ns}"


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """A question of any client, with its answer or error.

    Attributes:
        id: Identifier of the question, which a client may choose.
        stamp_ns: Time of the answer on the cameras' clock, in nanoseconds.
        camera: Camera of the question; empty for the first one, ``*`` for all.
        question: Text of the question.
        answer: Text of the answer; empty after an error.
        error: Why there is no answer; empty on success.
        frame_ids: Ids of the pairs that the answer is based on.
        evidence: Pairs that the answer rests on most, best first; empty if they are not known.
        warnings: Reasons why the answer may be less accurate than usual.
    """

    id: str
    stamp_ns: int
    camera: str
    question: str
    answer: str
    error: str = ""
    frame_ids: tuple[int, ...] = ()
    evidence: tuple[EvidenceFrame, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Identifier that stays unique if clients use the same one for several questions."""
        return f"{self.id}-{self.stamp_ns}"


@dataclass(frozen=True, slots=True)
class FoundMoment:
    """A moment that a search found.

    Attributes:
        score: How well it fits, from 0 to 1.
        stamp_ns: Stamp of its first image, in nanoseconds.
        end_stamp_ns: Stamp of its last image.
        frame: Its best pair; None if that has left the memory.
        line: Its line of the journal; None if it is about a pair that was kept during the search.
        jpeg: Small JPEG image; empty if there is none.
    """

    score: float
    stamp_ns: int
    end_stamp_ns: int
    frame: KeptFrame | None
    line: JournalLine | None
    jpeg: bytes

    @property
    def fits(self) -> bool:
        """Whether it fits the description."""
        return does_fit(self.score, is_journal_line=self.line is not None)


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Result of a search.

    Attributes:
        moments: Pairs, best first, then lines of the journal, best first.
        pairs_searched: Pairs that the model was asked about.
        journal_lines_searched: Lines of the journal within the limits; 0 without a journal.
        warnings: Limitations of the result, one sentence each.
    """

    moments: tuple[FoundMoment, ...]
    pairs_searched: int
    journal_lines_searched: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SceneState:
    """State of the whole system at one time.

    Attributes:
        connected: Whether the memory is reachable.
        waiting_for: Reason for a missing connection and its remedy; empty while connected.
        now_ns: Current time on the cameras' clock, in nanoseconds.
        cameras: All cameras. A question without a camera goes to the first one.
        diagnostics: State of each component.
        model: Name or path of the checkpoint.
        model_state: One of unloaded, loading, ready and failed.
        device: Device of the model.
        questions_answered: Number of answered questions.
        questions_failed: Number of questions that ended with an error.
        latencies: Latencies of the latest answers, oldest first.
        warnings: Limitations of all answers, one sentence each.
        watches: Standing questions, in the order in which they were added.
        alerts: Their last ``MAX_ALERTS`` alerts, oldest first.
        answers: The last ``MAX_ANSWERS`` questions of all clients with their answers, oldest first.
    """

    connected: bool
    waiting_for: str = ""
    now_ns: int = 0
    cameras: tuple[CameraState, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    model: str = ""
    model_state: str = ""
    device: str = ""
    questions_answered: int = 0
    questions_failed: int = 0
    latencies: tuple[Latency, ...] = ()
    warnings: tuple[str, ...] = ()
    watches: tuple[WatchedQuestion, ...] = ()
    alerts: tuple[WatchAlert, ...] = ()
    answers: tuple[AnsweredQuestion, ...] = ()

    def camera(self, name: str) -> CameraState | None:
        """Return the camera with this name, the first camera for an empty name, or None."""
        if not name:
            return self.cameras[0] if self.cameras else None
        return next((camera for camera in self.cameras if camera.name == name), None)


@dataclass(frozen=True, slots=True)
class LiveImage:
    """The newest image of a camera, scaled down for the page.

    Attributes:
        number: Sequence number; equal numbers mean the same image.
        jpeg: JPEG data.
        width: Width of the camera's own image, in pixels.
        height: Height of the camera's own image, in pixels.
    """

    number: int
    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class KeptFrameImages:
    """The two images of a kept pair as JPEG or PNG data; the second is empty until it arrives."""

    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its limits.

    Attributes:
        text: Text of the question.
        camera: Name of the camera; empty for the first one, ``*`` for all.
        last_sec: Length of the period to answer from, in seconds before now; 0 for no limit.
        since_ns: Earliest stamp to answer from, in nanoseconds; 0 for no limit.
        until_ns: Latest stamp to answer from, in nanoseconds; 0 for no limit.
    """

    text: str
    camera: str = ""
    last_sec: float = 0.0
    since_ns: int = 0
    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """Cost of an answer: latency in seconds, and number of frames."""

    first_token_sec: float
    total_sec: float
    frames_encoded: int
    frames_reused: int


@dataclass(frozen=True, slots=True)
class EvidenceFrame:
    """A pair that an answer rests on.

    Attributes:
        frame: The pair.
        relevance: Share of the answer that rests on it, 0..1.
    """

    frame: KeptFrame
    relevance: float


@dataclass(frozen=True, slots=True)
class AskOutcome:
    """Result of a question.

    Attributes:
        answer: Complete answer, or the partial answer of a stopped or failed question.
        error: Reason for the failure and its remedy; empty on success.
        was_stopped: Whether the user stopped the question.
        frames_used: Pairs that the answer is based on.
        cost: Cost of the answer; None without an answer.
        warnings: Reasons why the answer may be less accurate than usual.
        evidence: Pairs that the answer rests on most, best first; empty if they are not known.
    """

    answer: str = ""
    error: str = ""
    was_stopped: bool = False
    frames_used: tuple[KeptFrame, ...] = ()
    cost: AnswerCost | None = None
    warnings: tuple[str, ...] = ()
    evidence: tuple[EvidenceFrame, ...] = ()


class RunningQuestion(Protocol):
    """Handle of a question that has no result yet."""

    def stop(self) -> None:
        """Request the end of the question.

        The result arrives through ``on_done`` as usual. Callable from any thread, any number of times.
        """


class Backend(Protocol):
    """A scene memory as the page uses it.

    All methods are thread-safe. ``state`` and ``ask`` return immediately; the other methods may block.
    """

    def state(self) -> SceneState:
        """Return the current state."""

    def live_image(self, camera: str) -> LiveImage | None:
        """Return the newest image of a camera; None before its first image.

        Calling this method keeps the camera's image topic subscribed for a few seconds.
        """

    def images(self, ids: Sequence[int], image_format: str = "jpeg") -> Mapping[str, KeptFrameImages]:
        """Return the images of kept pairs by ``KeptFrame.key``, without the pairs that left the memory.

        Args:
            ids: Ids of the pairs.
            image_format: ``jpeg`` or ``png``; PNG is lossless.
        """

    def find(self, description: str, camera: str) -> SearchOutcome:
        """Return the moments that fit a description, and lines of the journal.

        Args:
            description: What to find, or a yes/no question that ends with "?".
            camera: Name of the camera; empty for the first one.

        Raises:
            DelayedVlmError: The search is not possible.
        """

    def journal(self, after_id: int, *, since_ns: int = 0, until_ns: int = 0) -> tuple[JournalLine, ...]:
        """Return the newest lines of the journal, at most ``MAX_JOURNAL_LINES``; none without a journal.

        Args:
            after_id: Return only lines with a larger number.
            since_ns: Stamp of the oldest frames, in nanoseconds; 0 for no limit.
            until_ns: Stamp of the newest frames, in nanoseconds; 0 for no limit.

        Raises:
            DelayedVlmError: The journal cannot be read.
        """

    def journal_image(self, line_id: int) -> bytes:
        """Return the small JPEG image of a line of the journal; empty if there is none."""

    def mark(self, frame: KeptFrame, label: str) -> None:
        """Protect a pair from eviction, or change its label.

        Raises:
            DelayedVlmError: The pair cannot be marked.
        """

    def unmark(self, frame: KeptFrame) -> None:
        """Remove the protection of a pair.

        Raises:
            DelayedVlmError: The pair cannot be unmarked.
        """

    def ask(
        self, question: Question, on_progress: Callable[[Progress], None], on_done: Callable[[AskOutcome], None]
    ) -> RunningQuestion:
        """Start answering a question.

        Args:
            question: The question and its limits.
            on_progress: Callback for each step, called from any thread.
            on_done: Callback for the result, called once from any thread.
        """

    def watch(self, watch: Watch) -> None:
        """Add a standing question. Adding the same one again changes nothing.

        Raises:
            DelayedVlmError: It cannot be added.
        """

    def unwatch(self, name: str) -> None:
        """Remove a standing question.

        Raises:
            DelayedVlmError: It cannot be removed.
        """
