"""A recording through a delayed memory, as a camera's pictures go on a robot, with each question asked at its time.

No ROS runs, and no clock: what is remembered and answered depends on the recording, its questions and the settings
alone, however fast the machine is.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2

from delayed_vlm_ros.errors import PictureError
from delayed_vlm_ros.evaluation.methods import METHODS, Methods
from delayed_vlm_ros.evaluation.replay_result import judged, summary
from delayed_vlm_ros.evaluation.timed_questions import TimedQuestion
from delayed_vlm_ros.memory import AddedFrame, FrameSampler, KeptPair, SmartFrameManager
from delayed_vlm_ros.memory.feed import FrameFeed
from delayed_vlm_ros.memory.intake import FrameGeometry, FrameIntake
from delayed_vlm_ros.memory.limits import usual_eviction_chunk
from delayed_vlm_ros.recordings import RecordedPicture, Recording
from delayed_vlm_ros.stamps import NANOSECONDS_PER_SECOND, seconds_of
from delayed_vlm_ros.vlm.request import AskRequest

RESTART = "restart"
CONTINUE = "continue"

_THUMBNAIL_WIDTH = 160
_THUMBNAIL_QUALITY = 80
_MOST_DROP_REASONS = 20  # told one by one; a broken camera may invent a new one for every picture


@dataclass(frozen=True)
class ReplaySettings:
    """How recordings are replayed; the defaults are the node's.

    Attributes:
        model: As for ``resolve_checkpoint``.
        device: As for ``load_model``.
        dtype: As for ``load_model``.
        methods: Some of ``METHODS``.
        star_memory_size: Key frames over the whole past, in frames.
        stream_window_size: Newest frames, in frames.
        importance_threshold: Importance from which a frame is a key frame, 0 … 1.
        sample_fps: Frames remembered per second.
        max_pixels: Largest height × width of a remembered frame.
        eviction_chunk: Frames that leave a full memory at once; -1: a third of the smaller memory.
        on_time_jump: ``restart`` or ``continue``: what becomes of the memory when a recording's time goes back.
        max_new_tokens: Length limit of an answer, in tokens.
    """

    model: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    methods: tuple[str, ...] = METHODS
    star_memory_size: int = 20
    stream_window_size: int = 20
    importance_threshold: float = 0.6
    sample_fps: float = 2.0
    max_pixels: int = 4 * 224 * 224
    eviction_chunk: int = -1
    on_time_jump: str = CONTINUE
    max_new_tokens: int = 128


@dataclass(frozen=True)
class Progress:
    """How far a replay is.

    Attributes:
        pictures: Pictures gone through.
        asked: Questions asked.
    """

    pictures: int
    asked: int


def memory_of(settings: ReplaySettings) -> SmartFrameManager:
    """An empty memory, as the node would make it.

    Raises:
        ConfigurationError: Its sizes or its chunk cannot work.
    """
    star, stream = settings.star_memory_size, settings.stream_window_size
    chunk = settings.eviction_chunk if settings.eviction_chunk >= 0 else usual_eviction_chunk(star, stream)
    return SmartFrameManager(star, stream, settings.importance_threshold, eviction_chunk=chunk)


class Replay:
    """One recording through one memory.

    Args:
        recording: Open, at its beginning.
        questions: In the order of their times.
        memory: Empty; see ``memory_of``.
        geometry: What picture sizes the model takes.
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
        sampler = FrameSampler(settings.sample_fps)
        self._feed = FrameFeed(FrameIntake(geometry, memory), sampler, topic, restarts=restarts)
        self._pictures = self._sampled = 0
        self._dropped: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._first_ns: int | None = None
        self._back_sec = 0.0  # in all
        self._jumps = 0
        self._stamps_missing = 0
        self._strays = 0  # stamps that fit neither the present time nor a new one
        self._at = 0.0  # the newest picture's time from the first one, however often time has gone back
        self._timeline: list[dict[str, Any]] = []
        self._pairs: dict[str, dict[str, Any]] = {}
        self._asked: list[dict[str, Any]] = []

    def run(self, told: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Go through the recording and ask.

        Args:
            told: Called after each picture and each question.

        Returns:
            What a recording's JSON file holds; see ``docs/recordings.md``.
        """
        started = time.monotonic()
        for picture in self._recording.pictures():
            self._pictures += 1
            try:
                self._take(picture, told)
            except PictureError as error:
                reason = str(error) if len(self._dropped) < _MOST_DROP_REASONS else "other reasons"
                self._dropped[reason] += 1
            told(Progress(self._pictures, len(self._asked)))
        self._ask(len(self._waiting), told)
        return self._result(time.monotonic() - started)

    def _take(self, picture: RecordedPicture, told: Callable[[Progress], None]) -> None:
        stamp_ns = picture.stamp_ns
        if stamp_ns == 0:
            self._stamps_missing += 1
            stamp_ns = picture.arrival_ns
        if self._first_ns is None:
            self._first_ns = stamp_ns
        try:
            place = self._feed.place(stamp_ns, seconds_of(picture.arrival_ns))
        except PictureError:
            self._strays += 1
            return
        if place.back_sec:
            self._jumps += 1
            self._back_sec += place.back_sec
            if self._feed.restarts:
                self._methods.begin_anew()
        at = seconds_of(stamp_ns - self._first_ns) + self._back_sec
        # A picture's own time is not past yet: it is the next question's to be asked before it.
        self._ask(sum(question.due < at for question in self._waiting), told)
        self._at = max(self._at, at)
        if not place.is_due:
            return
        pixels = picture.decode()
        added = self._feed.add(pixels, place)
        self._sampled += 1
        self._sizes[f"{pixels.shape[1]}x{pixels.shape[0]}"] += 1
        self._methods.add(self._memory.snapshot()[-1].pair.last)
        self._note(added, at)

    def _note(self, added: AddedFrame, at: float) -> None:
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
            self._remember_pairs(self._memory.snapshot())
            self._asked.append(
                {
                    "number": len(self._asked) + 1,
                    "at": question.at,
                    "asked_at": self._at,
                    "ask": question.ask,
                    "expect": list(question.expect),
                    "kind": question.kind,
                    "answers": judged(answers, question.expect),
                }
            )
            told(Progress(self._pictures, len(self._asked)))

    def _remember_pairs(self, kept: Iterable[KeptPair]) -> None:
        # A memory that goes on has taken the jumps into its stamps; one that began anew has only what came after them.
        began = seconds_of(self._first_ns or 0) - (self._back_sec if self._feed.restarts else 0.0)
        for one in kept:
            known = self._pairs.get(str(one.id))
            if known is not None and known["frames"] == one.frame_count:
                continue
            self._pairs[str(one.id)] = {
                "at": [stamp - began for stamp in one.stamps],
                "frames": one.frame_count,
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
            "complete": not (recording.damage or self._dropped or not self._sampled or self._failed()),
            "problems": problems,
            "recording": {
                "name": recording.name,
                "kind": recording.kind,
                "topic": recording.topic,
                "pictures": self._pictures,
                "sampled": self._sampled,
                "dropped": sum(self._dropped.values()),
                "drop_reasons": dict(self._dropped),
                "first_stamp": None if self._first_ns is None else self._first_ns / NANOSECONDS_PER_SECOND,
                "duration_sec": self._at,
                "sizes": dict(self._sizes),
                "damage": recording.damage,
            },
            "timeline": self._timeline,
            "pairs": self._pairs,
            "kept": [{"pair": one.id, "in_star": one.in_star, "in_stream": one.in_stream} for one in kept],
            "questions": self._asked,
            "summary": summary(self._asked),
            "seconds": seconds,
        }

    def _failed(self) -> list[str]:
        """Questions without an answer by the method that matters, the first one."""
        return [
            f"question {asked['number']} has no answer: {error}"
            for asked in self._asked
            for error in [next(iter(asked["answers"].values()))["error"]]
            if error
        ]

    def _problems(self) -> list[str]:
        recording = self._recording
        problems = [recording.damage] if recording.damage else []
        problems += [f"{count} pictures dropped: {reason}" for reason, count in self._dropped.items()]
        if not self._sampled:
            problems.append("no picture of the recording could be used")
        if self._stamps_missing:
            problems.append(
                f"{self._stamps_missing} pictures without time stamps: the times at which they were recorded are used"
            )
        if self._strays:
            problems.append(
                f"{self._strays} pictures passed over, as their stamps do not follow those before: check the clock"
            )
        if self._jumps:
            problems.append(
                f"time has gone back {self._jumps} times, by {self._back_sec:.3f} s in all: {self._feed.outcome}"
            )
        if len(self._sizes) > 1:
            sizes = ", ".join(f"{count} of {size}" for size, count in self._sizes.most_common())
            problems.append(f"pictures of several sizes ({sizes}): those unlike the first one have bars at their sides")
        late = [asked for asked in self._asked if asked["at"] is not None and asked["at"] > self._at]
        problems += [
            f"question {asked['number']} was to be asked at {asked['at']:g} s, and the recording ends at "
            f"{self._at:.1f} s: it was asked at the end"
            for asked in late
        ]
        return problems + self._failed()


def _thumbnail(kept: KeptPair) -> str:
    image = kept.pair.important_frame.image
    height, width = image.shape[:2]
    size = (_THUMBNAIL_WIDTH, max(1, round(height * _THUMBNAIL_WIDTH / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if width > size[0] else cv2.INTER_LINEAR)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _THUMBNAIL_QUALITY])[1]
    return base64.b64encode(encoded.tobytes()).decode()
