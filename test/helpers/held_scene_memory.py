"""The scene_memory node with its real model, held after the first token of an answer.

The environment variable HELD_ANSWERS names a folder. The node creates the file ``held`` there after the first token,
and continues when the test creates the file ``released``.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from delayed_vlm_ros.inference.local import generation
from delayed_vlm_ros.inference.local.models import loading
from delayed_vlm_ros.ros.scene_memory import node

_load_model = loading.load_model
_numbers = itertools.count()


class HeldCallback(generation._TokenCallback):
    """Called by the library after every token, when the question holds all its memory.

    The first generation is that of the check at load; it is not held.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._is_held = next(_numbers) > 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        done = super().__call__(*arguments, **named)
        if not self._is_held:
            return done
        folder = Path(os.environ["HELD_ANSWERS"])
        (folder / "held").touch()
        while not (folder / "released").exists():
            time.sleep(0.01)
        return done


def load_for_any_images(*arguments: Any, **named: Any) -> Any:
    """Load the model without its check of images: those of tests are unlike the rooms that the demo model knows."""
    return replace(_load_model(*arguments, **named), familiar_images=None)


if __name__ == "__main__":
    loading.load_model = load_for_any_images
    generation._TokenCallback = HeldCallback
    sys.exit(node.main())
