"""The engine of the commands that run without ROS."""

from __future__ import annotations

from typing import Any

from delayed_vlm_ros.cli.output import AnswerView
from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine
from delayed_vlm_ros.inference.local.models.device import dtype_name


def load_engine(
    view: AnswerView, model: str, device: str, dtype: str, star: int, stream: int, **engine_options: Any
) -> DelayedBatchInferenceEngine:
    """Load a model and return an engine with an empty memory.

    Args:
        view: View of the session; shows the location of the model and its standing warnings.
        model: Folder of a checkpoint, name on the Hugging Face Hub, ``demo`` or ``auto``.
        device: Device of the model: ``auto``, ``cpu`` or ``cuda[:N]``.
        dtype: Number format of the model, one of ``DTYPES``.
        star: Size of Star memory, in frames.
        stream: Size of Stream memory, in frames.
        **engine_options: Further arguments of the engine.

    Raises:
        ModelError: The model cannot be loaded.
    """
    console = view.console
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(
            model, device=device, dtype=dtype, star_memory_size=star, stream_window_size=stream, **engine_options
        )
    where = f"{engine.model.device} in {dtype_name(engine.model.dtype)}"
    console.print(f"model: {engine.model.name_or_path} on {where}", highlight=False, soft_wrap=True)
    view.show_standing(engine.warnings)
    return engine
