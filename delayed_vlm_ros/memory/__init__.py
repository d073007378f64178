"""Which frames of a camera to keep. Knows nothing of models or of ROS.

`SmartFrameManager` is the memory of one camera. `MemoryConfig` holds its settings and builds it. Images are
brought to one size by `fit_grid`, `letterbox` and `as_rgb_array`; a question reads a `Snapshot`.
"""

from delayed_vlm_ros.memory.config import MemoryConfig
from delayed_vlm_ros.memory.frame import Frame, FramePair, KeptPair, RgbArray, Snapshot
from delayed_vlm_ros.memory.grid import Grid, as_rgb_array, fit_grid, letterbox
from delayed_vlm_ros.memory.manager import AddedFrame, SmartFrameManager
from delayed_vlm_ros.memory.pair_ids import PairIds
from delayed_vlm_ros.memory.scoring.descriptor import Descriptor, describe, distance
from delayed_vlm_ros.memory.scoring.importance import Importance, ImportanceScorer
from delayed_vlm_ros.memory.star import StarMemory
from delayed_vlm_ros.memory.statistics import MemoryStatistics
from delayed_vlm_ros.memory.stream import StreamMemory

__all__ = [
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
