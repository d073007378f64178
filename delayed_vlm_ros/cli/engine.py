"""The engine of the commands that run without ROS."""

from __future__ import annotations

from rich.console import Console

from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine


def load_engine(console: Console, model: str, device: str, star: int, stream: int) -> DelayedBatchInferenceEngine:
    """Load a model and return an engine with an empty memory.

    Args:
        console: Console for the progress and the location of the model.
        model: Folder of a checkpoint, name on the Hugging Face Hub, ``demo`` or ``auto``.
        device: Device of the model: ``auto``, ``cpu`` or ``cuda[:N]``.
        star: Size of Star memory, in frames.
        stream: Size of Stream memory, in frames.

    Raises:
        ModelError: The model cannot be loaded.
    """
    with console.status("loading the model"):
        engine = DelayedBatchInferenceEngine.from_pretrained(
            model, device=device, star_memory_size=star, stream_window_size=stream
        )
    console.print(f"model: {engine.model.name_or_path} on {engine.model.device}", highlight=False, soft_wrap=True)
    return engine
