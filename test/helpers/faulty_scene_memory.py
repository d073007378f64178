"""The scene-memory node with its real model, and faults for those who ask for them.

``defect``: an error that nobody expects. ``panic``: one that no ``except Exception`` catches. ``out of memory once``
and ``out of memory``: the device's, in the middle of an answer. ``say``: goes on until it is stopped. Anything else is
a question.
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

_SHORTAGES = {"out of memory once": 1, "out of memory": 1000}


class Device:
    shortages = 0  # still to come


class FaultyEngine:
    def __init__(self, engine: engines.Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def answer(self, request: AskRequest, control: AskControl) -> AskResult:
        Device.shortages = _SHORTAGES.get(request.question, 0)
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
        if Device.shortages:
            request = replace(request, question="What is on the left?")
        return self._engine.answer(request, control)


def load(*arguments: Any) -> engines.Engines:
    loaded = honest_load(*arguments)
    plant_shortages()
    return engines.Engines(loaded.device, {name: FaultyEngine(one) for name, one in loaded.by_camera.items()})


def plant_shortages() -> None:
    import torch  # noqa: PLC0415  takes long: not before the node is up

    from delayed_vlm_ros.inference.local import engine as engine_module  # noqa: PLC0415

    honest_generate = engine_module.generate_answer

    def generate(*arguments: Any, **options: Any) -> Any:
        if Device.shortages > 0:
            Device.shortages -= 1
            raise torch.OutOfMemoryError("planted by the test")
        return honest_generate(*arguments, **options)

    engine_module.generate_answer = generate


if __name__ == "__main__":
    honest_load, engines.load_engines = engines.load_engines, load
    sys.exit(node.main())
