"""The model of a configured node, on this machine or on a server."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rclpy.impl.rcutils_logger import RcutilsLogger

from delayed_vlm_ros.errors import AskCancelledError, DelayedVlmError
from delayed_vlm_ros.inference.worker import IdleTask, ModelWorker
from delayed_vlm_ros.ingest.geometry import FrameGeometry
from delayed_vlm_ros.memory import SmartFrameManager
from delayed_vlm_ros.ros.scene_memory.engines import Engines


class NodeModel(Protocol):
    """The model of a configured node, before and while it is loaded."""

    @property
    def name(self) -> str:
        """Name of the model, as requested."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Limitations of all answers, and settings that make them slower than requested, one sentence each."""

    @property
    def geometry(self) -> FrameGeometry:
        """Image sizes of the memories."""

    @property
    def budget_bytes(self) -> int:
        """Upper bound of the bytes kept of each camera between questions: an equal share; 0 is unbounded."""

    @property
    def idle_tasks(self) -> Sequence[IdleTask[Engines]]:
        """Work while no question waits."""

    @property
    def unload_after_idle_sec(self) -> float | None:
        """Time without a question after which the model is unloaded, in seconds; None: never."""

    def load(self, memories: Mapping[str, SmartFrameManager], worker: ModelWorker[Engines]) -> Engines:
        """Load the model in the worker's thread.

        Args:
            memories: Memory of each camera.
            worker: The worker.

        Raises:
            BaseException: The model cannot be loaded.
        """

    def unload(self, loaded: Engines) -> None:
        """Free what the model uses."""


@contextmanager
def logged(logger: RcutilsLogger, failure: str) -> Iterator[None]:
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
