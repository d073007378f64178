"""The scene-memory node with its real model, which after a token goes on only while there is no file HOLD_ANSWERS."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.local import generation
from delayed_vlm_ros.ros.scene_memory import node

_HELD_AT_MOST_SEC = 60.0


class SlowWatch(generation._Watch):
    """Called by the library after every token: tells of it first, so that what there is of the answer can be read."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        stops = super().__call__(*arguments, **named)
        deadline = time.monotonic() + _HELD_AT_MOST_SEC
        while Path(os.environ["HOLD_ANSWERS"]).exists() and time.monotonic() < deadline:
            self._control.check()
            time.sleep(0.01)
        return stops


if __name__ == "__main__":
    generation._Watch = SlowWatch
    sys.exit(node.main())
