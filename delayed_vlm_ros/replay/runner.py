"""Replay a recording through a memory, as images reach it on a robot, and ask each question at its time.

The replay needs neither ROS nor a clock. Memory and answers depend only on the recording, the questions and the
settings, not on the speed of the machine. The same holds for the states of watches.
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
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import CONTINUES, SamplingIngestor
from delayed_vlm_ros.ingest.timestamps import LONGEST_GAP_SEC, OUTLIERS_BEFORE_JUMP
from delayed_vlm_ros.memory import AddedFrame, KeptPair, MemoryConfig, SmartFrameManager
from delayed_vlm_ros.replay.answerers import Answerers, pair_key
from delayed_vlm_ros.replay.methods import METHOD_KEYS
from delayed_vlm_ros.replay.question_file import TimedQuestion
from delayed_vlm_ros.replay.recordings import RecordedImage, Recording
from delayed_vlm_ros.replay.result import answer_entries, is_missing, summarise_methods
from delayed_vlm_ros.replay.watching import WatchReplay, summarise_watches
from delayed_vlm_ros.time import NANOSECONDS_PER_SECOND, seconds_of

RESTART = "restart"
CONTINUE = "continue"

_GAP_TOLERANCE_SEC = 1.0  # a question at most this long after the newest image is about that image
_ROUNDING_SEC = 1e-6  # stamps are whole nanoseconds, sums of seconds are rounded
_THUMBNAIL_WIDTH = 160
_THUMBNAIL_QUALITY = 80
_MAX_DROP_REASONS = 20  # counted separately; a broken camera can cause a new reason for every image


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of a replay. The defaults are those of the ``scene_memory`` node.

    Attributes:
        model: Model, as for ``resolve_checkpoint``, or address of one on a server.
        device: Device, as for ``load_model``.
        dtype: Floating-point type, as for ``load_model``.
        remote: Settings for a model on a server.
        methods: Some of ``METHOD_KEYS``.
        memory: Settings of the memory.
        on_time_jump: Effect of a backward time jump on the memory: ``restart`` or ``continue``.
        max_new_tokens: Maximum length of an answer, in tokens.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    methods: tuple[str, ...] = METHOD_KEYS
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    on_time_jump: str = CONTINUE
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Progress:
    """Progress of a replay.

    Attributes:
        images: Number of images read.
        asked: Number of questions asked.
    """

    images: int
    asked: int


class Replay:
    """Replays one recording through one memory, once.

    Args:
        recording: Open recording, at its start.
        questions: Questions in the order of their times.
        memory: Empty memory.
        geometry: Image sizes that the model accepts.
        answerers: Answering methods, which use the same memory.
        settings: Settings of the replay.
        watching: Watches about the recording, with the same memory; None: none.
    """

    def __init__(
        self,
        recording: Recording,
        questions: Sequence[TimedQuestion],
        memory: SmartFrameManager,
        geometry: FrameGeometry,
        answerers: Answerers,
        settings: ReplaySettings,
        watching: WatchReplay | None = None,
    ) -> None:
        self._recording = recording
        self._pending = list(questions)
        self._memory = memory
        self._answerers = answerers
        self._settings = settings
        self._watching = watching
        self._ingestor = SamplingIngestor(
            geometry,
            memory,
            settings.memory.sample_fps,
            topic=recording.topic or recording.name,
            restart_on_jump=settings.on_time_jump == RESTART,
        )
        self._images = self._sampled = 0
        self._dropped: Counter[str] = Counter()  # images by reason
        self._sizes: Counter[str] = Counter()  # sampled images by size
        self._first_ns: int | None = None  # stamp of the first image
        self._offset_sec = 0.0  # replay time minus time since the first stamp; time jumps change it
        self._jumps: list[float] = []
        self._stamps_missing = 0
        self._stamps_frozen = 0
        self._outliers = 0
        self._now = 0.0  # replay time of the newest image: seconds from the first image, without time jumps
        self._arrival_ns = 0  # of the newest image
        self._frame_times: dict[int, list[float]] = {}  # replay times of the frames of each pair, by pair id
        self._abort_reason = ""
        self._timeline: list[dict[str, Any]] = []
        self._pairs: dict[str, dict[str, Any]] = {}
        self._questions: list[dict[str, Any]] = []

    def run(self, on_progress: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Replay the recording and ask the questions.

        Args:
            on_progress: Called after each image and each question.

        Returns:
            Content of the recording's result file, see ``docs/recordings.md``.
        """
        started = time.monotonic()
        try:
            for image in self._recording.images():
                self._images += 1
                try:
                    self._process(image, on_progress)
                except ImageError as error:
                    reason = str(error) if len(self._dropped) < _MAX_DROP_REASONS else "other reasons"
                    self._dropped[reason] += 1
                on_progress(Progress(self._images, len(self._questions)))
        except Exception as error:  # noqa: BLE001  a defect must not lose the answers so far
            self._abort_reason = f"aborted at image {self._images}: {type(error).__name__}: {error}"
        self._ask(len(self._pending), on_progress, at_end=True)
        return self._result(time.monotonic() - started)

    def _process(self, image: RecordedImage, on_progress: Callable[[Progress], None]) -> None:
        if self._first_ns is not None:  # ask first: a time jump at this image may empty the memory
            self._ask(sum(question.due <= self._now + _ROUNDING_SEC for question in self._pending), on_progress)
        stamp_ns = self._ingestor.usable_stamp(image.stamp_ns, image.arrival_ns)
        self._stamps_missing += self._ingestor.stamps_missing
        self._stamps_frozen += self._ingestor.stamps_frozen and not self._ingestor.stamps_missing
        if self._first_ns is None:
            self._first_ns = stamp_ns
        try:
            decision = self._ingestor.decide(stamp_ns, seconds_of(image.arrival_ns), image.arrival_ns)
        except ImageError:
            self._outliers += 1
            return
        now = seconds_of(stamp_ns - self._first_ns) + self._offset_sec
        if decision.jump_sec:
            self._jumps.append(decision.jump_sec)
            if decision.jump_sec < 0 and self._ingestor.restart_on_jump:
                self._answerers.reset()
            # Across a jump, replay time advances by the difference in arrival, unless the recorder's clock jumped, too.
            arrived_after = seconds_of(image.arrival_ns - self._arrival_ns)
            continued = self._now + (arrived_after if 0.0 <= arrived_after <= LONGEST_GAP_SEC else 0.0)
            self._offset_sec += continued - now
            now = continued
        self._ask(sum(question.due < now - _ROUNDING_SEC for question in self._pending), on_progress)
        self._now = max(self._now, now)
        if self._watching is not None:
            self._store_pairs(self._watching.advance(self._now))
        self._arrival_ns = image.arrival_ns
        if not decision.is_due:
            return
        pixels = image.decode()
        added = self._ingestor.add(pixels, decision)
        self._sampled += 1
        self._sizes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        self._answerers.add(self._memory.snapshot()[-1].pair.last)
        self._add_to_timeline(added, now)
        if self._watching is not None:
            self._store_pairs(self._watching.show(decision.stamp))

    def _add_to_timeline(self, added: AddedFrame, at: float) -> None:
        self._frame_times.setdefault(added.pair_id, []).append(at)
        self._timeline.append(
            {
                "at": at,
                "pair": added.pair_id,
                "importance": added.importance,
                "reason": added.reason,
                "in_star": added.in_star,
                "star_frames": added.star_frames,
                "stream_frames": added.stream_frames,
                "kept_bytes": self._memory.statistics().pixel_bytes + self._answerers.cached_bytes,
            }
        )

    def _ask(self, count: int, on_progress: Callable[[Progress], None], *, at_end: bool = False) -> None:
        """Ask the next ``count`` questions. Those about a time after the end of the recording are not scored."""
        for _ in range(count):
            question = self._pending.pop(0)
            request = AskRequest(question.ask, max_new_tokens=self._settings.max_new_tokens)
            answers = self._answerers.answer(request)
            unseen_sec = self._unseen_sec(question.at)
            expect = () if at_end and unseen_sec else question.expect
            self._store_pairs(self._memory.snapshot())
            self._questions.append(
                {
                    "number": len(self._questions) + 1,
                    "at": question.at,
                    "asked_at": self._now,
                    "gap_sec": 0.0 if at_end else unseen_sec,
                    "after_end": bool(at_end and unseen_sec),
                    "ask": question.ask,
                    "expect": list(question.expect),
                    "kind": question.kind,
                    "answers": answer_entries(answers, expect),
                }
            )
            on_progress(Progress(self._images, len(self._questions)))

    def _unseen_sec(self, at: float | None) -> float:
        """Return how long after the newest image a question is; 0.0 within the tolerance."""
        return 0.0 if at is None or at <= self._now + _GAP_TOLERANCE_SEC else at - self._now

    def _store_pairs(self, kept: Iterable[KeptPair]) -> None:
        for one in kept:
            key = pair_key(one)
            if key in self._pairs:
                continue
            self._pairs[key] = {
                "at": self._frame_times[one.id][: one.frame_count],
                "importance": one.importance,
                "reason": one.reason,
                "content_key": one.content_key.hex(),
                "thumbnail": _thumbnail(one),
            }

    def _result(self, seconds: float) -> dict[str, Any]:
        kept = self._memory.snapshot()
        self._store_pairs(kept)
        recording = self._recording
        watches = [] if self._watching is None else self._watching.results(self._now)
        return {
            "complete": self._is_complete(),
            "warnings": self._warnings(),
            "recording": {
                "name": recording.name,
                "kind": recording.kind,
                "topic": recording.topic,
                "images": self._images,
                "sampled": self._sampled,
                "dropped": sum(self._dropped.values()),
                "drop_reasons": dict(self._dropped),
                "first_stamp": None if self._first_ns is None else self._first_ns / NANOSECONDS_PER_SECOND,
                "duration_sec": self._now,
                "sizes": dict(self._sizes),
                "warnings": list(recording.warnings),
            },
            "timeline": self._timeline,
            "pairs": self._pairs,
            "kept": [{"pair": pair_key(one), "in_star": one.in_star, "in_stream": one.in_stream} for one in kept],
            "questions": self._questions,
            "summary": summarise_methods(self._questions),
            "watches": watches,
            "watch_summary": summarise_watches(watches, self._watching.failures if self._watching else {}),
            "seconds": seconds,
        }

    def _is_complete(self) -> bool:
        """Return whether no image was lost and no answer is missing."""
        expected_outliers = OUTLIERS_BEFORE_JUMP * len(self._jumps)
        lost = self._dropped.total() + self._outliers - expected_outliers
        is_interrupted = bool(self._recording.warnings or self._abort_reason)
        lacks_outcomes = bool(self._missing_answer_warnings() or (self._watching and self._watching.failures))
        return bool(self._sampled and lost <= 0 and not is_interrupted and not lacks_outcomes)

    def _warnings(self) -> list[str]:
        return [
            *self._recording.warnings,
            *([self._abort_reason] if self._abort_reason else []),
            *self._image_warnings(),
            *self._time_warnings(),
            *self._size_warnings(),
            *self._question_warnings(),
            *self._missing_answer_warnings(),
            *([] if self._watching is None else self._watching.warnings(self._now)),
        ]

    def _image_warnings(self) -> list[str]:
        warnings = [f"{count} images dropped: {reason}" for reason, count in self._dropped.items()]
        if not self._sampled:
            warnings.append("the recording has no usable image")
        if self._stamps_missing:
            warnings.append(f"{self._stamps_missing} images without stamps: their recording times are used")
        if self._stamps_frozen:
            warnings.append(
                f"{self._stamps_frozen} images with stamps that do not advance: their recording times are used"
            )
        return warnings

    def _time_warnings(self) -> list[str]:
        warnings = []
        if self._ingestor.images_missed:
            warnings.append(
                f"{self._ingestor.images_missed} images were due by recording time but not by stamp: check the clock; "
                "a recording made of slowed-down playback is sampled by its stamps"
            )
        if self._outliers:
            warnings.append(
                f"{self._outliers} images skipped, because their stamps are out of sequence: check the clock"
            )
        back = [-jump for jump in self._jumps if jump < 0]
        if back:
            effect = self._ingestor.backward_jump_effect
            warnings.append(f"{len(back)} backward time jumps, {sum(back):.3f} s in total: {effect}")
        ahead = [jump for jump in self._jumps if jump > 0]
        if ahead:
            warnings.append(f"{len(ahead)} forward time jumps, {sum(ahead):.3f} s in total: {CONTINUES}")
        return warnings

    def _size_warnings(self) -> list[str]:
        if len(self._sizes) <= 1:
            return []
        sizes = ", ".join(f"{count} of {size}" for size, count in self._sizes.most_common())
        return [f"images of several sizes ({sizes}): those of another shape than the first one are letterboxed"]

    def _question_warnings(self) -> list[str]:
        warnings = [
            f"question {question['number']} is due at {question['at']:g} s, but the recording ends at "
            f"{self._now:.1f} s: it was asked at the end and is not scored"
            for question in self._questions
            if question["after_end"]
        ]
        warnings += [
            f"question {question['number']} at {question['at']:g} s falls into a gap of the recording: it was asked "
            f"{question['gap_sec']:.1f} s after the newest image and is scored"
            for question in self._questions
            if question["gap_sec"]
        ]
        first_skipped: dict[str, int] = {}
        for question in self._questions:
            for method, answer in question["answers"].items():
                if answer["skipped"]:
                    first_skipped.setdefault(f"{method}: {answer['error']}", question["number"])
        warnings += [f"skipped from question {number} on by {reason}" for reason, number in first_skipped.items()]
        return warnings

    def _missing_answer_warnings(self) -> list[str]:
        return [
            f"question {question['number']} has no answer by {method}: {answer['error']}"
            for question in self._questions
            for method, answer in question["answers"].items()
            if is_missing(answer)
        ]


def _thumbnail(kept: KeptPair) -> str:
    """Return the more important frame of a pair as a base64 JPEG."""
    image = kept.pair.important_frame.image
    height, width = image.shape[:2]
    size = (_THUMBNAIL_WIDTH, max(1, round(height * _THUMBNAIL_WIDTH / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if width > size[0] else cv2.INTER_LINEAR)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode()
