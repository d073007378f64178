"""A configured node's parts: cameras with their memories, the worker with the model, and the question handler."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros import msg
from delayed_vlm_ros.errors import AskCancelledError, DelayedVlmError, DeviceMemoryError
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.budget import MemoryBudget
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.local.models.new_process import (
    LoadResult,
    free_failed_model,
    load_in_new_process,
    may_need_a_new_process,
)
from delayed_vlm_ros.inference.local.oom import is_shortage, shortage_error
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.poses import NO_POSES, NoPoses, PoseBuffer, PoseSource, load_pose_type
from delayed_vlm_ros.ros.input.transforms import TF, TransformPoses, check_transforms_available
from delayed_vlm_ros.ros.output.node_report import MemoryReport, ModelReport
from delayed_vlm_ros.ros.scene_memory import engines
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.parameters import (
    AUTO,
    COMPRESSED,
    FULL,
    OFF,
    RESTART,
    SceneMemoryParameters,
    memory_config,
    naming_parameters,
)
from delayed_vlm_ros.ros.scene_memory.persistence import Persistence
from delayed_vlm_ros.ros.scene_memory.watches import AlertIds, Watches
from delayed_vlm_ros.ros.services.ask_handler import AskHandler
from delayed_vlm_ros.watches import Watch, WatchRunner
from delayed_vlm_ros.watches.store import WatchStore

# A slow card needs this long for a few megabytes of key frames. A process has two seconds to end.
_LAST_SAVE_SEC = 0.8

WATCHES = "watches"
"""Name of the worker's idle task that checks standing questions."""


@dataclass(frozen=True)
class NodeContext:
    """The parts of the node that a session uses.

    Attributes:
        resolve_topic: Returns a topic's full name after remapping.
        now_ns: Returns the time of the node's clock, in nanoseconds.
        simulated: Whether that clock is a simulated one.
        pair_ids: Source of increasing pair ids, shared by all cameras for the life of the node.
        device_lock: Held while a model is loaded. A new session loads its model only after the previous session, which
            may still be computing when it is closed, has freed the device.
        logger: The node's logger.
        stale_after_sec: Returns the silence after which a camera is stale, in seconds.
        publish_alert: Publishes an alert of a standing question, and returns whether it did; called in the worker's
            thread.
        alert_ids: Source of alert ids, for the life of the node.
        end_process: Called with the reason when only a new process can load the model: shuts this process down.
        shortage_seen: Set after the first shortage of memory, threads or file descriptors in this process.
    """

    resolve_topic: Callable[[str], str]
    now_ns: Callable[[], int]
    simulated: bool
    pair_ids: PairIds
    device_lock: threading.Lock
    logger: RcutilsLogger
    end_process: Callable[[str], None]
    stale_after_sec: Callable[[], float]
    publish_alert: Callable[[msg.Alert], bool]
    alert_ids: AlertIds
    shortage_seen: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Session:
    """The parts of a configured node, between ``start`` and ``close``.

    Attributes:
        checkpoint: The model's checkpoint.
        cameras: Cameras by name, in the order of the parameter.
        worker: The thread that owns the model.
        ask_handler: Submits questions to the worker.
        watches: Standing questions.
        budget_bytes: Upper bound of the bytes kept of each camera between questions: an equal share; 0 is unbounded.
        warnings: Settings that make answers slower than requested.
        persistence: Saves Star memories to disk; None if persistence is off.
    """

    checkpoint: Checkpoint
    cameras: Mapping[str, CameraMemory]
    worker: ModelWorker[engines.Engines]
    ask_handler: AskHandler
    watches: Watches
    budget_bytes: int = 0
    warnings: tuple[str, ...] = ()
    persistence: Persistence | None = None

    def start(self) -> None:
        """Restore the memories and start loading the model in the worker. May read files for seconds."""
        if self.persistence is not None:
            self.persistence.start()
            if self.persistence.is_open:
                self.watches.restore()
        self.worker.start()

    def close(self, timeout_sec: float) -> bool:
        """Cancel all questions, save key frames and close the worker, which frees the device.

        Args:
            timeout_sec: Longest time to wait for the worker, in seconds.

        Returns:
            Whether the worker has ended. A worker that is inside the model ends and frees the device later.
        """
        save_sec = max(timeout_sec, _LAST_SAVE_SEC)
        if self.persistence is not None:
            self.persistence.request_close(save_sec)  # saves while the worker ends
        has_ended = self.worker.close(timeout_sec)
        if self.persistence is not None:
            self.persistence.close(save_sec)
        return has_ended

    def reset(self) -> None:
        """Drop all frames and everything computed for them."""
        for camera in self.cameras.values():
            camera.reset()
        self.watches.runner.interrupt("the memory was reset")
        if self.persistence is not None:
            self.persistence.request_save()
        loaded = self.worker.status.model
        if loaded is not None:
            loaded.reset_cache()

    def memory_report(self, camera: CameraMemory) -> MemoryReport:
        """Return the present state of a camera's memory."""
        loaded = self.worker.status.model
        cached = loaded.by_camera[camera.name].cached_bytes() if loaded else None
        snapshot = camera.frame_manager.snapshot()
        return MemoryReport(
            camera=camera.name,
            statistics=camera.frame_manager.statistics(),
            feature_bytes=cached.features if cached else 0,
            kv_bytes=cached.kv if cached else 0,
            oldest_age_sec=camera.age_sec(snapshot[0].pair.first) if snapshot else None,
            newest_age_sec=camera.age_sec(snapshot[-1].pair.last) if snapshot else None,
            budget_bytes=self.budget_bytes,
        )

    @property
    def model_fault(self) -> str:
        """Why the model cannot work now; empty if it can, or will be loaded when it is needed."""
        status = self.worker.status
        if status.error:
            return f"cannot load the model: {status.error}"
        if status.state is ModelState.LOADING:
            return "the model is loading"
        return status.idle_errors.get(WATCHES, "")

    def model_report(self) -> ModelReport:
        """Return the present state of the model."""
        status = self.worker.status
        stopped = tuple(f"{name} has stopped: {error}" for name, error in status.idle_errors.items())
        return ModelReport(
            name=self.checkpoint.name,
            state=status.state.value,
            device=status.model.device if status.model else "",
            error=status.error,
            warnings=(*self.checkpoint.warnings, *self.warnings, *stopped),
            idle_unloaded=status.state is ModelState.UNLOADED and not status.error,
        )


