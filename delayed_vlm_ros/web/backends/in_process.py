"""A scene memory in this process: a video or webcam, the memory, and a model. Needs no ROS."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from delayed_vlm_ros.dependencies import explained_imports
from delayed_vlm_ros.errors import AskCancelledError, DelayedVlmError, UnknownCameraError
from delayed_vlm_ros.images.encoding import encode_jpeg, encode_live_jpeg
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult, check_request
from delayed_vlm_ros.inference.worker import ModelState, ModelWorker
from delayed_vlm_ros.ingest.ingestor import FrameIngestor
from delayed_vlm_ros.ingest.rate import RateWindow
from delayed_vlm_ros.ingest.sampling import FrameSampler
from delayed_vlm_ros.memory import KeptPair, MemoryConfig
from delayed_vlm_ros.time import seconds_of
from delayed_vlm_ros.web.backend import (
    ALL_CAMERAS,
    AnswerCost,
    AskOutcome,
    CameraState,
    Diagnostic,
    KeptFrame,
    KeptFrameImages,
    Latency,
    Level,
    LiveImage,
    MemoryCounts,
    Question,
    SceneState,
)
from delayed_vlm_ros.web.backends.video import LocalVideo

if TYPE_CHECKING:
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine

_QUEUE_SIZE = 8
_TIMEOUT_SEC = 300.0
_SILENT_AFTER_SEC = 5.0
_LATENCIES = 100


@dataclass(frozen=True)
class InProcessSettings:
    """What a local scene is made of.

    Attributes:
        video: A video file, or a camera device.
        loop: Whether a file begins again at its end.
        model: As for ``resolve_checkpoint``.
        device: Where the model runs.
        memory: Settings of the memory.
    """

    video: str
    loop: bool = False
    model: str = "auto"
    device: str = "auto"
    memory: MemoryConfig = field(default_factory=MemoryConfig)


class InProcessBackend:
    """One camera's scene in this process, from construction until ``stop``.

    Stamps are this machine's time as the images are shown, so a video that begins again goes on in time.

    Args:
        settings: What it is made of.

    Raises:
        DelayedVlmError: Video, model or sizes cannot work.
    """

    def __init__(self, settings: InProcessSettings) -> None:
        self._settings = settings
        self._checkpoint = resolve_checkpoint(settings.model, device=settings.device)
        self._memory = settings.memory.build()
        self._ingestor = FrameIngestor(self._checkpoint.geometry(settings.memory.max_pixels), self._memory)
        self._sampler = FrameSampler(settings.memory.sample_fps)
        self._video = LocalVideo(settings.video, self._shown, loop=settings.loop)
        self._name = "webcam" if self._video.is_device else "video"
        self._newest: NDArray[np.uint8] | None = None
        self._live: LiveImage | None = None
        self._number = 0
        self._arrived = 0.0
        self._input_rate, self._sampled_rate = RateWindow(), RateWindow()
        self._dropped = 0
        self._counting = threading.Lock()
        self._served = self._failed = 0
        self._latencies: deque[Latency] = deque(maxlen=_LATENCIES)
        self._worker: ModelWorker[DelayedBatchInferenceEngine] = ModelWorker(self._load, _QUEUE_SIZE)
        self._worker.start()
        self._video.start()

    def close(self) -> None:
        """End the video and the model's thread."""
        self._video.stop()
        self._worker.close(timeout_sec=0.5)

    def _load(self) -> DelayedBatchInferenceEngine:
        # Importing torch and transformers takes seconds: it belongs to loading.
        with explained_imports():
            from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
            from delayed_vlm_ros.inference.local.models.loading import load_model  # noqa: PLC0415

        loaded = load_model(self._checkpoint, device=self._settings.device)
        return DelayedBatchInferenceEngine(
            loaded.model,
            loaded.processor,
            max_pixels=self._settings.memory.max_pixels,
            frame_manager=self._memory,
            warnings=self._checkpoint.warnings,
        )

    def _shown(self, image: NDArray[np.uint8]) -> None:
        now = time.monotonic()
        self._input_rate.tick(now)
        self._newest, self._arrived = image, now
        self._number += 1
        stamp_ns = time.time_ns()
        if not self._sampler.accept(seconds_of(stamp_ns)):
            return
        try:
            self._ingestor.add(image, seconds_of(stamp_ns), stamp_ns)
        except DelayedVlmError:
            self._dropped += 1  # this machine's clock was set back: the sampler begins anew by itself
            return
        self._sampled_rate.tick(now)

    # What the page shows --------------------------------------------------------------------------------------------

    def state(self) -> SceneState:
        """See ``Backend``."""
        camera = self._camera()
        model = self._worker.status.model
        return SceneState(
            connected=True,
            now_ns=time.time_ns(),
            cameras=(camera,),
            diagnostics=self._diagnostics(camera),
            model=self._checkpoint.name,
            model_state=self._worker.status.state.value,
            device=str(model.model.device) if model is not None else "",
            asks_served=self._served,
            asks_failed=self._failed,
            latencies=tuple(self._latencies),
        )

    def _camera(self) -> CameraState:
        now = time.monotonic()
        snapshot = self._memory.snapshot()
        moments = tuple(self._moment(kept) for kept in snapshot)
        counted = self._memory.statistics()
        model = self._worker.status.model
        cached = model.cached_bytes() if model is not None else None
        return CameraState(
            name=self._name,
            topic="",
            input_rate_hz=self._input_rate.rate(now),
            sampled_rate_hz=self._sampled_rate.rate(now),
            dropped=self._dropped,
            newest_age_sec=max(0.0, seconds_of(time.time_ns() - moments[-1].end_stamp_ns)) if moments else None,
            counts=MemoryCounts(
                added=counted.total_frames_added,
                unique=counted.unique_frames,
                star=counted.star_memory_size,
                stream=counted.stream_memory_size,
                compression_ratio=counted.compression_ratio,
                pixel_bytes=counted.pixel_bytes,
                feature_bytes=cached.features if cached is not None else 0,
                kv_bytes=cached.kv if cached is not None else 0,
            ),
            frames=moments,
        )

    def _moment(self, kept: KeptPair) -> KeptFrame:
        return KeptFrame(
            id=kept.id,
            camera=self._name,
            stamp_ns=int(kept.pair.first.source),
            end_stamp_ns=int(kept.pair.last.source),
            importance=kept.importance,
            reason=kept.reason,
            in_star=kept.in_star,
            in_stream=kept.in_stream,
            marked=kept.marked,
            label=kept.label,
        )

    def _diagnostics(self, camera: CameraState) -> tuple[Diagnostic, ...]:
        silent_sec = time.monotonic() - self._arrived if self._arrived else 0.0
        if self._video.trouble:
            image = Diagnostic(f"camera {self._name}", Level.STALE, self._video.trouble)
        elif silent_sec > _SILENT_AFTER_SEC:
            image = Diagnostic(f"camera {self._name}", Level.STALE, f"no image for {silent_sec:.0f} s")
        else:
            image = Diagnostic(f"camera {self._name}", Level.OK, f"{camera.input_rate_hz:.1f} images per second")
        return (image, self._model_condition())

    def _model_condition(self) -> Diagnostic:
        status = self._worker.status
        if status.error:
            return Diagnostic("model", Level.ERROR, status.error)
        if status.state is not ModelState.READY:
            return Diagnostic("model", Level.WARN, f"{status.state.value}: {self._checkpoint.name}")
        if self._checkpoint.warnings:
            return Diagnostic("model", Level.WARN, "; ".join(self._checkpoint.warnings))
        return Diagnostic("model", Level.OK, "ready")

    def live_image(self, camera: str) -> LiveImage | None:
        """See ``Backend``."""
        image, number = self._newest, self._number
        if image is None or camera != self._name:
            return None
        live = self._live
        if live is None or live.number != number:
            height, width = image.shape[:2]
            self._live = live = LiveImage(number, encode_live_jpeg(image), width, height)
        return live

    def images(self, ids: Sequence[int]) -> Mapping[str, KeptFrameImages]:
        """See ``Backend``."""
        wanted = set(ids)
        found = {}
        for kept in self._memory.snapshot():
            if kept.id in wanted:
                second = kept.pair.second
                found[self._moment(kept).key] = KeptFrameImages(
                    encode_jpeg(kept.pair.first.image), encode_jpeg(second.image) if second is not None else b""
                )
        return found

    def mark(self, moment: KeptFrame, label: str) -> None:
        """See ``Backend``."""
        self._memory.mark(moment.id, label)

    def unmark(self, moment: KeptFrame) -> None:
        """See ``Backend``."""
        self._memory.unmark(moment.id)

    # Questions ------------------------------------------------------------------------------------------------------

    def ask(
        self, question: Question, progress: Callable[[Progress], None], ended: Callable[[AskOutcome], None]
    ) -> _LocalQuestion:
        """See ``Backend``."""
        control = AskControl()
        asking = threading.Thread(
            target=self._ask, args=(question, control, progress, ended), name="asking", daemon=True
        )
        asking.start()
        return _LocalQuestion(control)

    def _ask(
        self,
        question: Question,
        control: AskControl,
        progress: Callable[[Progress], None],
        ended: Callable[[AskOutcome], None],
    ) -> None:
        newest = Progress(Stage.QUEUED)

        def on_progress(step: Progress) -> None:
            nonlocal newest
            newest = step
            progress(step)

        try:
            outcome = self._outcome(self._answer(question, control, on_progress))
        except AskCancelledError as error:
            outcome = AskOutcome(answer=newest.text, was_stopped=control.is_cancelled, error=f"{error}.")
        except DelayedVlmError as error:
            outcome = AskOutcome(answer=newest.text, error=f"{error}.")
        except Exception as error:  # noqa: BLE001  a defect; whoever asked must hear of it
            outcome = AskOutcome(error=f"Internal error, {type(error).__name__}: {error}.")
        with self._counting:
            if outcome.cost is not None:
                self._served += 1
                self._latencies.append(Latency(outcome.cost.first_token_sec, outcome.cost.total_sec))
            elif not outcome.was_stopped:
                self._failed += 1
        ended(outcome)

    def _answer(self, question: Question, control: AskControl, on_progress: Callable[[Progress], None]) -> AskResult:
        if question.camera not in ("", ALL_CAMERAS, self._name):
            raise UnknownCameraError(f"there is no camera '{question.camera}': ask about {self._name}")
        request = AskRequest(
            question.text,
            since=seconds_of(question.since_ns) if question.since_ns else None,
            until=seconds_of(question.until_ns) if question.until_ns else None,
            last_sec=question.last_sec or None,
        )
        check_request(request)
        return self._worker.run(
            lambda engine, at_work: engine.answer(request, at_work),
            _TIMEOUT_SEC,
            control=control,
            on_progress=on_progress,
        )

    def _outcome(self, result: AskResult) -> AskOutcome:
        metrics = result.metrics
        return AskOutcome(
            answer=result.answer,
            frames_used=tuple(self._moment(kept) for kept in result.frames_used),
            cost=AnswerCost(
                metrics.time_to_first_token, metrics.total_latency, metrics.frames_encoded, metrics.frames_reused
            ),
            warnings=metrics.warnings,
        )


class _LocalQuestion:
    """An ask of this process."""

    def __init__(self, control: AskControl) -> None:
        self._control = control

    def stop(self) -> None:
        self._control.cancel()
