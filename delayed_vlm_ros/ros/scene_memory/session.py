"""What a configured node has: cameras with their memories, the worker with the model, and the desk for asks."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.errors import AskCancelledError, DelayedVlmError
from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.local.models.checkpoint import Checkpoint, resolve_checkpoint
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import PairIds, SmartFrameManager
from delayed_vlm_ros.ros.input.poses import PoseBuffer
from delayed_vlm_ros.ros.output.reports import MemoryReport, ModelReport
from delayed_vlm_ros.ros.scene_memory import engines
from delayed_vlm_ros.ros.scene_memory.camera import CameraMemory
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
from delayed_vlm_ros.ros.services.ask_handler import AskHandler

# A slow card takes so long for the few megabytes of key frames; of the two seconds that a process has for its end.
_LAST_WRITE_SEC = 0.8


@dataclass(frozen=True)
class NodeContext:
    """What a session needs of the node it lives in.

    Attributes:
        resolve_topic: Gives a topic's full name, after remapping.
        now_ns: The node's clock, in nanoseconds.
        simulated: Whether that clock is a simulated one.
        pair_ids: Where ids of pairs come from, growing: for all cameras, and for the life of the node.
        device: Held while a model is loaded: the next session's waits until the last one's, which may be deep in its
            work when it is told to end, has made room.
        logger: The node's logger.
    """

    resolve_topic: Callable[[str], str]
    now_ns: Callable[[], int]
    simulated: bool
    pair_ids: PairIds
    device: threading.Lock
    logger: RcutilsLogger


@dataclass(frozen=True)
class Session:
    """The parts of a configured node.

    Attributes:
        checkpoint: The model's checkpoint.
        cameras: By name, in the order of the parameters.
        worker: Owns the model.
        desk: Takes asks.
        budget_bytes: Upper bound of what is kept of each camera between asks: an equal share; 0: none.
        notices: Standing ways in which asks are slower than was asked for.
        persistence: Keeps Star memories on disk; None where that is off.
    """

    checkpoint: Checkpoint
    cameras: Mapping[str, CameraMemory]
    worker: ModelWorker[engines.Engines]
    desk: AskHandler
    budget_bytes: int = 0
    notices: tuple[str, ...] = ()
    persistence: Persistence | None = None

    def close(self, timeout_sec: float) -> bool:
        """Cancel the asks and end the worker, which frees the device; write key frames to disk meanwhile.

        Returns:
            Whether it has ended; deep inside the model it cannot, and then ends and frees the device later.
        """
        if self.persistence is not None:
            self.persistence.end(max(timeout_sec, _LAST_WRITE_SEC))
        has_ended = self.worker.close(timeout_sec)
        if self.persistence is not None:
            self.persistence.join()
        return has_ended

    def reset(self) -> None:
        """Forget every frame, and what is kept of earlier asks."""
        for camera in self.cameras.values():
            camera.reset()
        if self.persistence is not None:
            self.persistence.hurry()
        loaded = self.worker.status.model
        if loaded is not None:
            loaded.reset_cache()

    def memory_report(self, camera: CameraMemory) -> MemoryReport:
        """What is kept of a camera, now."""
        loaded = self.worker.status.model
        cached = loaded.by_camera[camera.name].cached_bytes() if loaded else None
        snapshot = camera.frame_manager.snapshot()
        oldest = camera.age_sec(snapshot[0].pair.first) if snapshot else None
        newest = camera.age_sec(snapshot[-1].pair.last) if snapshot else None
        return MemoryReport(
            camera=camera.name,
            statistics=camera.frame_manager.statistics(),
            feature_bytes=cached.features if cached else 0,
            kv_bytes=cached.kv if cached else 0,
            oldest_age_sec=oldest,
            newest_age_sec=newest,
            budget_bytes=self.budget_bytes,
        )

    def model_report(self) -> ModelReport:
        """Where the model stands, now."""
        status = self.worker.status
        loaded, state, ahead = status.model, status.state, status.idle_error
        return ModelReport(
            name=self.checkpoint.name,
            state=state.value,
            device=loaded.device if loaded else "",
            error=status.error,
            warnings=(
                *self.checkpoint.warnings,
                *self.notices,
                *((f"nothing is encoded ahead any more: {ahead}",) if ahead else ()),
            ),
            resting=state is ModelState.UNLOADED and not status.error,
        )


def open_session(parameters: SceneMemoryParameters, surroundings: NodeContext) -> Session:
    """Check all that can be checked quickly, make the memories, and start loading the model in the worker.

    Raises:
        ConfigurationError: A parameter cannot work.
        ModelNotFoundError: The checkpoint is not on this machine.
        UnsupportedModelError: There is no adapter for it.
    """
    checkpoint = resolve_checkpoint(
        parameters.model, allow_download=parameters.allow_download, device=parameters.device
    )
    geometry = checkpoint.geometry(parameters.max_pixels)
    converter = make_converter(parameters.image_max_pixels)
    if converter.fallback_reason:
        surroundings.logger.info(converter.fallback_reason)
    for notice in checkpoint.warnings:
        surroundings.logger.warning(notice)
    cameras = {name: _camera(name, parameters, geometry, converter, surroundings) for name in parameters.cameras}
    memories = {name: camera.frame_manager for name, camera in cameras.items()}
    budget_bytes = 0
    notices: tuple[str, ...] = ()
    if parameters.budget_mb:
        # The dtype is known for certain only when the model is loaded; then the engine looks again.
        frames, half_precision = memory_config(parameters).build().capacity, 2
        with naming_parameters("memory.budget_mb", "memory.max_pixels"):
            budget = checkpoint.plan_budget(
                parameters.budget_mb, frames, parameters.max_pixels, half_precision, shares=len(parameters.cameras)
            )
        budget_bytes = budget.total
        tokens = budget.full_tokens
        if parameters.precompute != OFF and not budget.holds(tokens, tokens if parameters.precompute == FULL else 0):
            notice = (
                "memory.budget_mb does not hold the encoding of a full memory: less is encoded ahead than "
                f"precompute.mode {parameters.precompute} says"
            )
            notices = (notice,)
            surroundings.logger.warning(notice)
    worker = _worker(parameters, checkpoint, memories, surroundings)
    desk = AskHandler(worker, cameras, parameters.queue_size)
    persistence = None
    if parameters.persistence_folder:
        folder, period_sec = parameters.persistence_folder, parameters.persistence_period_sec
        persistence = Persistence(folder, period_sec, cameras, geometry, surroundings.logger)
    worker.start()
    return Session(checkpoint, cameras, worker, desk, budget_bytes, notices, persistence)


def _worker(
    parameters: SceneMemoryParameters,
    checkpoint: Checkpoint,
    memories: Mapping[str, SmartFrameManager],
    surroundings: NodeContext,
) -> ModelWorker[engines.Engines]:
    node_log, device = surroundings.logger, surroundings.device

    def load() -> engines.Engines:
        device.acquire()
        if worker.is_closing:  # while it waited; others may wait behind it
            device.release()
            raise AskCancelledError("the model was not loaded: the node is going down or was cleaned up")
        started = time.monotonic()
        try:
            with _logged(node_log, f"cannot load the model {checkpoint.name}"):
                loaded = engines.load_engines(checkpoint, parameters, memories)
        except BaseException:
            device.release()
            raise
        node_log.info(f"{checkpoint.name} is loaded on {loaded.device} after {time.monotonic() - started:.1f} s")
        return loaded

    def unload(loaded: engines.Engines) -> None:
        try:
            with _logged(node_log, f"cannot unload the model {checkpoint.name}"):
                loaded.release()
        finally:
            device.release()
        node_log.info(f"{checkpoint.name} is unloaded, the device's memory is free")

    def idle_task(loaded: engines.Engines, control: AskControl) -> None:
        with _logged(node_log, "nothing is encoded ahead any more"):
            loaded.precompute(control, prefill=parameters.precompute == FULL)

    ahead = IdleTask(idle_task, parameters.precompute_quiet_sec) if parameters.precompute != OFF else None
    idle_sec = parameters.unload_after_idle_sec or None
    worker: ModelWorker[engines.Engines] = ModelWorker(
        load, parameters.queue_size, unload=unload, idle_task=ahead, unload_after_idle_sec=idle_sec
    )
    return worker


@contextmanager
def _logged(node_log: RcutilsLogger, failure: str) -> Iterator[None]:
    """Log an error of the worker's thread, which only keeps it for whoever asks; a defect with its traceback."""
    try:
        yield
    except AskCancelledError:
        raise
    except DelayedVlmError as error:
        node_log.error(f"{failure}: {error}")
        raise
    except BaseException:
        node_log.error(f"{failure}: {traceback.format_exc()}")
        raise


def _camera(
    name: str,
    parameters: SceneMemoryParameters,
    geometry: FrameGeometry,
    converter: ImageConverter,
    surroundings: NodeContext,
) -> CameraMemory:
    compressed = parameters.image_transport == COMPRESSED
    manager = memory_config(parameters).build(surroundings.pair_ids)
    group = "" if len(parameters.cameras) == 1 else f"{name}/"
    topic = surroundings.resolve_topic(f"{group}image")
    # image_transport's rule, so that one remapping of image serves both.
    topic = f"{topic}/compressed" if compressed else topic
    restarts = parameters.on_time_jump in ((AUTO, RESTART) if surroundings.simulated else (RESTART,))
    return CameraMemory(
        name,
        topic,
        surroundings.resolve_topic(f"{group}pose"),
        CompressedImage if compressed else Image,
        ingestor=SamplingIngestor(geometry, manager, parameters.sample_fps, topic=topic, restart_on_jump=restarts),
        frame_manager=manager,
        converter=converter,
        poses=PoseBuffer(parameters.pose_limit_sec),
        now_ns=surroundings.now_ns,
        logger=surroundings.logger,
    )
