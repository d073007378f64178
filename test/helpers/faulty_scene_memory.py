"""The scene_memory node with its real model and faults that the question selects.

``defect``: an unexpected error. ``panic``: an error that ``except Exception`` does not catch. ``out of memory once``
and ``out of memory``: the device's error during generation. ``say``: an answer that continues until it is stopped.
Any other text is a question to the model.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

from delayed_vlm_ros.inference.control import AskControl
from delayed_vlm_ros.inference.progress import Progress, Stage
from delayed_vlm_ros.inference.request import AskRequest, AskResult
from delayed_vlm_ros.ros.scene_memory import engines, node

_OOM_COUNTS = {"out of memory once": 1, "out of memory": 1000}


class Device:
    errors_left = 0


class FaultyEngine:
    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def answer(self, request: AskRequest, control: AskControl) -> AskResult:
        Device.errors_left = _OOM_COUNTS.get(request.question, 0)
        if request.question == "defect":
            raise ZeroDivisionError("planted by the test")
        if request.question == "panic":
            raise SystemExit("planted by the test")
        words = 0
        while request.question == "say":
            control.check()
            words += 1
            if control.wants_text:
                control.report(Progress(Stage.GENERATING, "word " * words, words))
            time.sleep(0.02)
        if Device.errors_left:
            request = replace(request, question="What is on the left?")
        return self._engine.answer(request, control)


def load(*arguments: Any) -> engines.Engines:
    loaded = real_load(*arguments)
    plant_oom_errors()
    return engines.Engines(loaded.device, {name: FaultyEngine(one) for name, one in loaded.by_camera.items()})


def plant_oom_errors() -> None:
    import torch  # noqa: PLC0415  slow to import: only after the node is up

    from delayed_vlm_ros.inference.local import engine as engine_module  # noqa: PLC0415

    real_generate = engine_module.generate_answer

    def generate(*arguments: Any, **options: Any) -> Any:
        if Device.errors_left > 0:
            Device.errors_left -= 1
            raise torch.OutOfMemoryError("planted by the test")
        return real_generate(*arguments, **options)

    engine_module.generate_answer = generate


if __name__ == "__main__":
    real_load, engines.load_engines = engines.load_engines, load
    sys.exit(node.main())