def build_session(
    parameters: SceneMemoryParameters, context: NodeContext, watches_of_file: Sequence[Watch] = ()
) -> Session:
    """Validate what can be validated quickly and build the parts; ``Session.start`` starts their threads.

    Args:
        parameters: Parameters of the node.
        context: Parts of the node.
        watches_of_file: Standing questions of the parameter file.

    Raises:
        ConfigurationError: A parameter is invalid.
        ModelNotFoundError: The checkpoint is not on this machine.
        UnsupportedModelError: The checkpoint has no adapter.
    """
    checkpoint = resolve_checkpoint(
        parameters.model, allow_download=parameters.allow_download, device=parameters.device
    )
    geometry = checkpoint.geometry(parameters.max_pixels)
    converter = make_converter(parameters.image_max_pixels, parameters.image_bit_depth)
    if converter.fallback_reason:
        context.logger.info(converter.fallback_reason)
    budget = _budget(parameters, checkpoint)
    warnings = _precompute_warnings(parameters, budget)
    for warning in (*checkpoint.warnings, *warnings):
        context.logger.warning(warning)
    cameras = {name: _camera(name, parameters, geometry, converter, context) for name in parameters.cameras}
    memories = {name: camera.frame_manager for name, camera in cameras.items()}
    watches = Watches(
        cameras,
        max_watches=parameters.max_watches,
        max_duty=parameters.max_duty,
        stale_after_sec=context.stale_after_sec,
        publish=context.publish_alert,
        logger=context.logger,
        store=WatchStore(parameters.persistence_folder) if parameters.persistence_folder else None,
        alert_ids=context.alert_ids,
    )
    watches.start(watches_of_file)
    worker = _worker(parameters, checkpoint, memories, watches.runner, context)
    watches.set_wake(worker.wake)
    ask_handler = AskHandler(worker, cameras, parameters.queue_size)
    persistence = None
    if parameters.persistence_folder:
        folder, period_sec = parameters.persistence_folder, parameters.persistence_period_sec
        persistence = Persistence(folder, period_sec, cameras, geometry, context.logger)
    budget_bytes = budget.total if budget else 0
    return Session(checkpoint, cameras, worker, ask_handler, watches, budget_bytes, warnings, persistence)


