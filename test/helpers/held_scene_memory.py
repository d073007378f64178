"""The scene-memory node with its real model, which stops in the middle of an answer until it is let go.

In the folder HELD_ANSWERS (environment) there is a file ``held`` as soon as a first token is out, and nothing goes on
until the test has put a file ``released`` there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.local import generation
from delayed_vlm_ros.ros.scene_memory import node


class HeldWatch(generation._Watch):
    """Called by the library after every token, with everything in hand that an ask may hold."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        done = super().__call__(*arguments, **named)
        folder = Path(os.environ["HELD_ANSWERS"])
        (folder / "held").touch()
        while not (folder / "released").exists():
            time.sleep(0.01)
        return done


if __name__ == "__main__":
    generation._Watch = HeldWatch
    sys.exit(node.main())
