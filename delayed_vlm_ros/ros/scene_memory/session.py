"""A configured node's parts: cameras with their memories, the worker with the model, and the question handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sensor_msgs.msg import CompressedImage, Image

from delayed_vlm_ros.images.conversion import ImageConverter, make_converter
from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.worker import IdleTask, ModelState, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.ingest.ingestor import SamplingIngestor
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.input.poses import NO_POSES, NoPoses, PoseBuffer, PoseSource, load_pose_type
from delayed_vlm_ros.ros.input.transforms import TF, TransformPoses, check_transforms_available
from delayed_vlm_ros.ros.output.node_report import MemoryReport, ModelReport
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.ros.scene_memory.context import NodeContext
from delayed_vlm_ros.ros.scene_memory.engines import Engines
from delayed_vlm_ros.ros.scene_memory.journal import Journal
from delayed_vlm_ros.ros.scene_memory.model import NodeModel, logged
from delayed_vlm_ros.ros.scene_memory.parameters import (
    AUTO,
    COMPRESSED,
    RESTART,
    SceneMemoryParameters,
    memory_config,
)
from delayed_vlm_ros.ros.scene_memory.persistence import Persistence
from delayed_vlm_ros.ros.scene_memory.remote_model import resolve_model
from delayed_vlm_ros.ros.scene_memory.watches import Watches
from delayed_vlm_ros.ros.services.ask_handler import AskHandler
from delayed_vlm_ros.ros.services.find_handler import FindHandler
from delayed_vlm_ros.watches import Watch, WatchRunner
from delayed_vlm_ros.watches.store import WatchStore

# A slow card needs this long for a few megabytes of key frames. A process has two seconds to end.
_LAST_SAVE_SEC = 0.8

WATCHES = "watches"
"""Name of the worker's idle task that checks standing questions."""


@dataclass(frozen=True)
class Session:
    """The parts of a configured node, between ``start`` and ``close``.

    Attributes:
        model: The model.
        cameras: Cameras by name, in the order of the parameter.
        worker: The thread that owns the model.
        ask_handler: Submits questions to the worker.
        find_handler: Submits searches to the worker.
        watches: Standing questions.
        persistence: Saves Star memories to disk; None if persistence is off.
        journal: Writes lines about evicted pairs; None if the journal is off.
    """

    model: NodeModel
    cameras: Mapping[str, CameraMemory]
    worker: ModelWorker[Engines]
    ask_handler: AskHandler
    find_handler: FindHandler
    watches: Watches
    persistence: Persistence | None = None
    journal: Journal | None = None

    def start(self) -> None:
        """Restore the memories and start loading the model in the worker. May read files for seconds."""
        if self.persistence is not None:
            self.persistence.start()
            if self.journal is not None:
                self.journal.start("" if self.persistence.is_open else self.persistence.report().error)
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
        if self.journal is not None:
            self.journal.close(save_sec)  # before the folder is released
        if self.persistence is not None:
            self.persistence.close(save_sec)
        return has_ended

    def reset(self) -> None:
        """Drop all frames and everything computed for them. The journal stays."""
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
            budget_bytes=self.model.budget_bytes,
        )

    @property
    def model_fault(self) -> str:
        """Why the model cannot work now; empty if it can, or will be loaded when it is needed."""
        status = self.worker.status
        if status.error:
            return f"cannot load the model: {status.error}"
        if status.state is ModelState.LOADING:
            return "the model is loading"
        return status.idle_errors.get(WATCHES, "") or (status.model.fault if status.model else "")

    def model_report(self) -> ModelReport:
        """Return the present state of the model."""
        status = self.worker.status
        stopped = tuple(f"{name} has stopped: {error}" for name, error in status.idle_errors.items())
        return ModelReport(
            name=self.model.name,
            state=status.state.value,
            device=status.model.device if status.model else "",
            error=status.error or (status.model.fault if status.model else ""),
            warnings=(*self.model.warnings, *stopped),
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
    model = resolve_model(parameters, context)
    geometry = model.geometry
    converter = make_converter(parameters.image_max_pixels, parameters.image_bit_depth)
    if converter.fallback_reason:
        context.logger.info(converter.fallback_reason)
    for warning in model.warnings:
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
    journal = Journal(parameters, cameras, context.logger) if parameters.journal_enabled else None
    worker = _worker(model, parameters.queue_size, memories, watches.runner, journal, context)
    watches.set_wake(worker.wake)
    if journal is not None:
        journal.set_wake(worker.wake)
    ask_handler = AskHandler(worker, cameras, parameters.queue_size, context.now_ns)
    persistence = None
    if parameters.persistence_folder:
        folder, period_sec = parameters.persistence_folder, parameters.persistence_period_sec
        persistence = Persistence(folder, period_sec, cameras, geometry, context.logger)
    return Session(
        model, cameras, worker, ask_handler, FindHandler(worker, cameras, journal), watches, persistence, journal
    )


def _worker(
    model: NodeModel,
    queue_size: int,
    memories: Mapping[str, SmartFrameManager],
    watches: WatchRunner,
    journal: Journal | None,
    context: NodeContext,
) -> ModelWorker[Engines]:
    def check_watches(loaded: Engines, control: AskControl) -> None:
        with logged(context.logger, "watches have stopped"):
            watches.check(loaded.by_camera, control)

    check = IdleTask(WATCHES, check_watches, quiet_sec=0.0, needs_model=lambda: watches.needs_model)
    worker: ModelWorker[Engines] = ModelWorker(
        lambda: model.load(memories, worker),
        queue_size,
        unload=model.unload,
        idle_tasks=[check, *model.idle_tasks, *([journal.idle_task] if journal is not None else [])],
        unload_after_idle_sec=model.unload_after_idle_sec,
    )
    return worker


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
