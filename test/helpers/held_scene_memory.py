"""The scene_memory node with its real model, held after the first token of an answer.

The environment variable HELD_ANSWERS names a folder. The node creates the file ``held`` there after the first token,
and continues when the test creates the file ``released``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.local import generation
from delayed_vlm_ros.ros.scene_memory import node


class HeldCallback(generation._TokenCallback):
    """Called by the library after every token, when the question holds all its memory."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        done = super().__call__(*arguments, **named)
        folder = Path(os.environ["HELD_ANSWERS"])
        (folder / "held").touch()
        while not (folder / "released").exists():
            time.sleep(0.01)
        return done


if __name__ == "__main__":
    generation._TokenCallback = HeldCallback
    sys.exit(node.main())
