"""The memory of a camera: which frames to keep. Imports neither models nor ROS.

``SmartFrameManager`` is the memory of one camera. ``MemoryConfig`` holds its settings and builds it. ``fit_grid``,
``letterbox`` and ``as_rgb_array`` resize images to one shape. A question reads a ``Snapshot``.
"""

from delayed_vlm_ros.memory.activity import Activity
from delayed_vlm_ros.memory.config import MemoryConfig
from delayed_vlm_ros.memory.frame import Frame, FramePair, KeptPair, PairIds, RgbArray, Snapshot
from delayed_vlm_ros.memory.grid import Grid, as_rgb_array, fit_grid, letterbox
from delayed_vlm_ros.memory.manager import AddedFrame, SmartFrameManager
from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, describe, distance
from delayed_vlm_ros.memory.scoring.importance import Importance, ImportanceScorer
from delayed_vlm_ros.memory.star import StarMemory
from delayed_vlm_ros.memory.statistics import MemoryStatistics
from delayed_vlm_ros.memory.stream import StreamMemory

__all__ = [
    "Activity",
    "AddedFrame",
    "Descriptor",
    "Frame",
    "FramePair",
    "Grid",
    "Importance",
    "ImportanceScorer",
    "KeptPair",
    "MemoryConfig",
    "MemoryStatistics",
    "PairIds",
    "RgbArray",
    "SmartFrameManager",
    "Snapshot",
    "StarMemory",
    "StreamMemory",
    "as_rgb_array",
    "describe",
    "distance",
    "fit_grid",
    "letterbox",
]
