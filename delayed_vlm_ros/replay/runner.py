"""A recording through a delayed memory, as a camera's images go on a robot, with each question asked at its time.

No ROS runs, and no clock: what is remembered and answered depends on the recording, its questions and the settings
alone, however fast the machine is.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2

from delayed_vlm_ros.errors import ImageError
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.ingest.timestamps import OUTLIERS_BEFORE_JUMP
from delayed_vlm_ros.memory import AddedFrame, KeptPair, MemoryConfig, SmartFrameManager
from delayed_vlm_ros.replay.answerers import METHODS, Methods, pair_key
from delayed_vlm_ros.replay.question_file import TimedQuestion
from delayed_vlm_ros.replay.recordings import RecordedImage, Recording
from delayed_vlm_ros.replay.result import is_lacking, judged, summary
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of

RESTART = "restart"
CONTINUE = "continue"

_END_SEC = 1.0  # a recording goes on so long behind its last image
_ROUNDING_SEC = 1e-6  # stamps are whole nanoseconds, and sums of seconds are not
_THUMBNAIL_WIDTH = 160
_THUMBNAIL_QUALITY = 80
_MOST_DROP_REASONS = 20  # told one by one; a broken camera may invent a new one for every image


@dataclass(frozen=True)
class ReplaySettings:
    """How recordings are replayed; the defaults are the node's.

    Attributes:
        model: As for ``resolve_checkpoint``.
        device: As for ``load_model``.
        dtype: As for ``load_model``.
        methods: Some of ``METHODS``.
        memory: Settings of the memory.
        on_time_jump: ``restart`` or ``continue``: what becomes of the memory when a recording's time goes back.
        max_new_tokens: Length limit of an answer, in tokens.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    methods: tuple[str, ...] = METHODS
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    on_time_jump: str = CONTINUE
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Progress:
    """How far a replay is.

    Attributes:
        images: Images gone through.
        asked: Questions asked.
    """

    images: int
    asked: int


