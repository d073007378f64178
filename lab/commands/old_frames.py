"""``bench old-frames``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from delayed_vlm_ros.scenes import HELD_OUT_SEEDS, TUNING_SEEDS
from lab.commands.output import AsJson, Device, Model, print_json


class Worlds(str, Enum):
    """Seeds of the scenes."""

    HELD_OUT = "held-out"
    TUNING = "tuning"


def old_frames(
    model: Model = "demo",
    device: Device = "auto",
    scenes: Annotated[int, typer.Option(help="Scenes; about four seconds of one core each.", min=2)] = 60,
    worlds: Annotated[Worlds, typer.Option(help="Seeds of the scenes.")] = Worlds.HELD_OUT,
    as_json: AsJson = False,
) -> None:
    """Measure answers about the present, the past and its order when key frames are hours or days old."""
    # These import torch.
    from delayed_vlm_ros.inference.local.engine import DelayedBatchInferenceEngine  # noqa: PLC0415
    from lab.bench.old_frames import ask_scene, old_frames_json  # noqa: PLC0415

    console = Console(stderr=as_json)
    seeds = (HELD_OUT_SEEDS if worlds is Worlds.HELD_OUT else TUNING_SEEDS)[:scenes]
    engine = DelayedBatchInferenceEngine.from_pretrained(model, device=device)
    runs = [ask_scene(engine, seed) for seed in track(seeds, "scenes", console=console, transient=True)]
    shape = {"model": model, "worlds": worlds.value, "seeds": [seeds.start, seeds.stop]}
    result = {"shape": shape, "layouts": old_frames_json(runs)}
    if as_json:
        print_json(result)
    else:
        _show(console, result)


def _show(console: Console, result: Mapping[str, Any]) -> None:
    layouts = result["layouts"]
    table = Table(title="correct answers, points over recent key frames, and the 95 % interval of these", box=None)
    for heading in (
        "age",
        "key frames",
        *(f"{name} ({one['questions']})" for name, one in layouts[0]["groups"].items()),
    ):
        table.add_column(heading)
    for layout in layouts:
        table.add_row(layout["age"], layout["key_frames"], *(_accuracy(one) for one in layout["groups"].values()))
    console.print(table)


def _accuracy(figures: Mapping[str, float]) -> str:
    over, low, high = (100 * figures[key] for key in ("over_recent", "low", "high"))
    return f"{100 * figures['accuracy']:.1f} % ({over:+.1f}, {low:+.1f} to {high:+.1f})"
