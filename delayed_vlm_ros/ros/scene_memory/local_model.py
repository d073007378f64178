"""A model on this machine: it has the device to itself, and recovers from shortages while it is loaded."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from delayed_vlm_ros.errors import AskCancelledError, DeviceMemoryError
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
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory import engines
from delayed_vlm_ros.ros.scene_memory.context import NodeContext
from delayed_vlm_ros.ros.scene_memory.model import logged
from delayed_vlm_ros.ros.scene_memory.parameters import (
    FULL,
    OFF,
    SceneMemoryParameters,
    memory_config,
    naming_parameters,
)


@dataclass(frozen=True)
class LocalModel:
    """A ``NodeModel`` on this machine.

    Attributes:
        checkpoint: The model's checkpoint.
        parameters: Parameters of the node.
        context: Parts of the node.
        budget: Budget of each camera; None if the memory is unbounded.
    """

    checkpoint: Checkpoint
    parameters: SceneMemoryParameters
    context: NodeContext
    budget: MemoryBudget | None

    @property
    def name(self) -> str:
        """Name of the checkpoint."""
        return self.checkpoint.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of the checkpoint, and of precomputing."""
        return (*self.checkpoint.warnings, *_precompute_warnings(self.parameters, self.budget))

    @property
    def geometry(self) -> FrameGeometry:
        """Image sizes that the checkpoint accepts."""
        return self.checkpoint.geometry(self.parameters.max_pixels)

    @property
    def budget_bytes(self) -> int:
        """Upper bound of the bytes kept of each camera between questions; 0 is unbounded."""
        return 0 if self.budget is None else self.budget.total

    @property
    def unload_after_idle_sec(self) -> float | None:
        """Time without a question after which the model is unloaded, in seconds; None: never."""
        return self.parameters.unload_after_idle_sec or None

    @property
    def idle_tasks(self) -> Sequence[IdleTask[engines.Engines]]:
        """Precomputing, if it is not off."""
        parameters = self.parameters
        if parameters.precompute == OFF:
            return ()

        def precompute(loaded: engines.Engines, control: AskControl) -> None:
            with logged(self.context.logger, "precompute has stopped"):
                loaded.precompute(control, prefill=parameters.precompute == FULL)

        return (
            IdleTask(
                "precompute",
                precompute,
                parameters.precompute_quiet_sec,
                max_duty=parameters.precompute_max_duty,
            ),
        )

    def load(self, memories: Mapping[str, SmartFrameManager], worker: ModelWorker[engines.Engines]) -> engines.Engines:
        """Load the model, once more if a new process can; end this process if it cannot since a shortage.

        Raises:
            BaseException: Any error of the last load.
            DeviceMemoryError: Memory, threads or file descriptors are short.
        """
        try:
            return self._load_once(memories, worker)
        except BaseException as error:
            if not self._loads_in_new_process(error, worker):
                raise
        try:
            return self._load_once(memories, worker)  # the files may be complete by now
        except BaseException as error:
            if self.context.shortage_seen.is_set() and may_need_a_new_process(error):
                self.context.end_process(
                    f"a new process can load the model {self.name}, but this one cannot after a shortage"
                )
            raise

    def unload(self, loaded: engines.Engines) -> None:
        """Free the device."""
        try:
            with logged(self.context.logger, f"cannot unload model {self.name}"):
                loaded.close()
        finally:
            self.context.device_lock.release()
        self.context.logger.info(f"model {self.name} unloaded, its device memory is free")

    def _load_once(
        self, memories: Mapping[str, SmartFrameManager], worker: ModelWorker[engines.Engines]
    ) -> engines.Engines:
        context = self.context
        context.device_lock.acquire()
        if worker.is_closing:  # since it began to wait; another session may be waiting for the lock
            context.device_lock.release()
            raise AskCancelledError("model not loaded: the node is shutting down or was cleaned up")
        started = time.monotonic()
        try:
            with logged(context.logger, f"cannot load model {self.name}"), _explained_shortage():
                loaded = engines.load_engines(self.checkpoint, self.parameters, memories)
        except BaseException as error:
            context.device_lock.release()
            if worker.has_run_short or isinstance(error, DeviceMemoryError):
                context.shortage_seen.set()
            raise
        for note in loaded.notes:
            context.logger.warning(note)
        context.logger.info(f"model {self.name} loaded on {loaded.device} in {time.monotonic() - started:.1f} s")
        return loaded

    def _loads_in_new_process(self, error: BaseException, worker: ModelWorker[engines.Engines]) -> bool:
        """Return whether a new process can load the model that this one could not.

        Raises:
            DeviceMemoryError: Memory, threads or file descriptors are short, so that it is not known yet.
        """
        if not may_need_a_new_process(error):
            return False
        worker.report_load_error(error)
        free_failed_model(error)
        result = load_in_new_process(
            self.checkpoint,
            device=self.parameters.device,
            dtype=self.parameters.dtype,
            attention=self.parameters.attention,
            is_cancelled=lambda: worker.is_closing,
        )
        if worker.is_closing:
            return False
        shortage_seen = self.context.shortage_seen
        is_short = result is LoadResult.NOT_STARTED and shortage_seen.is_set()
        if is_short or result is LoadResult.SHORTAGE:
            shortage_seen.set()
            raise _shortage_error(error) from error
        return result is LoadResult.LOADS


def resolve_local_model(name: str, parameters: SceneMemoryParameters, context: NodeContext) -> LocalModel:
    """Find a model on this machine.

    Args:
        name: Model as for ``resolve_checkpoint``.
        parameters: Parameters of the node.
        context: Parts of the node.

    Raises:
        ModelNotFoundError: The checkpoint is not on this machine.
        UnsupportedModelError: The checkpoint has no adapter.
        ConfigurationError: The budget does not hold a pair.
    """
    checkpoint = resolve_checkpoint(name, allow_download=parameters.allow_download, device=parameters.device)
    return LocalModel(checkpoint, parameters, context, _budget(parameters, checkpoint))


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