class Replay:
    """One recording through one memory.

    Args:
        recording: Open, at its beginning.
        questions: In the order of their times.
        memory: Empty.
        geometry: What image sizes the model takes.
        methods: What answers, over the same memory.
        settings: How.
    """

    def __init__(
        self,
        recording: Recording,
        questions: Sequence[TimedQuestion],
        memory: SmartFrameManager,
        geometry: FrameGeometry,
        methods: Methods,
        settings: ReplaySettings,
    ) -> None:
        self._recording = recording
        self._waiting = list(questions)
        self._memory = memory
        self._methods = methods
        self._settings = settings
        topic = recording.topic or recording.name
        restarts = settings.on_time_jump == RESTART
        self._ingestor = SamplingIngestor(
            geometry, memory, settings.memory.sample_fps, topic=topic, restart_on_jump=restarts
        )
        self._images = self._sampled = 0
        self._dropped: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._first_ns: int | None = None
        self._shift_sec = 0.0  # from an image's stamp to its time in the recording, whatever has jumped before
        self._jumps: list[float] = []
        self._stamps_missing = 0
        self._stamps_still = 0
        self._strays = 0  # stamps that fit neither the present time nor a new one
        self._at = 0.0  # the newest image's time from the first one, however often time has jumped
        self._arrival_ns = 0  # the newest image's
        self._shown_at: dict[int, list[float]] = {}  # of the frames of each pair
        self._stopped = ""
        self._timeline: list[dict[str, Any]] = []
        self._pairs: dict[str, dict[str, Any]] = {}
        self._asked: list[dict[str, Any]] = []

    def run(self, told: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Go through the recording and ask.

        Args:
            told: Called after each image and each question.

        Returns:
            What a recording's JSON file holds; see ``docs/recordings.md``.
        """
        started = time.monotonic()
        try:
            for image in self._recording.images():
                self._images += 1
                try:
                    self._take(image, told)
                except ImageError as error:
                    reason = str(error) if len(self._dropped) < _MOST_DROP_REASONS else "other reasons"
                    self._dropped[reason] += 1
                told(Progress(self._images, len(self._asked)))
        except Exception as error:  # noqa: BLE001  a defect must not cost what has been answered by now
            self._stopped = f"stopped at image {self._images}: {type(error).__name__}: {error}"
        self._ask(len(self._waiting), told)
        return self._result(time.monotonic() - started)

    def _take(self, image: RecordedImage, told: Callable[[Progress], None]) -> None:
        if self._first_ns is not None:  # before time may jump and take away what they are about
            self._ask(sum(question.due <= self._at + _ROUNDING_SEC for question in self._waiting), told)
        stamp_ns = self._ingestor.usable_stamp(image.stamp_ns, image.arrival_ns)
        self._stamps_missing += self._ingestor.stamps_missing
        self._stamps_still += self._ingestor.stamps_frozen and not self._ingestor.stamps_missing
        if self._first_ns is None:
            self._first_ns = stamp_ns
        try:
            decision = self._ingestor.decide(stamp_ns, seconds_of(image.arrival_ns), image.arrival_ns)
        except ImageError:
            self._strays += 1
            return
        at = seconds_of(stamp_ns - self._first_ns) + self._shift_sec
        if decision.jump_sec:
            self._jumps.append(decision.jump_sec)
            if decision.jump_sec < 0 and self._ingestor.restart_on_jump:
                self._methods.begin_anew()
            # As much later as it came later.
            follows = self._at + max(0.0, seconds_of(image.arrival_ns - self._arrival_ns))
            self._shift_sec += follows - at
            at = follows
        self._ask(sum(question.due < at - _ROUNDING_SEC for question in self._waiting), told)
        self._at = max(self._at, at)
        self._arrival_ns = image.arrival_ns
        if not decision.is_due:
            return
        pixels = image.decode()
        added = self._ingestor.add(pixels, decision)
        self._sampled += 1
        self._sizes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        self._methods.add(self._memory.snapshot()[-1].pair.last)
        self._note(added, at)

    def _note(self, added: AddedFrame, at: float) -> None:
        self._shown_at.setdefault(added.pair_id, []).append(at)
        statistics = self._memory.statistics()
        self._timeline.append(
            {
                "at": at,
                "pair": added.pair_id,
                "importance": added.importance,
                "reason": added.reason,
                "in_star": added.in_star,
                "star_frames": added.star_frames,
                "stream_frames": added.stream_frames,
                "kept_bytes": statistics.pixel_bytes + self._methods.cached_bytes,
            }
        )

    def _ask(self, count: int, told: Callable[[Progress], None]) -> None:
        """Ask the next questions."""
        for _ in range(count):
            question = self._waiting.pop(0)
            request = AskRequest(question.ask, max_new_tokens=self._settings.max_new_tokens)
            answers = self._methods.answers(request)
            right = question.expect if self._reaches(question.at) else ()
            self._remember_pairs(self._memory.snapshot())
            self._asked.append(
                {
                    "number": len(self._asked) + 1,
                    "at": question.at,
                    "asked_at": self._at,
                    "ask": question.ask,
                    "expect": list(question.expect),
                    "kind": question.kind,
                    "answers": judged(answers, right),
                }
            )
            told(Progress(self._images, len(self._asked)))

    def _reaches(self, at: float | None) -> bool:
        """Whether the recording goes on so long: an answer about a time that it does not show is not judged."""
        return at is None or at <= self._at + _END_SEC

    def _remember_pairs(self, kept: Iterable[KeptPair]) -> None:
        for one in kept:
            if pair_key(one) in self._pairs:
                continue
            self._pairs[pair_key(one)] = {
                "at": self._shown_at[one.id][: one.frame_count],
                "importance": one.importance,
                "reason": one.reason,
                "content_key": one.content_key.hex(),
                "thumbnail": _thumbnail(one),
            }

    def _result(self, seconds: float) -> dict[str, Any]:
        kept = self._memory.snapshot()
        self._remember_pairs(kept)
        recording = self._recording
        problems = self._problems()
        return {
            "complete": self._is_complete(),
            "problems": problems,
            "recording": {
                "name": recording.name,
                "kind": recording.kind,
                "topic": recording.topic,
                "images": self._images,
                "sampled": self._sampled,
                "dropped": sum(self._dropped.values()),
                "drop_reasons": dict(self._dropped),
                "first_stamp": None if self._first_ns is None else self._first_ns / NANOSECONDS_PER_SECOND,
                "duration_sec": self._at,
                "sizes": dict(self._sizes),
                "warnings": list(recording.warnings),
            },
            "timeline": self._timeline,
            "pairs": self._pairs,
            "kept": [{"pair": pair_key(one), "in_star": one.in_star, "in_stream": one.in_stream} for one in kept],
            "questions": self._asked,
            "summary": summary(self._asked),
            "seconds": seconds,
        }

    def _is_complete(self) -> bool:
        """Whether all images could be used and all questions answered."""
        # It takes some strays to tell that time has jumped.
        lost = self._dropped.total() + self._strays - OUTLIERS_BEFORE_JUMP * len(self._jumps)
        return bool(self._sampled and lost <= 0 and not (self._recording.warnings or self._stopped or self._failed()))

    def _failed(self) -> list[str]:
        """The answers that are missing."""
        return [
            f"question {asked['number']} has no answer by {method}: {answer['error']}"
            for asked in self._asked
            for method, answer in asked["answers"].items()
            if is_lacking(answer)
        ]

    def _skipped(self) -> list[str]:
        """What was not asked by a rule, each method once."""
        told: dict[str, list[int]] = {}
        for asked in self._asked:
            for method, answer in asked["answers"].items():
                if answer["skipped"]:
                    told.setdefault(f"{method}: {answer['error']}", []).append(asked["number"])
        return [f"not put to {what} (from question {numbers[0]} on)" for what, numbers in told.items()]

    def _problems(self) -> list[str]:
        recording = self._recording
        problems = [*recording.warnings, *([self._stopped] if self._stopped else [])]
        problems += [f"{count} images dropped: {reason}" for reason, count in self._dropped.items()]
        if not self._sampled:
            problems.append("no image of the recording could be used")
        if self._stamps_missing:
            problems.append(
                f"{self._stamps_missing} images without time stamps: the times at which they were recorded are used"
            )
        if self._stamps_still:
            problems.append(
                f"{self._stamps_still} images with stamps that do not advance: the times at which they were recorded "
                "are used"
            )
        if self._ingestor.images_missed:
            problems.append(
                f"{self._ingestor.images_missed} images were due by the times at which they were recorded, but not by "
                "their stamps: check the clock; a recording of one that was played slowly is sampled by its stamps"
            )
        if self._strays:
            problems.append(
                f"{self._strays} images passed over, as their stamps do not follow those before: check the clock"
            )
        back = [-jump for jump in self._jumps if jump < 0]
        if back:
            effect = self._ingestor.backward_jump_effect
            problems.append(f"time has gone back {len(back)} times, by {sum(back):.3f} s in all: {effect}")
        ahead = [jump for jump in self._jumps if jump > 0]
        if ahead:
            problems.append(
                f"time has leapt ahead {len(ahead)} times, by {sum(ahead):.3f} s in all: questions are asked as if it "
                "had not, and the model is told of the gap"
            )
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{count} of {size}" for size, count in self._sizes.most_common())
            problems.append(f"images of several sizes ({sizes}): those unlike the first one have bars at their sides")
        late = [asked for asked in self._asked if not self._reaches(asked["at"])]
        problems += [
            f"question {asked['number']} was to be asked at {asked['at']:g} s, and the recording ends at "
            f"{self._at:.1f} s: it was asked at the end, and is not judged"
            for asked in late
        ]
        return problems + self._skipped() + self._failed()


def _thumbnail(kept: KeptPair) -> str:
    image = kept.pair.important_frame.image
    height, width = image.shape[:2]
    size = (_THUMBNAIL_WIDTH, max(1, round(height * _THUMBNAIL_WIDTH / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if width > size[0] else cv2.INTER_LINEAR)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode()
