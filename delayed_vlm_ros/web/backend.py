"""What the page needs of a scene memory, whether it lives in another node or in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from delayed_vlm_ros.inference.progress import Progress

ALL_CAMERAS = "*"
"""In a question: every camera, one after the other."""


class Level(Enum):
    """How a part of the system is, worst last."""

    OK = "ok"
    WARN = "warn"
    STALE = "stale"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A kept pair of frames.

    Attributes:
        id: Its name for the life of the memory.
        camera: Whose it is.
        stamp_ns: Time of its first image, nanoseconds on the camera's clock.
        end_stamp_ns: Time of its second image; equal while that has not come.
        importance: 0 … 1.
        reason: Why it is notable; empty when it is not.
        in_star: Whether it is one of the key frames of the whole past.
        in_stream: Whether it is one of the newest.
        marked: Whether it is protected.
        label: What it was marked as.
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
        """Names its images: an id alone comes again when the memory's node is started again."""
        return f"{self.id}-{self.stamp_ns}"


@dataclass(frozen=True, slots=True)
class MemoryCounts:
    """What is kept of a camera. Sizes count frames, two to a moment.

    Attributes:
        added: Frames taken into the memory since it began.
        unique: Frames kept in either memory.
        star: In Star memory.
        stream: In Stream memory.
        compression_ratio: Frames added for each one kept; 0 when empty.
        pixel_bytes: Images.
        feature_bytes: Vision features kept between asks.
        kv_bytes: KV cache kept between asks.
        budget_bytes: Upper bound of the three together; 0: none.
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
class CameraState:
    """A camera with its memory.

    Attributes:
        name: The camera's.
        topic: Where its images come from, for people.
        input_rate_hz: Images a second over the last seconds.
        sampled_rate_hz: Of these, taken into memory.
        dropped: Images that were due for memory and could not be used, since the start.
        newest_age_sec: Age of the newest kept frame; None when there is none.
        kept: Counts and bytes.
        moments: All that is kept, oldest first.
    """

    name: str
    topic: str = ""
    input_rate_hz: float = 0.0
    sampled_rate_hz: float = 0.0
    dropped: int = 0
    newest_age_sec: float | None = None
    counts: MemoryCounts = MemoryCounts()
    frames: tuple[KeptFrame, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """How one part of the system is, in a sentence."""

    name: str
    level: Level
    message: str


@dataclass(frozen=True, slots=True)
class Latency:
    """What one answer took: seconds to its first token, and in all."""

    first_token_sec: float
    total_sec: float


@dataclass(frozen=True, slots=True)
class SceneState:
    """The whole, at one moment.

    Attributes:
        connected: Whether the memory is heard of.
        waiting_for: What is being waited for while it is not, and what to do, in a sentence.
        now_ns: The time on the cameras' clock, nanoseconds.
        cameras: The first one is asked when a question names none.
        conditions: How its parts are.
        model: Name or path of the checkpoint.
        model_state: unloaded, loading, ready or failed.
        device: Where it runs.
        asks_served: Answers given.
        asks_failed: Asks that ended with an error.
        latencies: Of the latest answers, oldest first.
    """

    connected: bool
    waiting_for: str = ""
    now_ns: int = 0
    cameras: tuple[CameraState, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    model: str = ""
    model_state: str = ""
    device: str = ""
    asks_served: int = 0
    asks_failed: int = 0
    latencies: tuple[Latency, ...] = ()

    def camera(self, name: str) -> CameraState | None:
        """The camera of that name; without a name the first one; None where there is none."""
        if not name:
            return self.cameras[0] if self.cameras else None
        return next((camera for camera in self.cameras if camera.name == name), None)


@dataclass(frozen=True, slots=True)
class LiveImage:
    """A camera's newest image, scaled for the page.

    Attributes:
        number: Counts the camera's images that were made for the page.
        jpeg: The image.
        width: Of the camera's own image, pixels.
        height: Likewise.
    """

    number: int
    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class KeptFrameImages:
    """The images of a kept pair, as JPEG; the second one is empty while it has not come."""

    first: bytes
    second: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its limits.

    Attributes:
        text: The question.
        camera: Which camera; empty: the first; ``*``: all.
        last_sec: Only the newest so many seconds; 0: everything.
        since_ns: Only moments from this stamp on; 0: unbounded.
        until_ns: Only moments up to this stamp; 0: unbounded.
    """

    text: str
    camera: str = ""
    last_sec: float = 0.0
    since_ns: int = 0
    until_ns: int = 0


@dataclass(frozen=True, slots=True)
class AnswerCost:
    """What an answer cost: seconds, and frames."""

    first_token_sec: float
    total_sec: float
    frames_encoded: int
    frames_reused: int


@dataclass(frozen=True, slots=True)
class AskOutcome:
    """How an ask has ended.

    Attributes:
        answer: The answer; what there was of it when it was stopped.
        error: What went wrong and what to do; empty when nothing did.
        was_stopped: Whether it was stopped by whoever asked.
        moments: What the answer is based on.
        cost: None when there is no answer.
        notices: In which ways it is less than it should be.
    """

    answer: str = ""
    error: str = ""
    was_stopped: bool = False
    frames_used: tuple[KeptFrame, ...] = ()
    cost: AnswerCost | None = None
    warnings: tuple[str, ...] = ()


class RunningQuestion(Protocol):
    """An ask on its way."""

    def stop(self) -> None:
        """Ask it to end; its outcome comes as ever. From any thread; more than once does no harm."""


class Backend(Protocol):
    """A scene memory, as the page sees it. All of it may be called from any thread.

    ``state`` and ``ask`` return at once, the others may take a while.
    """

    def state(self) -> SceneState:
        """How things are now."""

    def live_image(self, camera: str) -> LiveImage | None:
        """The camera's newest image; None while there is none. Whoever goes on calling it is watching."""

    def images(self, ids: Sequence[int]) -> Mapping[str, KeptFrameImages]:
        """Images of kept moments by their keys; what is no longer kept is left out."""

    def mark(self, moment: KeptFrame, label: str) -> None:
        """Protect a moment.

        Raises:
            DelayedVlmError: Why it cannot be done.
        """

    def unmark(self, moment: KeptFrame) -> None:
        """Take the protection off.

        Raises:
            DelayedVlmError: Why it cannot be done.
        """

    def ask(
        self, question: Question, progress: Callable[[Progress], None], ended: Callable[[AskOutcome], None]
    ) -> RunningQuestion:
        """Put a question.

        Args:
            question: The question.
            progress: Told of each step, from some thread.
            ended: Told once how it has ended, from some thread.
        """