def _budget(parameters: SceneMemoryParameters, checkpoint: Checkpoint) -> MemoryBudget | None:
    """Return the budget of each camera; None if the memory is unbounded."""
    if not parameters.budget_mb:
        return None
    frames = memory_config(parameters).build().capacity
    half_precision_bytes = 2  # the dtype is known when the model is loaded; the engine then checks again
    with naming_parameters("memory.budget_mb", "memory.max_pixels"):
        return checkpoint.plan_budget(
            parameters.budget_mb, frames, parameters.max_pixels, half_precision_bytes, shares=len(parameters.cameras)
        )


def _precompute_warnings(parameters: SceneMemoryParameters, budget: MemoryBudget | None) -> tuple[str, ...]:
    if budget is None or parameters.precompute == OFF:
        return ()
    if budget.holds(budget.full_tokens, budget.full_kv_tokens if parameters.precompute == FULL else 0):
        return ()
    warning = (
        f"memory.budget_mb does not hold the encoding of a full memory, so precompute.mode {parameters.precompute} "
        "encodes less: raise memory.budget_mb or lower the memory sizes"
    )
    return (warning,)


def _worker(
    parameters: SceneMemoryParameters,
    checkpoint: Checkpoint,
    memories: Mapping[str, SmartFrameManager],
    watches: WatchRunner,
    context: NodeContext,
) -> ModelWorker[engines.Engines]:
    logger, device_lock = context.logger, context.device_lock

    def load_once() -> engines.Engines:
        device_lock.acquire()
        if worker.is_closing:  # since it began to wait; another session may be waiting for the lock
            device_lock.release()
            raise AskCancelledError("model not loaded: the node is shutting down or was cleaned up")
        started = time.monotonic()
        try:
            with _logged(logger, f"cannot load model {checkpoint.name}"), _explained_shortage():
                loaded = engines.load_engines(checkpoint, parameters, memories)
        except BaseException as error:
            device_lock.release()
            if worker.has_run_short or isinstance(error, DeviceMemoryError):
                context.shortage_seen.set()
            raise
        for note in loaded.notes:
            logger.warning(note)
        logger.info(f"model {checkpoint.name} loaded on {loaded.device} in {time.monotonic() - started:.1f} s")
        return loaded

    def load() -> engines.Engines:
        return _load_or_recover(load_once, checkpoint, parameters, worker, context)

    def unload(loaded: engines.Engines) -> None:
        try:
            with _logged(logger, f"cannot unload model {checkpoint.name}"):
                loaded.close()
        finally:
            device_lock.release()
        logger.info(f"model {checkpoint.name} unloaded, its device memory is free")

    def precompute(loaded: engines.Engines, control: AskControl) -> None:
        with _logged(logger, "precompute has stopped"):
            loaded.precompute(control, prefill=parameters.precompute == FULL)

    def check_watches(loaded: engines.Engines, control: AskControl) -> None:
        with _logged(logger, "watches have stopped"):
            watches.check(loaded.by_camera, control)

    check = IdleTask(WATCHES, check_watches, quiet_sec=0.0, needs_model=lambda: watches.needs_model)
    ahead = (
        [IdleTask("precompute", precompute, parameters.precompute_quiet_sec)] if parameters.precompute != OFF else []
    )
    worker: ModelWorker[engines.Engines] = ModelWorker(
        load,
        parameters.queue_size,
        unload=unload,
        idle_tasks=[check, *ahead],
        unload_after_idle_sec=parameters.unload_after_idle_sec or None,
    )
    return worker


@contextmanager
def _explained_shortage() -> Iterator[None]:
    """Convert a library's error to one that says that a later load may succeed.

    Raises:
        DeviceMemoryError: Memory, threads or file descriptors were short.
    """
    try:
        yield
    except DeviceMemoryError:
        raise
    except BaseException as error:
        if not is_shortage(error):
            raise
        raise _shortage_error(error) from error


