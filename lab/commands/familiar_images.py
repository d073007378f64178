"""``familiar-images``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delayed_vlm_ros.resources import data_folder
from delayed_vlm_ros.scenes import TUNING_SEEDS

_ROOMS = 420


def familiar_images(
    out: Annotated[Path | None, typer.Option(help="File to write.  [default: that of the package]")] = None,
) -> None:
    """Measure which images the embedded model knows, on synthetic rooms of the tuning seeds."""
    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.checkpoint import resolve_checkpoint  # noqa: PLC0415
    from delayed_vlm_ros.inference.local.models.loading import load_model  # noqa: PLC0415
    from lab.training.familiar_images import measure  # noqa: PLC0415

    folder = data_folder("demo", "tiny_scene")
    loaded = load_model(resolve_checkpoint(str(folder)), device="cpu")
    engine = DelayedBatchInferenceEngine(loaded.model, loaded.processor)
    measure(engine, TUNING_SEEDS[:_ROOMS]).save(out or folder / "image_statistics.npz")
