"""Scene memory for camera robots: keep few frames of a long video and use the GPU only when a question arrives.

The public names below are imported on first access. Importing the package itself imports neither torch nor ROS.

* ``DelayedBatchInferenceEngine``: memory and model of one camera, without ROS; requires torch.
* ``RemoteInferenceEngine``: the same with a model on a server; requires the extra ``remote``, no torch.
* ``SmartFrameManager``, ``MemoryConfig``: the memory alone.
* ``SceneMemoryClient``: questions to a running ``scene_memory`` node; requires ROS 2.
* Error classes: ``delayed_vlm_ros.errors`` shows them as a tree.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delayed_vlm_ros.errors import (
        AskCancelledError,
        AskError,
        AskTimeoutError,
        BadRequestError,
        BusyError,
        ConfigurationError,
        DelayedVlmError,
        DependencyError,
        DeviceMemoryError,
        ExportError,
        ImageError,
        IncompleteError,
        MarkError,
        MarksFullError,
        MemoryFileError,
        ModelError,
        ModelNotFoundError,
        ModelNotReadyError,
        NodeDiedError,
        NodeNotFoundError,
        NoFramesError,
        NonFiniteError,
        PairNotKeptError,
        QuestionsError,
        RecordingError,
        ServerError,
        StampOrderError,
        UnknownCameraError,
        UnsupportedModelError,
        VideoSourceError,
    )
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
    from delayed_vlm_ros.inference.remote.scene import RemoteInferenceEngine
    from delayed_vlm_ros.memory.config import MemoryConfig
    from delayed_vlm_ros.memory.manager import SmartFrameManager
    from delayed_vlm_ros.ros.client import SceneMemoryClient

__version__ = "0.1.0"

__all__ = [
    "AskCancelledError",
    "AskError",
    "AskTimeoutError",
    "BadRequestError",
    "BusyError",
    "ConfigurationError",
    "DelayedBatchInferenceEngine",
    "DelayedVlmError",
    "DependencyError",
    "DeviceMemoryError",
    "ExportError",
    "ImageError",
    "IncompleteError",
    "MarkError",
    "MarksFullError",
    "MemoryConfig",
    "MemoryFileError",
    "ModelError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "NoFramesError",
    "NodeDiedError",
    "NodeNotFoundError",
    "NonFiniteError",
    "PairNotKeptError",
    "QuestionsError",
    "RecordingError",
    "RemoteInferenceEngine",
    "SceneMemoryClient",
    "ServerError",
    "SmartFrameManager",
    "StampOrderError",
    "UnknownCameraError",
    "UnsupportedModelError",
    "VideoSourceError",
]

# The generated interfaces (delayed_vlm_ros.msg, .srv, .action) are installed in another folder than these modules when
# Python starts in the root of the repository. This joins the two.
__path__ = pkgutil.extend_path(__path__, __name__)

_MODULES = {
    "DelayedBatchInferenceEngine": "inference.local.engine",
    "MemoryConfig": "memory.config",
    "RemoteInferenceEngine": "inference.remote.scene",
    "SceneMemoryClient": "ros.client",
    "SmartFrameManager": "memory.manager",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access.

    Raises:
        AttributeError: The name is not public.
        ImportError: A package that it requires, such as torch or rclpy, is not installed.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
