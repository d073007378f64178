"""``scene_memory`` node that logs the time of each image callback, for the load benchmark.

``python -m lab.bench.timed_node LOG --ros-args …`` writes three int64 for each image: its stamp, the begin and the end
of the callback, all in nanoseconds.
"""

from __future__ import annotations

import struct
import sys
import time
from pathlib import Path
from unittest.mock import patch

from delayed_vlm_ros.ros.scene_memory import node as scene_memory
from delayed_vlm_ros.ros.scene_memory.camera_memory import CameraMemory
from delayed_vlm_ros.time import read_stamp


def main() -> int:
    """Run the node and return its exit code."""
    receive = CameraMemory.receive
    log = Path(sys.argv.pop(1)).open("wb", buffering=0)  # noqa: SIM115  the node may be killed: nothing is buffered

    def timed(camera: CameraMemory, message: bytes) -> None:
        began_ns = time.time_ns()
        receive(camera, message)
        log.write(struct.pack("<qqq", read_stamp(message), began_ns, time.time_ns()))

    with patch.object(CameraMemory, "receive", timed):
        return scene_memory.main()


if __name__ == "__main__":
    sys.exit(main())