def _shortage_error(error: BaseException) -> DeviceMemoryError:
    return shortage_error("the model is loaded again for the next question", error)


def _load_or_recover(
    load: Callable[[], engines.Engines],
    checkpoint: Checkpoint,
    parameters: SceneMemoryParameters,
    worker: ModelWorker[engines.Engines],
    context: NodeContext,
) -> engines.Engines:
    """Load the model, once more if a new process can; end this process if it cannot since a shortage.

    Raises:
        BaseException: Any error of the last load.
        DeviceMemoryError: Memory, threads or file descriptors are short.
    """
    try:
        return load()
    except BaseException as error:
        if not _loads_in_new_process(error, checkpoint, parameters, worker, context):
            raise
    try:
        return load()  # the files may be complete by now
    except BaseException as error:
        if context.shortage_seen.is_set() and may_need_a_new_process(error):
            context.end_process(
                f"a new process can load the model {checkpoint.name}, but this one cannot after a shortage"
            )
        raise


def _loads_in_new_process(
    error: BaseException,
    checkpoint: Checkpoint,
    parameters: SceneMemoryParameters,
    worker: ModelWorker[engines.Engines],
    context: NodeContext,
) -> bool:
    """Return whether a new process can load the model that this one could not.

    Raises:
        DeviceMemoryError: Memory, threads or file descriptors are short, so that it is not known yet.
    """
    if not may_need_a_new_process(error):
        return False
    worker.report_load_error(error)
    free_failed_model(error)
    result = load_in_new_process(
        checkpoint,
        device=parameters.device,
        dtype=parameters.dtype,
        attention=parameters.attention,
        is_cancelled=lambda: worker.is_closing,
    )
    if worker.is_closing:
        return False
    is_short = result is LoadResult.NOT_STARTED and context.shortage_seen.is_set()
    if is_short or result is LoadResult.SHORTAGE:
        context.shortage_seen.set()
        raise _shortage_error(error) from error
    return result is LoadResult.LOADS


@contextmanager
def _logged(logger: RcutilsLogger, failure: str) -> Iterator[None]:
    """Log an error of the worker's thread, and the traceback of a defect: the worker itself logs neither."""
    try:
        yield
    except AskCancelledError:
        raise
    except DelayedVlmError as error:
        logger.error(f"{failure}: {error}")
        raise
    except BaseException:
        logger.error(f"{failure}: {traceback.format_exc()}")
        raise


def _poses(parameters: SceneMemoryParameters) -> PoseSource:
    """Return the source of a camera's poses.

    Raises:
        DependencyError: A package of the source is not installed.
    """
    if parameters.pose_source == TF:
        check_transforms_available()
        return TransformPoses(parameters.pose_frame, parameters.pose_base_frame, parameters.pose_limit_sec)
    if parameters.pose_source == NO_POSES:
        return NoPoses()
    return PoseBuffer(parameters.pose_limit_sec, load_pose_type(parameters.pose_source))


def _camera(
    name: str,
    parameters: SceneMemoryParameters,
    geometry: FrameGeometry,
    converter: ImageConverter,
    context: NodeContext,
) -> CameraMemory:
    manager = memory_config(parameters).build(context.pair_ids)
    group = "" if len(parameters.cameras) == 1 else f"{name}/"
    topic = context.resolve_topic(f"{group}image")
    is_compressed = parameters.image_transport == COMPRESSED
    if is_compressed:
        topic = f"{topic}/compressed"  # as image_transport does, so one remapping of image serves both
    restarts = parameters.on_time_jump in ((AUTO, RESTART) if context.simulated else (RESTART,))
    return CameraMemory(
        name,
        topic,
        context.resolve_topic(f"{group}pose"),
        CompressedImage if is_compressed else Image,
        ingestor=SamplingIngestor(geometry, manager, parameters.sample_fps, topic=topic, restart_on_jump=restarts),
        frame_manager=manager,
        converter=converter.for_camera(),
        poses=_poses(parameters),
        now_ns=context.now_ns,
        logger=context.logger,
    )
