"""The scene_memory node with its real model, held after each token while the file HOLD_ANSWERS exists."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.local import generation
from delayed_vlm_ros.ros.scene_memory import node

_MAX_HOLD_SEC = 60.0


class SlowCallback(generation._TokenCallback):
    """Called by the library after every token. Reports the token before it holds, so that the text can be read."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        stops = super().__call__(*arguments, **named)
        deadline = time.monotonic() + _MAX_HOLD_SEC
        while Path(os.environ["HOLD_ANSWERS"]).exists() and time.monotonic() < deadline:
            self._control.check()
            time.sleep(0.01)
        return stops


if __name__ == "__main__":
    generation._TokenCallback = SlowCallback
    sys.exit(node.main())
