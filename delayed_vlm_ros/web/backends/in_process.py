"""Backend in this process: a video file or webcam, the memory and the model. Needs no ROS."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.errors import AskCancelledError, AskTimeoutError, BusyError, DelayedVlmError, UnknownCameraError
from delayed_vlm_ros.export.contents import JournalLine
from delayed_vlm_ros.images.encoding import encode_jpeg, encode_live_jpeg, encode_png, encode_thumbnail
from delayed_vlm_ros.images.video import is_stream
from delayed_vlm_ros.images.video_player import RETRY_SEC, VideoPlayer
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.moments import FoundMoments, Moment, MomentSearch
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.remote.model import server_check
from delayed_vlm_ros.inference.remote.settings import RemoteSettings
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.ingest.rate import RateWindow, SilenceWatch
from delayed_vlm_ros.memory import Activity, KeptPair, MemoryConfig, SmartFrameManager
from delayed_vlm_ros.time import seconds_of
from delayed_vlm_ros.watches import Watch
from delayed_vlm_ros.web.backend import (
    ALL_CAMERAS,
    MAX_ANSWERS,
    AnswerCost,
    AnsweredQuestion,
    AskOutcome,
    CameraState,
    Diagnostic,
    EvidenceFrame,
    FoundMoment,
    KeptFrame,
    KeptFrameImages,
    Latency,
    Level,
    LiveImage,
    MemoryCounts,
    Question,
    SceneState,
    SearchOutcome,
)
from delayed_vlm_ros.web.backends.in_process_model import LoadedModel, load_engine, resolve_model
from delayed_vlm_ros.web.backends.in_process_watches import InProcessWatches
from delayed_vlm_ros.web.camera_record import CameraRecord

_LOGGER = logging.getLogger(__name__)

_QUEUE_SIZE = 8
_WATCHES = "watches"  # name of the worker's idle task
_TIMEOUT_SEC = 300.0
_CLOSE_TIMEOUT_SEC = 0.5
_MAX_LATENCIES = 100


@dataclass(frozen=True)
class InProcessSettings:
    """Settings of ``InProcessBackend``.

    Attributes:
        video: Path of a video file, or a camera device.
        loop: Whether to repeat a file at its end.
        model: Checkpoint, as for ``resolve_checkpoint``, or address of a model server.
        device: Device of the model: ``auto``, ``cpu`` or ``cuda[:N]``.
        memory: Settings of the memory.
        remote: Settings for a model server.
    """

    video: str
    loop: bool = False
    model: str = "auto"
    device: str = "auto"
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    remote: RemoteSettings = field(default_factory=RemoteSettings)


def _camera_name(player: VideoPlayer, video: str) -> str:
    if not player.is_device:
        return "video"
    return "stream" if is_stream(video) else "webcam"


def _log_failure(error: Exception | None) -> None:
    if error is not None:
        _LOGGER.error("video playback stopped", exc_info=error)


def search_in_parts(worker: ModelWorker[LoadedModel], search: MomentSearch, timeout_sec: float) -> FoundMoments:
    """Run a search, which pauses after a pair while a question waits, and return what was found until the deadline.

    Args:
        worker: Owner of the model.
        search: The search.
        timeout_sec: Deadline in seconds from now.

    Raises:
        AskTimeoutError: The deadline passed before a pair was searched.
        BusyError: The queue is full, and no pair was searched.
        DelayedVlmError: As for ``ModelWorker.run`` and ``MomentSearch.step``.
    """
    deadline = time.monotonic() + timeout_sec

    def search_until_awaited(loaded: LoadedModel, control: AskControl) -> None:
        search.step(loaded.engine, control)
        while not search.is_complete and not worker.status.waiting:
            search.step(loaded.engine, control)

    try:
        while not search.is_complete:
            worker.run(search_until_awaited, max(0.0, deadline - time.monotonic()))
    except (AskTimeoutError, BusyError) as error:
        found = search.found(
            f"stopped early ({error}), not searched: {search.pairs_left} older key frames. Search again later"
        )
        if not found.pairs_searched:
            raise
        return found
    return search.found()


class InProcessBackend:
    """The ``Backend`` of one camera in this process, from ``start()`` to ``close()``.

    Stamps are the wall-clock times at which the images are played, so they also increase when a video repeats.

    Args:
        settings: Video, model and memory.

    Raises:
        DelayedVlmError: The video, the model or the memory settings are invalid.
    """

    def __init__(self, settings: InProcessSettings) -> None:
        self._settings = settings
        self._model = resolve_model(settings.model, settings.device, settings.remote)
        self._memory = settings.memory.build()
        self._ingestor = SamplingIngestor(
            self._model.geometry(settings.memory.max_pixels),
            self._memory,
            settings.memory.sample_fps,
            topic=settings.video,
            restart_on_jump=False,
        )
        self._player = VideoPlayer(settings.video, self._on_image, loop=settings.loop, on_finish=_log_failure)
        self._camera_name = _camera_name(self._player, settings.video)
        self._newest: tuple[int, NDArray[np.uint8]] | None = None
        self._live: LiveImage | None = None
        self._silence = SilenceWatch(time.monotonic())
        self._input_rate, self._sampled_rate = RateWindow(), RateWindow()
        self._dropped = 0
        self._counting = threading.Lock()
        self._served = self._failed = 0
        self._latencies: deque[Latency] = deque(maxlen=_MAX_LATENCIES)
        self._answered: deque[AnsweredQuestion] = deque(maxlen=MAX_ANSWERS)
        self._record = CameraRecord(max_unobserved_sec=None)
        self._watches = InProcessWatches(_WatchedVideo(self._camera_name, self._memory, self._why_silent), self._frame)
        self._worker: ModelWorker[LoadedModel] = ModelWorker(
            lambda: load_engine(self._model, settings.device, self._memory, settings.memory.max_pixels),
            _QUEUE_SIZE,
            unload=lambda loaded: loaded.engine.close(),
            idle_tasks=[
                IdleTask(
                    _WATCHES,
                    lambda loaded, control: self._watches.check(loaded.engine, control),
                    quiet_sec=0.0,
                    needs_model=lambda: self._watches.needs_model,
                ),
                server_check(lambda loaded: loaded.server),
            ],
        )

    def start(self) -> None:
        """Start the video, and load the model in the background."""
        self._watches.start()
        self._worker.start()
        self._player.start()

    def close(self, timeout_sec: float = _CLOSE_TIMEOUT_SEC) -> None:
        """Stop the video and the model's thread; wait for each for ``timeout_sec`` seconds at most."""
        self._player.close(timeout_sec)
        self._worker.close(timeout_sec)

    def _on_image(self, image: NDArray[np.uint8]) -> None:
        now = time.monotonic()
        self._input_rate.tick(now)
        number = self._newest[0] + 1 if self._newest is not None else 1
        self._newest = number, image
        self._silence.tick(now)
        stamp_ns = time.time_ns()
        self._record.observe(stamp_ns, number)
        try:
            decision = self._ingestor.decide(stamp_ns, now, stamp_ns)
            if not decision.is_due:
                return
            self._ingestor.add(image, decision, stamp_ns)
        except DelayedVlmError:
            self._dropped += 1
            return
        self._sampled_rate.tick(now)

    def state(self) -> SceneState:
        """Return the current state."""
        self._record.observe(time.time_ns(), self._newest[0] if self._newest is not None else 0)
        camera = self._camera()
        model = self._worker.status.model
        return SceneState(
            connected=True,
            now_ns=time.time_ns(),
            cameras=(camera,),
            diagnostics=(self._camera_diagnostic(camera), self._model_diagnostic()),
            model=self._model.name,
            warnings=self._model.warnings,
            model_state=self._worker.status.state.value,
            device=model.device if model is not None else "",
            questions_answered=self._served,
            questions_failed=self._failed,
            latencies=tuple(self._latencies),
            watches=self._watches.questions(self._why_unavailable()),
            alerts=self._watches.alerts,
            answers=tuple(self._answered.copy()),
        )

    def _camera(self) -> CameraState:
        now = time.monotonic()
        frames = tuple(self._frame(kept) for kept in self._memory.snapshot())
        statistics = self._memory.statistics()
        model = self._worker.status.model
        cached = model.engine.cached_bytes() if model is not None else None
        return CameraState(
            name=self._camera_name,
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            dropped=self._dropped,
            silent_sec=self._silence.silent_sec(now) if self._newest is not None else 0.0,
            newest_age_sec=max(0.0, seconds_of(time.time_ns() - frames[-1].end_stamp_ns)) if frames else None,
            counts=MemoryCounts(
                added=statistics.total_frames_added,
                unique=statistics.unique_frames,
                star=statistics.star_memory_size,
                stream=statistics.stream_memory_size,
                compression_ratio=statistics.compression_ratio,
                pixel_bytes=statistics.pixel_bytes,
                feature_bytes=cached.features if cached is not None else 0,
                kv_bytes=cached.kv if cached is not None else 0,
            ),
            frames=frames,
            spans=self._record.spans,
        )

    def _frame(self, kept: KeptPair) -> KeptFrame:
        return KeptFrame(
            id=kept.id,
            camera=self._camera_name,
            stamp_ns=int(kept.pair.first.source),
            end_stamp_ns=int(kept.pair.last.source),
            importance=kept.importance,
            reason=kept.reason,
            in_star=kept.in_star,
            in_stream=kept.in_stream,
            marked=kept.marked,
            label=kept.label,
        )

    def _camera_diagnostic(self, camera: CameraState) -> Diagnostic:
        name = f"camera {self._camera_name}"
        status = self._player.status
        if status.is_retrying:
            return Diagnostic(name, Level.STALE, f"{status.error}; retrying every {RETRY_SEC:g} s")
        if status.error:
            return Diagnostic(name, Level.ERROR, f"playback stopped after an error: {status.error}")
        if status.has_ended:
            return Diagnostic(name, Level.STALE, "the video has ended; questions about it are still possible")
        if camera.silent_sec:
            return Diagnostic(name, Level.STALE, f"no image for {camera.silent_sec:.0f} s")
        return Diagnostic(name, Level.OK, f"{camera.input_rate_hz:.1f} fps")

    def _model_diagnostic(self) -> Diagnostic:
        status = self._worker.status
        if status.error:
            return Diagnostic("model", Level.ERROR, status.error)
        if status.state is not ModelState.READY:
            return Diagnostic("model", Level.WARN, f"{status.state.value}: {self._model.name}")
        if status.model is not None and status.model.fault:
            return Diagnostic("model", Level.ERROR, status.model.fault)
        if self._model.warnings:
            return Diagnostic("model", Level.WARN, "; ".join(self._model.warnings))
        return Diagnostic("model", Level.OK, "ready")

    def _why_silent(self) -> str:
        """Return why there are no new images; empty while they arrive."""
        status = self._player.status
        if status.error:
            return status.error
        if status.has_ended:
            return "the video has ended"
        if self._newest is None:
            return "no image yet"
        return "no new image" if self._silence.silent_sec(time.monotonic()) else ""

    def _why_unavailable(self) -> str:
        """Return why the model cannot check standing questions; empty if it can."""
        status = self._worker.status
        if status.error:
            return f"cannot load the model: {status.error}"
        if status.state is not ModelState.READY:
            return f"the model is {status.state.value}"
        return status.idle_errors.get(_WATCHES, "") or (status.model.fault if status.model is not None else "")

    def live_image(self, camera: str) -> LiveImage | None:
        """Return the newest image of the camera; None before its first image."""
        newest = self._newest
        if newest is None or camera != self._camera_name:
            return None
        number, image = newest
        live = self._live
        if live is None or live.number != number:
            height, width = image.shape[:2]
            self._live = live = LiveImage(number, encode_live_jpeg(image), width, height)
        return live

    def images(self, ids: Sequence[int], image_format: str = "jpeg") -> Mapping[str, KeptFrameImages]:
        """Return the images of pairs that are kept or in an alert by ``KeptFrame.key``, without all others."""
        wanted = set(ids)
        encode = encode_png if image_format == "png" else encode_jpeg
        found = {}
        for kept in (*self._watches.evidence.values(), *self._memory.snapshot()):
            if kept.id in wanted:
                second = kept.pair.second
                found[self._frame(kept).key] = KeptFrameImages(
                    encode(kept.pair.first.image), encode(second.image) if second is not None else b""
                )
        return found

    def find(self, description: str, camera: str) -> SearchOutcome:
        """Return the moments that fit a description."""
        if camera not in ("", self._camera_name):
            raise UnknownCameraError(f"no camera '{camera}': the only camera is '{self._camera_name}'")
        found = search_in_parts(self._worker, MomentSearch(self._memory.snapshot(), description), _TIMEOUT_SEC)
        return SearchOutcome(tuple(map(self._found_moment, found.moments)), found.pairs_searched, 0, found.warnings)

    def _found_moment(self, moment: Moment) -> FoundMoment:
        first, last, best = (self._frame(kept) for kept in (moment.pairs[0], moment.pairs[-1], moment.best))
        jpeg = encode_thumbnail(moment.best.pair.first.image)
        return FoundMoment(moment.score, first.stamp_ns, last.end_stamp_ns, best, None, jpeg)

    def journal(
        self,
        after_id: int,  # noqa: ARG002
        *,
        since_ns: int = 0,  # noqa: ARG002
        until_ns: int = 0,  # noqa: ARG002
    ) -> tuple[JournalLine, ...]:
        """Return no lines: this backend has no journal."""
        return ()

    def journal_image(self, line_id: int) -> bytes:  # noqa: ARG002
        """Return no image: this backend has no journal."""
        return b""

    def mark(self, frame: KeptFrame, label: str) -> None:
        """Protect a pair from eviction, or change its label."""
        self._memory.mark(frame.id, label)

    def unmark(self, frame: KeptFrame) -> None:
        """Remove the protection of a pair."""
        self._memory.unmark(frame.id)

    def watch(self, watch: Watch) -> None:
        """Add a standing question."""
        self._watches.add(watch)

    def unwatch(self, name: str) -> None:
        """Remove a standing question."""
        self._watches.remove(name)

    def ask(
        self, question: Question, on_progress: Callable[[Progress], None], on_done: Callable[[AskOutcome], None]
    ) -> _InProcessQuestion:
        """Start answering a question."""
        control = AskControl()
        threading.Thread(
            target=self._ask, args=(question, control, on_progress, on_done), name="question", daemon=True
        ).start()
        return _InProcessQuestion(control)

    def _ask(
        self,
        question: Question,
        control: AskControl,
        on_progress: Callable[[Progress], None],
        on_done: Callable[[AskOutcome], None],
    ) -> None:
        latest = Progress(Stage.QUEUED)

        def keep_latest(step: Progress) -> None:
            nonlocal latest
            latest = step
            on_progress(step)

        try:
            outcome = self._outcome(self._answer(question, control, keep_latest))
        except AskCancelledError as error:
            outcome = AskOutcome(answer=latest.text, was_stopped=control.is_cancelled, error=str(error))
        except DelayedVlmError as error:
            outcome = AskOutcome(answer=latest.text, error=str(error))
        except Exception as error:  # noqa: BLE001  a defect: the user must see it
            outcome = AskOutcome(error=f"internal error: {type(error).__name__}: {error}")
        self._answered.append(self._answered_question(question, outcome))
        with self._counting:
            if outcome.cost is not None:
                self._served += 1
                self._latencies.append(Latency(outcome.cost.first_token_sec, outcome.cost.total_sec))
            elif not outcome.was_stopped:
                self._failed += 1
        on_done(outcome)

    def _answered_question(self, question: Question, outcome: AskOutcome) -> AnsweredQuestion:
        stamp_ns = time.time_ns()
        return AnsweredQuestion(
            id=str(stamp_ns),
            stamp_ns=stamp_ns,
            camera=question.camera,
            question=question.text,
            answer=outcome.answer,
            error="stopped" if outcome.was_stopped else outcome.error,
            frame_ids=tuple(frame.id for frame in outcome.frames_used),
            evidence=outcome.evidence,
            warnings=outcome.warnings,
        )

    def _answer(self, question: Question, control: AskControl, on_progress: Callable[[Progress], None]) -> AskResult:
        if question.camera not in ("", ALL_CAMERAS, self._camera_name):
            raise UnknownCameraError(f"no camera '{question.camera}': the only camera is '{self._camera_name}'")
        request = AskRequest(
            question.text,
            since=seconds_of(question.since_ns) if question.since_ns else None,
            until=seconds_of(question.until_ns) if question.until_ns else None,
            last_sec=question.last_sec or None,
            ranks_evidence=True,
        )
        check_request(request)
        return self._worker.run(
            lambda loaded, job_control: loaded.engine.answer(request, job_control),
            _TIMEOUT_SEC,
            control=control,
            on_progress=on_progress,
        )

    def _outcome(self, result: AskResult) -> AskOutcome:
        metrics = result.metrics
        return AskOutcome(
            answer=result.answer,
            frames_used=tuple(self._frame(kept) for kept in result.frames_used),
            cost=AnswerCost(
                metrics.time_to_first_token, metrics.total_latency, metrics.frames_encoded, metrics.frames_reused
            ),
            warnings=metrics.warnings,
            evidence=tuple(EvidenceFrame(self._frame(one.kept), one.relevance) for one in result.evidence),
        )


class _InProcessQuestion:
    """Handle of a running question."""

    def __init__(self, control: AskControl) -> None:
        self._control = control

    def stop(self) -> None:
        self._control.cancel()


@dataclass(frozen=True)
class _WatchedVideo:
    """The camera as standing questions see it."""

    name: str
    memory: SmartFrameManager
    why_silent: Callable[[], str]

    @property
    def activity(self) -> Activity:
        return self.memory.activity

    @property
    def silence(self) -> str:
        return self.why_silent()
